"""The angle between two batches of inputs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from nt_residual.rntk.inputs import row_norms

# Where |cos θ| exceeds this, the angle is taken from x/|x| ∓ x'/|x'| itself: a dot
# product knows cos θ to ±ε, hence a small θ only to ±ε/θ.
_NEARLY_PARALLEL = 0.99


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
    # |x/|x| − x'/|x'||, only for those rows of x1 that have a nearly parallel row in x2. The
    # reverse mode computes their differences once more rather than keep (n1, n2, d) numbers.
    exact = jax.lax.map(
        jax.checkpoint(functools.partial(_chords_of_row, unit2=unit2)),
        (unit1, cosine, nearly_parallel.any(1)),
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
