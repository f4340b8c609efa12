"""A fast kernel of infinitely wide convolutional residual networks."""

from nt_residual.conv.kernel import ResidualKernel as ResidualKernel

__all__ = ["ResidualKernel"]
