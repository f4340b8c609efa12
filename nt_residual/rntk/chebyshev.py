"""A smooth function of the angle as a short Chebyshev series.

The kernel of a residual network is analytic in the angle θ on [0, π], so a few
dozen coefficients carry it to working precision at any depth. When the effective
time T is large the function varies on the scale 1/T near θ = 0; the variable

    y = asinh(bθ)/asinh(bπ),   b = T,

in [0, 1], then spreads that region out. b = 0 is a plain series in θ.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import chebyshev

_NODES = (32, 64, 128, 256, 512, 1024)


@dataclasses.dataclass(frozen=True)
class Series:
    """A Chebyshev series in the variable of this module.

    Attributes:
      coefficients: of T_0, T_1, …, at 2y − 1.
      bend: the parameter b.
      error: the largest error found between the nodes when it was fitted.
    """

    coefficients: tuple[float, ...]
    bend: float
    error: float

    def __call__(self, theta: jax.Array) -> jax.Array:
        """Evaluates the series by Clenshaw's recurrence.

        Args:
          theta: angles in radians, in [0, π], any shape and float dtype.
        """
        if self.bend > 0:
            y = jnp.arcsinh(self.bend * theta) / math.asinh(self.bend * math.pi)
        else:
            y = theta / math.pi
        z = 2 * y - 1
        current, previous = jnp.zeros_like(z), jnp.zeros_like(z)
        for coefficient in self.coefficients[:0:-1]:
            current, previous = coefficient + 2 * z * current - previous, current
        return self.coefficients[0] + z * current - previous


def bend_for(effective_time: float) -> float:
    """The parameter b that suits a network of the given effective time."""
    return effective_time if effective_time > 1 else 0.0


def fit(f: Callable[[np.ndarray], np.ndarray], *, bend: float, tol: float) -> Series:
    """Fits the shortest series that is within `tol` of `f`, of at most 1024 coefficients.

    Args:
      f: function of float64 angles in [0, π], elementwise.
      bend: the parameter b, ≥ 0.
      tol: the largest absolute error wanted.

    Returns:
      The series. Its `error` exceeds `tol` where 1024 coefficients are not enough.

    Example:
      >>> import numpy as np
      >>> series = fit(np.cos, bend=0.0, tol=1e-10)
      >>> len(series.coefficients), series.error < 1e-10
      (12, True)
    """

    def of_z(z: np.ndarray) -> np.ndarray:
        y = (z + 1) / 2
        theta = np.sinh(y * math.asinh(bend * math.pi)) / bend if bend > 0 else math.pi * y
        return f(np.clip(theta, 0, math.pi))

    for nodes in _NODES:
        coefficients = np.asarray(chebyshev.chebinterpolate(of_z, nodes - 1))  # type: ignore[call-overload]
        # Trim what together stays below a quarter of the tolerance.
        tails = np.cumsum(np.abs(coefficients[::-1]))[::-1]
        coefficients = coefficients[: max(1, int(np.sum(tails > tol / 4)))]
        between = np.cos(np.linspace(0, math.pi, 2 * nodes + 1))
        error = np.max(np.abs(chebyshev.chebval(between, coefficients) - of_z(between)))
        series = Series(tuple(coefficients.tolist()), bend, float(error))
        if error <= tol:
            break
    return series
