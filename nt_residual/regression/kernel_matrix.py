"""The kernel matrix of the training inputs, in whatever form it comes, and its checks."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_residual import _checks, memory
from nt_residual.gram import MatrixFree, Sharded, Stored, compute
from nt_residual.gram.operators import Operator, as_operator

Matrix = np.ndarray | jax.Array | MatrixFree | Sharded | Stored

# The side of the tiles that are compared, small enough for a processor's cache.
_TILE = 256
_REMEDY = "Use solver='lanczos', which needs products with it only."


def checked(kernel: Any, name: str, n: int | None = None) -> Matrix:
    """Return a kernel matrix, an array at least, having checked its shape and dtype.

    It must have n columns, or, if that is `None`, be square.
    """
    wanted, remedy = "(n, n), n ≥ 1", "kernel(x_train)"
    if n is not None:
        wanted = f"(n_test, {n}), one column per training input"
        remedy = "kernel(x_test, x_train)"
    # Those of `gram` hold real numbers.
    if not isinstance(kernel, MatrixFree | Sharded | Stored):
        if not isinstance(kernel, jax.Array):
            try:
                kernel = _checks.native(np.asarray(kernel))
            except ValueError as error:
                raise TypeError(f"{name} must be an array of real numbers: {error}") from None
        _checks.real_dtype(np.dtype(kernel.dtype), name, f"Pass {remedy}.")
    shape = tuple(kernel.shape)
    if len(shape) == 2 and shape[1] == (n or shape[0]) > 0:
        return kernel
    raise ValueError(f"{name} must have shape {wanted}, got shape {shape}. Pass {remedy}.")


def float_dtype(k: Any) -> np.dtype:
    """Return the dtype of `k` if it is a float dtype, else float64."""
    dtype = np.dtype(getattr(k, "dtype", np.float64)).newbyteorder("=")
    return dtype if jnp.issubdtype(dtype, np.floating) else np.dtype(np.float64)


def is_sharded(array: np.ndarray | jax.Array) -> bool:
    """Return whether no device has all rows."""
    return isinstance(array, jax.Array) and not array.is_fully_replicated


def check_finite(array: np.ndarray | jax.Array, name: str) -> None:
    """Raise `ValueError` if a value is NaN or infinite. A sharded array is not gathered."""
    # A sum is several times faster than a count, but may overflow.
    with np.errstate(all="ignore"):
        if np.isfinite(jnp.sum(array) if isinstance(array, jax.Array) else np.sum(array)):
            return
    where = ""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        count = int(jnp.sum(~jnp.isfinite(array)))
    else:
        bad = np.argwhere(~np.isfinite(np.asarray(array)))
        count, where = len(bad), f", the first at index {bad[0].tolist()}" if len(bad) else ""
    if count:
        raise ValueError(
            f"{name} must be finite, got {count} values that are NaN or infinite{where}. "
            "Check the data it was computed from."
        )


def on_host(kernel: Matrix) -> np.ndarray:
    """Return the matrix in float64, having checked that it fits and is finite."""
    array = kernel.matrix if isinstance(kernel, Sharded) else kernel
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        raise ValueError(
            f"solver='eigh' needs the whole matrix in one process, got one that is spread over "
            f"several. {_REMEDY}"
        )
    # The matrix, its eigenvectors, and about as much again to work in.
    parts = {"an eigendecomposition in float64": 4 * 8 * kernel.shape[0] ** 2}
    memory.check(parts, memory.available(), "this machine", _REMEDY)
    if isinstance(kernel, MatrixFree):
        x2 = None if kernel.x2 is None else np.asarray(kernel.x2)
        kernel = compute(kernel.kernel, np.asarray(kernel.x1), x2)
    values = np.asarray(kernel).astype(np.float64)
    check_finite(values, "k_train")
    return values


def operator(kernel: Matrix) -> Operator:
    """Return the products of the matrix, having checked it unless it is symmetric by construction.

    Of a matrix that is not in memory, the first product shows values that are not finite.
    """
    if isinstance(kernel, np.ndarray | jax.Array) and kernel.dtype != float_dtype(kernel):
        kernel = kernel.astype(float_dtype(kernel))
    found = as_operator(kernel)
    if isinstance(found, Stored) and found.symmetric:
        return found
    if isinstance(found, MatrixFree) and found.x2 is None:
        return found
    if isinstance(found, Sharded) and found.mesh.size == 1:
        off = float(_asymmetry(found.matrix))
    else:
        off = _sampled_asymmetry(found)
    if not np.isfinite(off) and isinstance(found, Sharded):
        check_finite(found.matrix, "k_train")
    check_symmetric(off, found.dtype, found.diagonal())
    return found


@jax.jit
def _asymmetry(matrix: jax.Array) -> jax.Array:
    """Return the largest |K − Kᵀ|, or NaN if K has a value that is NaN or infinite."""
    n, dtype = len(matrix), jnp.promote_types(matrix.dtype, jnp.float32)
    size = min(_TILE, n)
    count = -(-n // size)

    def tile(i: jax.Array, j: jax.Array) -> jax.Array:
        start = (jnp.minimum(k * size, n - size) for k in (i, j))
        return jax.lax.dynamic_slice(matrix, tuple(start), (size, size)).astype(dtype)

    def compare(i: jax.Array, j: jax.Array, state: tuple) -> tuple:
        off = jnp.abs(tile(i, j) - tile(j, i).T)
        return jnp.maximum(state[0], jnp.max(off)), state[1] + jnp.sum(off)

    def row(i: jax.Array, state: tuple) -> tuple:
        return jax.lax.fori_loop(i, count, lambda j, state: compare(i, j, state), state)

    zero = jnp.zeros((), dtype)
    largest, total = jax.lax.fori_loop(0, count, row, (zero, zero))
    # XLA's maximum may leave NaN out, its sum does not.
    return jnp.where(jnp.isfinite(total), largest, jnp.nan)


def _sampled_asymmetry(found: Operator) -> float:
    """Estimate the root mean square of K − Kᵀ by uᵀ K v − vᵀ K u for random signs u, v.

    It takes one product, where to compare entries would send the matrix between devices.
    """
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (found.shape[0], 2))
    placed = found.place(signs.astype(np.promote_types(found.dtype, np.float32)))
    products = found.jit(lambda found, v: found.product(v))(found, placed)
    products = signs.T @ np.asarray(products, np.float64)
    return abs(products[0, 1] - products[1, 0]) / len(signs)


def rounding(dtype: np.dtype, diagonal: np.ndarray) -> float:
    """Return ε √n max_i K_ii: eigenvalues that rounding of the entries of K can produce."""
    return float(jnp.finfo(dtype).eps) * math.sqrt(len(diagonal)) * float(np.max(diagonal))


def check_symmetric(asymmetry: float, dtype: np.dtype, diagonal: np.ndarray) -> None:
    """Raise `ValueError` if `asymmetry`, the largest |K − Kᵀ|, is more than rounding."""
    # Entries computed in another order differ in the last bits: 100 √n of them are allowed, but
    # fewer in half precision, where so many would be all.
    most = max(8 * float(jnp.finfo(dtype).eps), 0.01) * float(np.max(diagonal))
    if asymmetry > min(100 * rounding(dtype, diagonal), most):
        raise ValueError(
            f"k_train must be symmetric, got |K − Kᵀ| up to {asymmetry:.3g}. Pass kernel(x_train); "
            "a kernel between different inputs belongs in predict."
        )


def check_definite(smallest: float, largest: float, dtype: np.dtype) -> None:
    """Raise `ValueError` unless K, of these eigenvalues, is semi-definite up to rounding."""
    # In half precision the root would allow several per cent.
    allowed = min(math.sqrt(float(jnp.finfo(dtype).eps)), 0.01)
    if smallest < -allowed * largest or largest <= 0:
        zero = " Inputs so small that their kernel is below its dtype's range need scaling."
        raise ValueError(
            f"k_train must be positive semi-definite, got eigenvalues from {smallest:.3g} to "
            f"{largest:.3g}. Check that it is kernel(x_train).{zero if largest == 0 else ''}"
        )
