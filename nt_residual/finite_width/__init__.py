"""Finite networks in Flax that check every kernel, and train as the theory says."""

from nt_residual.finite_width.models import ConvResNet, Frozen, ResNet
from nt_residual.finite_width.stax_parameters import from_stax, ntk_learning_rates, to_stax

__all__ = ["ConvResNet", "Frozen", "ResNet", "from_stax", "ntk_learning_rates", "to_stax"]
