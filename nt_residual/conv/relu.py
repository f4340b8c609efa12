"""ReLU between two images, in half the angle between two patches.

For Gaussians of deviations r, r' and correlation u = cos θ, with t = sin²(θ/2):

    2 E[σ(a) σ(b)]   = r r' κ1(u)           κ1(u) = (u (π − θ) + sin θ)/π
    2 E[σ'(a) σ'(b)] = κ0(u)                κ0(u) = 1 − θ/π

Neither t nor its root is a difference of numbers that nearly coincide, as 1 − u is, and in
them both functions are short polynomials: θ/√t and (κ1 − u)/√t³ are analytic in t up to 1.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from nt_residual.rntk import arc_cosine
from nt_residual.rntk.chebyshev import horner, powers


@functools.cache
def _coefficients(degree: int) -> tuple[list[float], list[float]]:
    """Of θ/√t and (κ1 − u)/√t³ on [0, 1/2], in powers of t, of low degree first."""

    def angle(t: np.ndarray) -> np.ndarray:
        return 2 * np.arcsin(np.sqrt(t))

    def gain(t: np.ndarray) -> np.ndarray:
        return arc_cosine.kappa1_gain(angle(t)) / np.sqrt(t) ** 3

    return (
        powers(lambda t: angle(t) / np.sqrt(t), degree, domain=(0, 0.5)),
        powers(gain, degree, domain=(0, 0.5)),
    )


def arc_cosines(sin2: jax.Array, cos2: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return 1 − κ1, κ1 and κ0 of the angle θ between two Gaussians.

    For obtuse angles the polynomials are those of π − θ, by κ1(−u) = κ1(u) − u.

    The smaller of sin²(θ/2) and cos²(θ/2) decides: what rounding adds to the larger one does not
    matter, and what is below zero counts as zero. The results are within 4e-7 in float32 and 1e-14
    in float64, 1 − κ1 relative to itself near θ = 0. The derivative of θ is zero where θ is 0 or π.
    """
    obtuse = cos2 < sin2
    obtuse, root = _root_and_flag(jnp.clip(jnp.where(obtuse, cos2, sin2), 0, 0.5), obtuse)
    t = root**2
    of_angle, of_gain = _coefficients(20 if t.dtype == jnp.float64 else 9)
    gain = root * t * horner(of_gain, t)
    lost = root * horner(of_angle, t) / math.pi
    loss = jnp.where(obtuse, 1, 2 * t) - gain
    return loss, 1 - loss, jnp.where(obtuse, lost, 1 - lost)


def _root_and_flag(t: jax.Array, flag: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`flag` and √t for t in [0, 1/2], such that XLA computes their arguments only once.

    XLA keeps the result of an expensive operation, such as a root, and computes cheap ones anew for
    each array that needs them. So the root carries the flag: where it is true, t is multiplied by
    m² with m = 2/ε, and the root is m √t ≥ 2, as √t ≥ ε, while roots without the flag are at most
    √(1/2). In float32, m = 2^24: t = 1/4 gives 1/2 or, with the flag, 2^23.
    """
    least = jnp.finfo(t.dtype).eps
    mark = 2 / least
    marked = _root(jnp.where(flag, jnp.maximum(t, least**2) * mark**2, t))
    flag = marked > 1
    return flag, jnp.where(flag, marked / mark, marked)


@jax.custom_jvp
def _root(x: jax.Array) -> jax.Array:
    """The square root, with a derivative of zero at zero."""
    return jnp.sqrt(x)


@_root.defjvp
def _root_jvp(primals, tangents):
    (x,), (moved,) = primals, tangents
    root = _root(x)
    some = x > 0
    return root, jnp.where(some, moved / (2 * jnp.where(some, root, 1)), 0)
