"""Checks and norms of batches of inputs, one input per row.

Values are checked where they are known: not inside `jax.jit` or similar, and not on other hosts.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from nt_residual import _checks, memory


def check_pair(x1: ArrayLike, x2: ArrayLike | None) -> tuple[jax.Array, jax.Array | None, np.dtype]:
    """Check two batches; return them in the dtype to compute in, and the dtype of the first.

    As everywhere in JAX, a float64 array becomes float32 unless `jax_enable_x64` is set.

    Raises `TypeError` and `ValueError` as `ResidualKernel.__call__`.
    """
    x1 = _check_batch(x1, "x1")
    if x2 is not None:
        x2 = _check_batch(x2, "x2")
        if x1.shape[1] != x2.shape[1]:
            raise ValueError(
                f"x1 and x2 must have the same number of features, got shapes {x1.shape} "
                f"and {x2.shape}."
            )
    return in_one_dtype(x1, x2, _check_values)


def in_one_dtype(
    x1: jax.Array, x2: jax.Array | None, check_values: Callable[[jax.Array, str], None]
) -> tuple[jax.Array, jax.Array | None, np.dtype]:
    """Return both batches in one dtype, at least float32, and the given dtype of the first."""
    given, dtype = x1.dtype, jnp.promote_types(x1.dtype, jnp.float32)
    if x2 is not None and x2.dtype != dtype:
        x2 = x2.astype(dtype)
        check_values(x2, f"x2, converted to {dtype},")
    return x1.astype(dtype), x2, given


def _check_batch(x: ArrayLike, name: str) -> jax.Array:
    array = _checks.float_array(x, name, "(n, d)")
    if array.ndim != 2:
        raise ValueError(
            f"{name} must have shape (n, d), one input per row, got shape {array.shape}. "
            f"For a single input pass {name}[None, :]; for images {name}.reshape(n, -1)."
        )
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one input, got shape {array.shape}.")
    return converted(array, name, _check_values)


def converted(array: Any, name: str, check: Callable[[jax.Array, str], None]) -> jax.Array:
    """Convert `array` to a JAX array, in a dtype that JAX's configuration allows, and check it."""
    # Inside a function that JAX traces, a NumPy array would otherwise become a traced one.
    with jax.ensure_compile_time_eval():
        given, array = array.dtype, jnp.asarray(array)
    check(array, name if array.dtype == given else f"{name}, converted to {array.dtype},")
    return array


def is_known(x: jax.Array) -> bool:
    """Return whether the values of `x` can be read here: not traced, nor on other hosts."""
    return not isinstance(x, Tracer) and x.is_fully_addressable


def _check_values(x: jax.Array, name: str) -> None:
    if not is_known(x):
        return
    # Inside a function that JAX traces, `x` may be a known array that the function closes over.
    with jax.ensure_compile_time_eval():
        sizes = np.asarray(_row_sizes(x))
    not_finite, zero = ~np.isfinite(sizes), sizes == 0
    if not_finite.any():
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in row {not_finite.argmax()} "
            f"({not_finite.sum()} such rows). Remove or impute them."
        )
    if zero.any():
        raise ValueError(
            f"{name} has a zero row, row {zero.argmax()} ({zero.sum()} such rows), and the "
            "angle between zero and another input is undefined. Remove these rows, or append a "
            "constant feature, which acts as a bias of the first layer."
        )


@jax.jit
def _row_sizes(x: jax.Array) -> jax.Array:
    """Return the largest absolute value of each row; NaN if the row has NaN or infinity."""
    # XLA's maximum may ignore NaN.
    finite = jnp.isfinite(x).all(axis=1)
    return jnp.where(finite, jnp.max(jnp.abs(x), axis=1), jnp.nan)


def row_norms(x: jax.Array) -> jax.Array:
    """Return the Euclidean norm of each row, shape (n, 1), without overflow or underflow."""
    largest = jnp.max(jnp.abs(x), axis=1, keepdims=True)
    largest = jnp.where(largest > 0, largest, 1)
    return largest * jnp.linalg.norm(x / largest, axis=1, keepdims=True)


def check_memory(x1: jax.Array, x2: jax.Array | None, matrices: int) -> None:
    """Raise `MemoryError` if `matrices` arrays of the result's size do not fit in memory.

    Traced inputs are not checked. If inputs are sharded, only the rows on one device count.
    """
    batches = [x1] if x2 is None else [x1, x2]
    if not all(map(is_known, batches)):
        return
    rows = [x.sharding.shard_shape(x.shape)[0] for x in batches]
    columns = len(x1) if x2 is None else rows[1]
    copies = 2 * sum(rows) * x1.shape[1]
    parts = {"the matrix": matrices * rows[0] * columns, "copies of the inputs": copies}
    parts = {name: count * x1.dtype.itemsize for name, count in parts.items()}
    memory.check_call(parts, x1.devices())


def check_range(
    x1: jax.Array,
    x2: jax.Array | None,
    dtype: np.dtype,
    log_scale: float,
    *,
    degree: float = 1.0,
    remedy: str = "",
) -> None:
    """Raise `ValueError` if exp(log_scale)·(|x| |x'|)^degree leaves the range of `dtype`.

    Inputs are rows or images. The error advises to scale them down, and adds `remedy`.
    """
    limit = math.log(float(jnp.finfo(dtype).max))
    batches = [x1, x1 if x2 is None else x2]
    if all(map(is_known, batches)):
        with jax.ensure_compile_time_eval():
            log_scale += degree * sum(float(_log_largest_norm(x)) for x in batches)
    if log_scale > limit:
        raise ValueError(
            f"the kernel of these inputs reaches exp({log_scale:.4g}), beyond the range of "
            f"{dtype} (exp({limit:.4g})). Scale the inputs down{remedy}."
        )


@jax.jit
def _log_largest_norm(x: jax.Array) -> jax.Array:
    # The norm is a product of two factors that do not overflow. Images may be zero.
    largest = jnp.max(jnp.abs(x), initial=jnp.finfo(x.dtype).tiny)
    norms = row_norms((x / largest).reshape(len(x), -1))
    return jnp.log(largest) + jnp.log(jnp.maximum(jnp.max(norms), 1))
