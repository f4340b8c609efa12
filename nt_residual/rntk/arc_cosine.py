"""The arc-cosine functions of ReLU, in the angle between two inputs.

For unit Gaussians of correlation u = cos θ (Cho & Saul 2009):

    κ0(u) = 1 − θ/π                       twice E[σ'(a) σ'(b)]
    κ1(u) = (u (π − θ) + sin θ)/π         twice E[σ(a) σ(b)]

Everything here takes θ rather than u: near θ = 0 a correlation rounds to 1 long
before the angle stops mattering. Each function takes NumPy or JAX arrays and
returns an array of the same kind and dtype.
"""

import math
import types
from typing import Any

import jax
import numpy as np

Array = Any  # A NumPy or a JAX array of real floats.

# sin θ − θ cos θ = Σ_k (−1)^(k+1) 2k/(2k+1)! θ^(2k+1). Seven terms reach 1e-16 of the first
# at θ = 1/2.
_SERIES = [(-1) ** (k + 1) * 2 * k / math.factorial(2 * k + 1) / math.pi for k in range(1, 8)]
_SMALL = 0.5


def namespace(x: Array) -> types.ModuleType:
    """`jax.numpy` for a JAX array, `numpy` for all else, its scalars included."""
    return jax.numpy if isinstance(x, jax.Array) else np


def kappa0(theta: Array) -> Array:
    """κ0 = 1 − θ/π, the arc-cosine function of order 0.

    Args:
      theta: angles in radians, in [0, π], any shape.

    Example:
      >>> import numpy as np
      >>> kappa0(np.array([0.0, np.pi]))
      array([1., 0.])
    """
    return 1 - theta / math.pi


def kappa1(theta: Array) -> Array:
    """κ1 = (cos θ (π − θ) + sin θ)/π, the arc-cosine function of order 1.

    Args:
      theta: angles in radians, in [0, π], any shape.

    Example:
      >>> import numpy as np
      >>> kappa1(np.array([0.0, np.pi])).round(12)
      array([1., 0.])
    """
    xp = namespace(theta)
    return xp.cos(theta) + kappa1_gain(theta)


def kappa1_gain(theta: Array) -> Array:
    """κ1(u) − u = (sin θ − θ cos θ)/π ≥ 0, to full relative accuracy near θ = 0.

    It is what one block adds to the correlation of two inputs.

    Args:
      theta: angles in radians, in [0, π], any shape.

    Example:
      >>> import numpy as np
      >>> bool(np.isclose(kappa1_gain(np.array(1e-5)), 1e-15 / (3 * np.pi), rtol=1e-9))
      True
    """
    if not isinstance(theta, jax.Array):
        # Loops over many blocks spend most of their time here: only what is needed.
        small = np.less(theta, _SMALL)
        if small.all():
            return gain_series(theta)
        gain = (np.sin(theta) - theta * np.cos(theta)) / math.pi
        return np.where(small, gain_series(theta), gain) if small.any() else gain
    small = theta < _SMALL
    # The unused side of `where` must stay finite, or its gradient would be NaN.
    series = gain_series(jax.numpy.where(small, theta, 0))
    return jax.numpy.where(
        small, series, (jax.numpy.sin(theta) - theta * jax.numpy.cos(theta)) / math.pi
    )


def gain_series(theta: Array) -> Array:
    """`kappa1_gain` of real or complex θ up to about 1/2, by its series."""
    square = theta * theta
    series = _SERIES[-1] * square
    for coefficient in _SERIES[-2:0:-1]:
        series = (series + coefficient) * square
    return theta * square * (series + _SERIES[0])
