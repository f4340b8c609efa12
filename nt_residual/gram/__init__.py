"""Gram matrices of any kernel function: in memory, over many devices, on disk, or never whole."""

from nt_residual.gram.matrix import compute as compute
from nt_residual.gram.matrix_free import MatrixFree as MatrixFree
from nt_residual.gram.operators import Sharded as Sharded
from nt_residual.gram.store import Stored as Stored
from nt_residual.gram.store import load as load
from nt_residual.gram.streaming import product as product
