"""The angle between two batches of inputs, and the checks the inputs must pass."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

# Where |cos θ| exceeds this, the angle is taken from x/|x| ∓ x'/|x'| itself: a dot
# product knows cos θ to ±ε, hence a small θ only to ±ε/θ.
_NEARLY_PARALLEL = 0.99


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
        array = x if isinstance(x, jax.Array) else np.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of shape (n, d): {error}") from None
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} must hold real floats, got dtype {array.dtype}. "
            f"Convert it: {name}.astype('float32')."
        )
    if array.ndim != 2:
        raise ValueError(
            f"{name} must have shape (n, d), one input per row, got shape {array.shape}. "
            f"For a single input pass {name}[None, :]; for images {name}.reshape(n, -1)."
        )
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one input, got shape {array.shape}.")
    given, array = array.dtype, jnp.asarray(array)
    if not isinstance(array, Tracer):
        _check_rows(array, name if array.dtype == given else f"{name}, converted to {array.dtype},")
    return array


def _check_rows(x: jax.Array, name: str) -> None:
    not_finite, zero = map(np.asarray, _bad_rows(x))
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
def _bad_rows(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return ~jnp.isfinite(x).all(axis=1), (x == 0).all(axis=1)


def row_norms(x: jax.Array) -> jax.Array:
    """Euclidean norm of each row, shape (n, 1), without overflow or underflow."""
    largest = jnp.max(jnp.abs(x), axis=1, keepdims=True)
    return largest * jnp.linalg.norm(x / largest, axis=1, keepdims=True)


def angle(x1: jax.Array, x2: jax.Array | None = None) -> jax.Array:
    """Angles between all pairs of rows, in radians, accurate also where they are tiny.

    Args:
      x1: shape (n1, d), rows finite and not zero.
      x2: shape (n2, d), likewise; `None` for `x1`, whose angles with itself are
        exactly zero on the diagonal.

    Returns:
      Shape (n1, n2), in [0, π]. Not checked: a zero row gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> angle(jnp.eye(2), jnp.array([[1.0, 1e-6]]))[0]
      Array([1.e-06], dtype=float32)
    """
    unit1 = x1 / row_norms(x1)
    unit2 = unit1 if x2 is None else x2 / row_norms(x2)
    cosine = jnp.matmul(unit1, unit2.T, precision="highest")
    if x2 is None:
        # Any value will do on the diagonal, and zero leaves its rows out of what follows.
        same = jnp.eye(x1.shape[0], dtype=bool)
        cosine = jnp.where(same, 0, cosine)
    nearly_parallel = jnp.abs(cosine) > _NEARLY_PARALLEL
    # The side of a `where` that is not taken must stay finite, or its gradient is NaN.
    chord = 2 * jnp.sqrt((1 - jnp.abs(jnp.where(nearly_parallel, 0, cosine))) / 2)
    # |x/|x| − x'/|x'||, only for those rows of x1 that have a nearly parallel row in x2.
    exact = jax.lax.map(
        functools.partial(_chords_of_row, unit2=unit2), (unit1, cosine, nearly_parallel.any(1))
    )
    chord = jnp.where(nearly_parallel, exact, chord)
    acute = 2 * jnp.arcsin(jnp.minimum(chord / 2, 1))
    theta = jnp.where(cosine < 0, jnp.pi - acute, acute)
    return theta if x2 is not None else jnp.where(same, 0, theta)


def _chords_of_row(row: Any, unit2: jax.Array) -> jax.Array:
    unit, cosine, needed = row

    def chords(_: None) -> jax.Array:
        sign = jnp.where(cosine < 0, -1, 1).astype(unit2.dtype)
        square = jnp.sum(jnp.square(unit[None, :] - sign[:, None] * unit2), axis=1)
        # At θ = 0 the square root has no derivative; zero is taken there.
        apart = square > 0
        return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)

    return jax.lax.cond(needed, chords, lambda _: jnp.zeros_like(cosine), None)
