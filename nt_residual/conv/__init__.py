"""The kernel of convolutional residual networks, fast."""

from nt_residual.conv.kernel import ResidualKernel as ResidualKernel

__all__ = ["ResidualKernel"]
