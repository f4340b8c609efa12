"""Residual networks of finite width in Flax: comparison with kernels, and training."""

from nt_residual.finite_width.convolutional import ConvResNet
from nt_residual.finite_width.flow import FlowMatch, training_matches_flow
from nt_residual.finite_width.fully_connected import ResNet
from nt_residual.finite_width.learning_rate import largest_learning_rate
from nt_residual.finite_width.residual import scaled_residual
from nt_residual.finite_width.residual_network import Frozen
from nt_residual.finite_width.stax_parameters import from_stax, to_stax
from nt_residual.finite_width.training import Trained, TrainingDiverged, train
from nt_residual.finite_width.width_results import WidthSweep
from nt_residual.finite_width.width_sweep import width_sweep

__all__ = [
    "ConvResNet",
    "FlowMatch",
    "Frozen",
    "ResNet",
    "Trained",
    "TrainingDiverged",
    "WidthSweep",
    "from_stax",
    "largest_learning_rate",
    "scaled_residual",
    "to_stax",
    "train",
    "training_matches_flow",
    "width_sweep",
]
