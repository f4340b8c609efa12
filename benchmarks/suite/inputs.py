"""Fully-connected kernels and inputs, and the float64 reference of some of their entries."""

import functools

import numpy as np
from scipy.spatial.distance import cdist

from benchmarks.networks import points
from benchmarks.suite.case import distance, sampled
from nt_residual import rntk, schedules

FEATURES = 784


@functools.cache
def inputs(n: int, dtype: str = "float32") -> np.ndarray:
    """Standard normal, shape (n, FEATURES)."""
    return points(n, FEATURES).astype(dtype)


@functools.cache
def kernel(depth: float) -> rntk.ResidualKernel:
    """The kernel of blocks with α = L^(−1/2)."""
    result = rntk.ResidualKernel(depth, schedules.PowerLaw(0.5))
    result.coefficients  # noqa: B018  Computed here, once, and not where it is compiled.
    return result


def exact(rows: np.ndarray, columns: np.ndarray, depth: float) -> np.ndarray:
    """The kernel between two batches from the recursion itself, in float64 on the host."""
    rows, columns = np.asarray(rows, np.float64), np.asarray(columns, np.float64)
    norms1, norms2 = (np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, columns))
    # From differences: between equal inputs the angle is zero, not the root of rounding.
    halves = np.minimum(cdist(rows / norms1, columns / norms2) / 2, 1)
    return norms1 * norms2.T * kernel(depth).at_angle(2 * np.arcsin(halves))


def error(matrix, n: int, depth: float, scale: float = 1.0) -> float:
    """How far a matrix k(x, x) is from the reference, at entries from all of its parts."""
    chosen = sampled(n)
    x = inputs(n)[chosen]
    return distance(matrix[np.ix_(chosen, chosen)], scale * exact(x, x, depth))


def matrix_bytes(n: int, itemsize: int) -> int:
    """Inputs read and a matrix written."""
    return (n * FEATURES + n * n) * itemsize


def product_flops(n: int) -> int:
    """Those of the products of all pairs of inputs, each once."""
    return FEATURES * n * (n + 1)
