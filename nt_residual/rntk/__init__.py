"""The residual neural tangent kernel (RNTK) of fully-connected networks, in closed form."""

from nt_residual.rntk.angle import angle as angle
from nt_residual.rntk.kernel import ResidualKernel as ResidualKernel
from nt_residual.rntk.recursion import BlockSums as BlockSums
from nt_residual.rntk.recursion import block_sums as block_sums
