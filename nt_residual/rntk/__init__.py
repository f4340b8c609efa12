"""The residual neural tangent kernel (RNTK) of fully-connected networks, in closed form."""

from nt_residual.rntk.angles import angle as angle
from nt_residual.rntk.homogeneous import HomogeneousKernel as HomogeneousKernel
from nt_residual.rntk.homogeneous import compile_homogeneous as compile_homogeneous
from nt_residual.rntk.kernel import ResidualKernel as ResidualKernel
from nt_residual.rntk.recursion import BlockSums as BlockSums
from nt_residual.rntk.recursion import block_sums as block_sums
from nt_residual.rntk.recursive import recursive_kernel as recursive_kernel
from nt_residual.rntk.taylor import power_series as power_series
