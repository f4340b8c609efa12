"""Angles: between two batches of inputs, from a cosine, and given by the user."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_residual import _checks
from nt_residual.rntk.chebyshev import horner, powers
from nt_residual.rntk.rows import row_norms

# Where |cos θ| exceeds this, the angle is taken from x/|x| ∓ x'/|x'| itself: a dot
# product knows cos θ to ±ε, hence a small θ only to ±ε/θ.
_NEARLY_PARALLEL = 0.99


def angle(x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
    """Return the angles between all pairs of rows, accurate also where they are tiny.

    Args:
      x1: shape (n1, d), rows finite and not zero.
      x2: shape (n2, d), likewise; `None` for `x1`, whose angles with itself are
        exactly zero on the diagonal.

    Returns:
      Radians in [0, π], shape (n1, n2). Values are not checked: a zero row gives NaN.

    Raises:
      TypeError: if an input does not hold real floats.

    Example:
      >>> import jax.numpy as jnp
      >>> angle(jnp.eye(2), jnp.array([[1.0, 1e-6]]))[0]
      Array([1.e-06], dtype=float32)
    """
    x1 = jnp.asarray(_checks.float_array(x1, "x1", "(n1, d)"))
    unit1 = x1 / row_norms(x1)
    if x2 is None:
        unit2 = unit1
    else:
        x2 = jnp.asarray(_checks.float_array(x2, "x2", "(n2, d)"))
        unit2 = x2 / row_norms(x2)
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


def _chords_of_row(row: tuple[jax.Array, jax.Array, jax.Array], unit2: jax.Array) -> jax.Array:
    unit, cosine, needed = row

    def chords(_: None) -> jax.Array:
        sign = jnp.where(cosine < 0, -1, 1).astype(unit2.dtype)
        square = jnp.sum(jnp.square(unit[None, :] - sign[:, None] * unit2), axis=1)
        # At θ = 0 the square root has no derivative; zero is taken there.
        apart = square > 0
        return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)

    return jax.lax.cond(needed, chords, lambda _: jnp.zeros_like(cosine), None)


def arccos(u: jax.Array) -> jax.Array:
    """Return the angle in [0, π] whose cosine is `u`, to 4e-7 in float32 and 3e-14 in float64.

        arccos u = √(1 − u) P(u)   for 0 ≤ u ≤ 1,   π − arccos(−u) for u < 0

    P is analytic there (its singularity is at u = −1), so a short polynomial reaches working
    precision (Abramowitz & Stegun 1964, 4.4.45 and 4.4.46, have such polynomials of degree 3 and
    7). XLA's own arccosine takes 6 ns an entry on one core, this one 1 ns.

    What lies outside [−1, 1] counts as −1 or 1.
    """
    size = jnp.abs(u)
    polynomial = horner(_arccos_over_root(22 if u.dtype == jnp.float64 else 9), size)
    acute = jnp.sqrt(jnp.maximum(1 - size, 0)) * polynomial
    return jnp.where(u < 0, math.pi - acute, acute)


@functools.cache
def _arccos_over_root(degree: int) -> list[float]:
    return powers(
        lambda u: 2 * np.arcsin(np.sqrt((1 - u) / 2)) / np.sqrt(1 - u), degree, domain=(0, 1)
    )


def check_angles(theta: ArrayLike) -> np.ndarray:
    """Return `theta` as a float64 NumPy array, having checked that it has angles in [0, π]."""
    angles = np.asarray(theta)
    _checks.real_dtype(angles.dtype, "theta", "Pass angles in radians.")
    angles = angles.astype(np.float64)
    # π itself rounds up in lower precision.
    if not np.all((angles >= 0) & (angles <= np.float32(math.pi))):
        raise ValueError(
            "theta must hold angles in radians, in [0, π], got values from "
            f"{np.min(angles)} to {np.max(angles)}."
        )
    return np.minimum(angles, math.pi)
