"""ReLU between two images, as a function of half the angle between two patches.

For Gaussians a, b of standard deviations r, r' and correlation u = cos θ, with t = sin²(θ/2):

    2 E[σ(a) σ(b)]   = r r' κ1(u)           κ1(u) = (u (π − θ) + sin θ)/π
    2 E[σ'(a) σ'(b)] = κ0(u)                κ0(u) = 1 − θ/π

Unlike 1 − u, t and √t are not computed as differences of nearly equal numbers. Short polynomials
in t give both functions, since θ/√t and (κ1 − u)/√t³ are analytic in t, up to t = 1.
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
    """Return polynomials in t for θ/√t and (κ1 − u)/√t³ on [0, 1/2], lowest degree first."""

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

    For obtuse angles the polynomials are evaluated for π − θ, and κ1(−u) = κ1(u) − u is used.

    Only the smaller of sin²(θ/2) and cos²(θ/2) is used, so rounding of the larger one does not
    matter. Negative values count as zero. Errors are at most 4e-7 in float32 and 1e-14 in float64;
    near θ = 0 this is the relative error of 1 − κ1. The derivative of θ is set to zero at 0 and π.
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
    """Return `flag` and √t for t in [0, 1/2], so that XLA computes both arguments only once.

    XLA stores the result of an expensive operation, such as a root, and recomputes cheap operations
    for each array that uses them. So the root also encodes the flag. If it is true, t is raised to
    at least ε² and multiplied by m², m = 2/ε, so the root is m √t ≥ 2. Otherwise the root is at
    most √(1/2). In float32 m = 2^24: t = 1/4 gives 1/2 without the flag, and 2^23 with the flag.
    """
    least = jnp.finfo(t.dtype).eps
    mark = 2 / least
    marked = _root(jnp.where(flag, jnp.maximum(t, least**2) * mark**2, t))
    flag = marked > 1
    return flag, jnp.where(flag, marked / mark, marked)


@jax.custom_jvp
def _root(x: jax.Array) -> jax.Array:
    """Return the square root, with a derivative of zero at zero."""
    return jnp.sqrt(x)


@_root.defjvp
def _root_jvp(primals, tangents):
    (x,), (moved,) = primals, tangents
    root = _root(x)
    some = x > 0
    return root, jnp.where(some, moved / (2 * jnp.where(some, root, 1)), 0)
