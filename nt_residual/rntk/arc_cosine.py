"""The arc-cosine functions of ReLU, as functions of the angle between two inputs.

For standard normal a and b with correlation u = cos θ, and σ = ReLU (Cho & Saul 2009):

    κ0(u) = 1 − θ/π                       twice E[σ'(a) σ'(b)]
    κ1(u) = (u (π − θ) + sin θ)/π         twice E[σ(a) σ(b)]

Functions take θ rather than u: for small θ, u rounds to 1 while θ still matters. Each function
takes NumPy or JAX arrays and returns an array of the same kind and dtype.
"""

import math
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # A NumPy or a JAX array of real floats, or a NumPy array of complex ones.

# sin θ − θ cos θ = Σ_k (−1)^(k+1) 2k/(2k+1)! θ^(2k+1). With seven terms the relative error is
# below 1e-16 up to θ = 1/2.
_SERIES = [(-1) ** (k + 1) * 2 * k / math.factorial(2 * k + 1) / math.pi for k in range(1, 8)]
_SMALL = 0.5


def namespace(x: Array) -> types.ModuleType:
    """Return `jax.numpy` for a JAX array, `numpy` for NumPy arrays and scalars."""
    return jnp if isinstance(x, jax.Array) else np


def half_angle_to_angle(sin2: Array, cos2: Array) -> Array:
    """Return θ from sin²(θ/2) and cos²(θ/2), accurate at both ends of [0, π].

    The angle has a cusp at sin²(θ/2) = 0. Its gradient is set to zero there.
    """
    if not isinstance(sin2, jax.Array):
        return 2 * np.arctan2(np.sqrt(sin2), np.sqrt(np.maximum(cos2, 0)))
    apart = sin2 > 0
    sine = jnp.sqrt(jnp.where(apart, sin2, jnp.ones_like(sin2)))
    # At θ = π, rounding may make cos² slightly negative.
    opposite = cos2 <= 0
    cosine = jnp.sqrt(jnp.where(opposite, jnp.ones_like(cos2), cos2))
    theta = 2 * jnp.arctan2(sine, jnp.where(opposite, jnp.zeros_like(cos2), cosine))
    return jnp.where(apart, theta, jnp.zeros_like(theta))


def kappa1_gain(theta: Array) -> Array:
    """Return κ1(u) − u = (sin θ − θ cos θ)/π, to full relative accuracy near θ = 0.

    A block adds s (κ1 − ρ) to the correlation ρ of two inputs, with s = α²/(1 + α²).
    """
    if not isinstance(theta, jax.Array):
        # Loops over many blocks spend most of their time here: compute only what is needed.
        small = np.less(theta, _SMALL)
        if small.all():
            return _gain_series(theta)
        gain = (np.sin(theta) - theta * np.cos(theta)) / math.pi
        return np.where(small, _gain_series(theta), gain) if small.any() else gain
    small = theta < _SMALL
    # The unused branch of `where` must stay finite, or the gradient would be NaN.
    series = _gain_series(jnp.where(small, theta, 0))
    return jnp.where(small, series, (jnp.sin(theta) - theta * jnp.cos(theta)) / math.pi)


def _gain_series(theta: Array) -> Array:
    square = theta * theta
    series = _SERIES[-1] * square
    for coefficient in _SERIES[-2:0:-1]:
        series = (series + coefficient) * square
    return theta * square * (series + _SERIES[0])


def gain_and_loss(sin2: Array, cos2: Array) -> tuple[Array, Array]:
    """Return κ1 − u and 1 − κ0 = θ/π from sin²(θ/2) and cos²(θ/2).

    NumPy arguments may be complex, for u inside the unit disc. Then θ = 2 arcsin z and
    sin θ = 2z √(1 − z²) are the principal branches, with z² = sin²(θ/2) = (1 − u)/2.
    """
    if not np.iscomplexobj(sin2):
        theta = half_angle_to_angle(sin2, cos2)
        return kappa1_gain(theta), theta / math.pi
    z = np.sqrt(sin2)
    theta = 2 * np.arcsin(z)
    gain = (2 * z * np.sqrt(cos2) - theta * (cos2 - sin2)) / math.pi
    # Near u = 1 the difference would cancel.
    small = np.abs(theta) < _SMALL
    gain[small] = _gain_series(theta[small])
    return gain, theta / math.pi


def branch_kernel(correlation: Array, gain: Array, lost: Array) -> Array:
    """Return κ1 + ρ κ0, the NTK of one branch, from ρ, κ1 − ρ and 1 − κ0 = θ/π."""
    return correlation * (2 - lost) + gain
