"""Kernels, networks and inputs that several families use, and float64 references."""

import functools

import jax
import numpy as np
from scipy.spatial.distance import cdist

import nt_residual
from benchmarks.suite.case import distance, sampled
from nt_residual import conv, rntk, schedules
from nt_residual import neural_tangents as nt

SCHEDULE = schedules.PowerLaw(0.5)
FEATURES = 784


@functools.cache
def inputs(n: int, dtype: str = "float32") -> np.ndarray:
    """Return standard normal inputs of shape (n, FEATURES)."""
    return np.random.default_rng(0).normal(size=(n, FEATURES)).astype("float32").astype(dtype)


@functools.cache
def kernel(depth: float) -> rntk.ResidualKernel:
    """Return the kernel of blocks with α = L^(−1/2)."""
    result = rntk.ResidualKernel(depth, SCHEDULE)
    result.coefficients  # noqa: B018  Computed here once, so not while a program compiles.
    return result


def exact(rows: np.ndarray, columns: np.ndarray, depth: float) -> np.ndarray:
    """Compute `kernel(depth)` between inputs from its recursion, in float64 on the host."""
    rows, columns = np.asarray(rows, np.float64), np.asarray(columns, np.float64)
    norms1, norms2 = (np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, columns))
    # From differences: the angle between equal inputs is zero. From a cosine it would be √ε.
    halves = np.minimum(cdist(rows / norms1, columns / norms2) / 2, 1)
    return norms1 * norms2.T * kernel(depth).at_angle(2 * np.arcsin(halves))


def error(matrix: np.ndarray, n: int, depth: float, scale: float = 1.0) -> float:
    """Compute the error of k(x, x) against the reference, at entries in all parts of the matrix."""
    chosen = sampled(n)
    x = inputs(n)[chosen]
    return distance(matrix[np.ix_(chosen, chosen)], scale * exact(x, x, depth))


def matrix_bytes(n: int, itemsize: int) -> int:
    """Return the bytes to read the inputs and to write the matrix."""
    return (n * FEATURES + n * n) * itemsize


def product_flops(n: int) -> int:
    """Return the operations for the products of all pairs of inputs, each pair once."""
    return FEATURES * n * (n + 1)


def nt_kernel(depth: int, gamma: float):
    """Return the NTK of the same blocks in neural-tangents, with α in each branch's last layer."""
    alpha = float(depth) ** -gamma

    def kernel(x):
        width = x.shape[1]
        branch = nt.stax.serial(
            nt.stax.Dense(width, W_std=2**0.5), nt.stax.Relu(), nt.stax.Dense(width, W_std=alpha)
        )
        # Only blocks are trained.
        first = nt_residual.stax.Frozen(nt.stax.Dense(width))
        _, _, kernel_fn = nt.stax.serial(first, nt.stax.repeat(block(branch), depth))
        return kernel_fn(x, None, "ntk")

    return kernel


def block(branch):
    """Return x + branch(x) in neural-tangents' own layers."""
    both = nt.stax.parallel(nt.stax.Identity(), branch)
    return nt.stax.serial(nt.stax.FanOut(2), both, nt.stax.FanInSum())


def images(n: int, side: int) -> jax.Array:
    """Return random images with three channels."""
    return jax.random.uniform(jax.random.key(0), (n, side, side, 3))


def conv_kernels(pooling: str, side: int, blocks: int):
    """Return our kernel and neural-tangents' of the same scale, as functions of two batches."""
    ours = conv.ResidualKernel(blocks, SCHEDULE, (side, side), pooling=pooling, normalize=False)
    _, _, kernel_fn = nt_residual.stax.ConvResNet(blocks, 16, schedule=SCHEDULE, pooling=pooling)
    return ours, lambda x1, x2=None: kernel_fn(x1, x2, "ntk")
