"""The kernel matrix of the training inputs, in whatever form it comes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_residual import memory
from nt_residual.gram import MatrixFree, Stored, compute
from nt_residual.gram.operators import Dense, Operator, as_operator
from nt_residual.regression.inputs import (
    as_array,
    check_finite,
    check_symmetric,
    float_dtype,
)

Kernel = np.ndarray | jax.Array | MatrixFree | Stored

# The side of the tiles of a matrix that are compared, small enough for a processor's cache.
_TILE = 256
_REMEDY = "Use solver='lanczos', which needs products with it only."


def check(k_train: Any) -> Kernel:
    """Returns the kernel matrix as it is, an array at least, having checked its shape and dtype.

    Raises:
      TypeError: if it does not hold real numbers.
      ValueError: if it is not square or is empty.
    """
    # Those of `gram` hold real numbers as they are made.
    kernel = k_train if isinstance(k_train, MatrixFree | Stored) else as_array(k_train, "k_train")
    shape = tuple(kernel.shape)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(
            f"k_train must have shape (n, n), n ≥ 1, got shape {shape}. Pass kernel(x_train)."
        )
    return kernel


def is_sharded(kernel: Any) -> bool:
    """Whether it is an array of which no device has all rows."""
    return isinstance(kernel, jax.Array) and not kernel.is_fully_replicated


def whole(kernel: Kernel) -> np.ndarray:
    """The matrix on the host in float64, finite.

    Raises:
      MemoryError: if it does not fit.
      ValueError: if it is spread over several processes, or has a value that is NaN or
        infinite.
    """
    if isinstance(kernel, jax.Array) and not kernel.is_fully_addressable:
        raise ValueError(
            f"solver='eigh' needs the whole matrix in one process, got one that is spread over "
            f"several. {_REMEDY}"
        )
    n = kernel.shape[0]
    # Itself, its eigenvectors, and about as much again to work in.
    memory.check(
        {"an eigendecomposition in float64": 4 * 8 * n**2},
        memory.available(),
        "this machine",
        _REMEDY,
    )
    if isinstance(kernel, MatrixFree):
        kernel = compute(kernel.kernel, np.asarray(kernel.x), tile_size=kernel.tile_size)
    values = np.asarray(kernel)
    check_finite(values, "k_train")
    return values.astype(np.float64)


def operator(kernel: Kernel) -> Operator:
    """The products with it. What is in memory is checked to be finite and symmetric.

    Tiles that are computed anew or read from disk in each product are not gone through for
    that alone: they are symmetric as they are made, and the first product shows what is
    not finite.

    Raises:
      ValueError: if it is not finite or not symmetric, or sharded in a way that does not
        suit products.
    """
    if isinstance(kernel, np.ndarray | jax.Array) and kernel.dtype != float_dtype(kernel):
        kernel = kernel.astype(float_dtype(kernel))
    found = as_operator(kernel)
    diagonal = found.diagonal()
    if isinstance(found, Dense):
        compared = _asymmetry(found.matrix) if found.mesh is None else _sampled_asymmetry(found)
        if not np.isfinite(compared):
            check_finite(found.matrix, "k_train")
        check_symmetric(float(compared), found.dtype, diagonal)
    elif isinstance(kernel, Stored) and not kernel.symmetric:
        check_symmetric(_sampled_asymmetry(found), found.dtype, diagonal)
    return found


@jax.jit
def _asymmetry(matrix: jax.Array) -> jax.Array:
    """The largest |K − Kᵀ|; NaN if K has a value that is NaN or infinite."""
    n = len(matrix)
    size = min(_TILE, n)
    count = -(-n // size)

    def compare(i, j, state):
        row, column = (jnp.minimum(k * size, n - size) for k in (i, j))
        tile = jax.lax.dynamic_slice(matrix, (row, column), (size, size))
        mirror = jax.lax.dynamic_slice(matrix, (column, row), (size, size))
        off = jnp.abs(tile - mirror.T)
        return jnp.maximum(state[0], jnp.max(off)), state[1] + jnp.sum(off)

    def step(i, state):
        return jax.lax.fori_loop(i, count, lambda j, state: compare(i, j, state), state)

    zero = jnp.zeros((), matrix.dtype)
    largest, total = jax.lax.fori_loop(0, count, step, (zero, zero))
    # XLA's maximum may leave NaN out, its sum does not.
    return jnp.where(jnp.isfinite(total), largest, jnp.nan)


def _sampled_asymmetry(found: Operator) -> float:
    """The root mean square of K − Kᵀ, estimated from uᵀ K v − vᵀ K u for random signs.

    It asks for one product, where to compare entries would send the matrix around.
    """
    n = found.shape[0]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (n, 2))
    v = found.place(signs.astype(jnp.promote_types(found.dtype, jnp.float32)))
    (_, uv), (vu, _) = np.asarray(found.jit(_quadratic)(found, v), np.float64)
    return abs(uv - vu) / n


def _quadratic(found: Operator, v: jax.Array) -> jax.Array:
    return jnp.matmul(v.T, found.product(v), precision="highest")
