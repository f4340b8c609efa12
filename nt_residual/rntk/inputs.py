"""The checks that inputs, angles and the range of a kernel must pass."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from nt_residual import memory
from nt_residual._checks import native


def check_inputs(x: ArrayLike, name: str) -> jax.Array:
    """Returns `x` as a JAX array of shape (n, d), having checked it.

    Values are checked where they are known, that is outside `jax.jit` and its
    like; inside, only shape and dtype are.

    Args:
      x: one input per row, shape (n, d), real floats. As everywhere in JAX a
        float64 array becomes float32 unless `jax_enable_x64` is set.
      name: what to call `x` in an error.

    Raises:
      TypeError: if `x` is not an array of real floats.
      ValueError: if it is not two-dimensional, is empty, or has a row that holds
        NaN or infinity or is zero.

    Example:
      >>> import numpy as np
      >>> check_inputs(np.eye(2), "x").shape
      (2, 2)
    """
    try:
        array = x if isinstance(x, jax.Array) else native(np.asarray(x))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of shape (n, d): {error}") from None
    if not jnp.issubdtype(array.dtype, jnp.floating):
        convert = f"Convert it: {name}.astype('float32')."
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            convert = "Pass real and imaginary parts as features of their own."
        raise TypeError(f"{name} must hold real floats, got dtype {array.dtype}. {convert}")
    if array.ndim != 2:
        raise ValueError(
            f"{name} must have shape (n, d), one input per row, got shape {array.shape}. "
            f"For a single input pass {name}[None, :]; for images {name}.reshape(n, -1)."
        )
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one input, got shape {array.shape}.")
    # Inside a function that JAX traces a NumPy array would become a traced one.
    with jax.ensure_compile_time_eval():
        given, array = array.dtype, jnp.asarray(array)
    if is_known(array):
        _check_rows(array, name if array.dtype == given else f"{name}, converted to {array.dtype},")
    return array


def check_pair(x1: ArrayLike, x2: ArrayLike | None) -> tuple[jax.Array, jax.Array | None, np.dtype]:
    """Returns two batches in the dtype to compute in, and that of the first, having checked them.

    Args:
      x1: shape (n1, d), real floats.
      x2: shape (n2, d), likewise, or `None`.

    Returns:
      Both in the dtype of `x1` or float32, whichever is more, and the dtype of `x1`.

    Raises:
      TypeError, ValueError: as `check_inputs`, and if the numbers of features differ.
    """
    x1 = check_inputs(x1, "x1")
    given, dtype = x1.dtype, np.promote_types(x1.dtype, np.float32)
    if x2 is not None:
        x2 = check_inputs(x2, "x2")
        if x1.shape[1] != x2.shape[1]:
            raise ValueError(
                f"x1 and x2 must have the same number of features, got shapes {x1.shape} "
                f"and {x2.shape}."
            )
        wide, x2 = x2.dtype, x2.astype(dtype)
        if wide != dtype and is_known(x2):
            _check_rows(x2, f"x2, converted to {dtype},")
    return x1.astype(dtype), x2, given


def check_angles(theta: ArrayLike) -> np.ndarray:
    """Returns `theta` as a float64 NumPy array, having checked that it is in [0, π].

    Args:
      theta: angles in radians, any shape.

    Raises:
      TypeError: if `theta` does not hold real numbers.
      ValueError: if an angle is outside [0, π] or NaN.
    """
    angles = np.asarray(theta)
    if angles.dtype.kind not in "iuf" and not jnp.issubdtype(angles.dtype, jnp.floating):
        raise TypeError(f"theta must hold real angles in radians, got dtype {angles.dtype}.")
    angles = angles.astype(np.float64)
    # π itself rounds up in lower precision.
    if not np.all((angles >= 0) & (angles <= np.float32(math.pi))):
        raise ValueError(
            "theta must hold angles in radians, in [0, π], got values from "
            f"{np.min(angles)} to {np.max(angles)}."
        )
    return np.minimum(angles, math.pi)


def is_known(x: jax.Array) -> bool:
    """Whether the values of `x` can be looked at here: not traced, nor on other hosts."""
    return not isinstance(x, Tracer) and x.is_fully_addressable


def _check_rows(x: jax.Array, name: str) -> None:
    # Inside a function that JAX traces, where `x` may be a known array that it closes over.
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
    """The largest absolute value of each row: NaN where one is NaN or infinite."""
    # XLA's maximum may leave NaN out.
    finite = jnp.isfinite(x).all(axis=1)
    return jnp.where(finite, jnp.max(jnp.abs(x), axis=1), jnp.nan)


def row_norms(x: jax.Array) -> jax.Array:
    """Euclidean norm of each row, shape (n, 1), without overflow or underflow."""
    largest = jnp.max(jnp.abs(x), axis=1, keepdims=True)
    largest = jnp.where(largest > 0, largest, 1)
    return largest * jnp.linalg.norm(x / largest, axis=1, keepdims=True)


def check_memory(x1: jax.Array, x2: jax.Array | None, matrices: int) -> None:
    """Refuse inputs whose matrix cannot fit, unless they are traced.

    Args:
      x1: shape (n1, d). Of sharded inputs the rows on one device count.
      x2: shape (n2, d), or `None` for `x1`.
      matrices: how many arrays of the result's size are needed at once.

    Raises:
      MemoryError: if the matrix is larger than what is free.
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
    """Refuses inputs whose kernel would overflow, as far as their values are known.

    Args:
      x1: shape (n1, d).
      x2: shape (n2, d), the same dtype, or `None` for `x1`.
      dtype: that of the result.
      log_scale: the logarithm of the kernel of a unit input with itself.
      degree: the kernel grows like (|x| |x'|) to this power.
      remedy: what can be done besides scaling the inputs.

    Raises:
      ValueError: if the kernel would leave the range of the dtype.
    """
    limit = math.log(float(jnp.finfo(dtype).max))
    batches, times = ([x1], 2) if x2 is None else ([x1, x2], 1)
    if all(map(is_known, batches)):
        with jax.ensure_compile_time_eval():
            # No norm is larger than √d times the largest entry: mostly that settles it.
            largest = times * sum(math.log(float(_largest(x))) for x in batches)
            if log_scale + degree * (math.log(x1.shape[1]) + largest) <= limit:
                return
            log_scale += degree * times * sum(map(_log_largest_norm, batches))
    if log_scale > limit:
        raise ValueError(
            f"the kernel of these inputs reaches exp({log_scale:.4g}), beyond the range of "
            f"{dtype} (exp({limit:.4g})). Scale the inputs down{remedy}."
        )


@jax.jit
def _largest(x: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(x))


def _log_largest_norm(x: jax.Array) -> float:
    # In two factors, neither of which overflows.
    largest = _largest(x)
    return math.log(float(largest)) + math.log(float(jnp.max(row_norms(x / largest))))
