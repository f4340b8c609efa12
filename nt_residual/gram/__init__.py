"""Gram matrices of any kernel function: in memory, over many devices, on disk, or not stored."""

from nt_residual.gram.low_rank import LowRank as LowRank
from nt_residual.gram.matrix import compute as compute
from nt_residual.gram.matrix_free import MatrixFree as MatrixFree
from nt_residual.gram.sharded import Sharded as Sharded
from nt_residual.gram.stored import Stored as Stored
from nt_residual.gram.stored import load as load
