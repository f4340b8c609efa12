"""The NTK of fully-connected residual networks against neural-tangents, by n, depth and dtype.

Both get the same inputs, and are checked against the recursion in float64. The work counted is the
matrix product of the inputs, half of it because of symmetry: 784·n(n + 1) operations, and
(784 n + n²) numbers read and written.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np

from benchmarks import networks
from benchmarks.suite.case import Case, Counts
from nt_residual import schedules

# n and depth; then those pairs for which neural-tangents is timed too.
SIZES = {
    "quick": (((500, 10), (500, 1000)), ((500, 10),)),
    "standard": (
        ((1000, 10), (1000, 100), (1000, 1000), (1000, math.inf), (4000, 10), (4000, 1000)),
        ((1000, 10), (1000, 100), (4000, 10)),
    ),
    "large": (
        ((4000, 10), (4000, 100), (4000, 1000), (20_000, 10), (20_000, math.inf)),
        ((4000, 10), (4000, 100)),
    ),
}
# In neural-tangents, half of the digits of angles are correct.
TOLERANCE = {
    "nt_residual": {"float32": 1e-5, "float64": 1e-9},
    "neural-tangents": {"float32": 1e-2, "float64": 1e-5},
}


def cases(size: str, dtype: str = "float32") -> list[Case]:
    """Return our kernel and neural-tangents' for each n and depth."""
    ours, theirs = SIZES[size]
    return [
        case(who, n, depth, dtype)
        for n, depth in ours
        for who in ("nt_residual", "neural-tangents")
        if who == "nt_residual" or (n, depth) in theirs
    ]


def case(who: str, n: int, depth: float, dtype: str) -> Case:
    """Return one implementation at one size."""
    scale = 1.0 if who == "nt_residual" else _nt_scale(depth)
    itemsize = np.dtype(dtype).itemsize
    counts = Counts(n * n, networks.matrix_bytes(n, itemsize), networks.product_flops(n))
    return Case(
        family="fc_kernel",
        who=who,
        sizes={"n": n, "depth": depth if depth < math.inf else "∞", "dtype": dtype},
        build=functools.partial(_build, who, n, depth, dtype),
        check=lambda matrix: networks.error(matrix, n, depth, scale),
        tolerance=TOLERANCE[who][dtype],
        counts=lambda _: counts,
    )


def _build(who, n, depth, dtype):
    x = jnp.asarray(networks.inputs(n, dtype))
    if who == "neural-tangents":
        return networks.nt_kernel(depth, 0.5), (x,)
    kernel = networks.kernel(depth)
    return lambda x: kernel(x), (x,)


def _nt_scale(depth):
    """Return neural-tangents' NTK over ours: Π(1 + α²) · 2 Σ α²/(1 + α²), over FEATURES."""
    squares = schedules.PowerLaw(0.5)(depth) ** 2
    growth = math.exp(np.log1p(squares).sum())
    return growth * 2 * float(np.sum(squares / (1 + squares))) / networks.FEATURES
