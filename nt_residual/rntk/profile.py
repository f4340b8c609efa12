"""A kernel as a function of norms and angle, in the form that a device evaluates."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from nt_residual.rntk.chebyshev import Fit, Series
from nt_residual.rntk.pairs import half_digits


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["series", "near_zero", "near_pi", "scale"],
    meta_fields=["degree", "jumps"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    """A kernel scale·(|x| |x'|)^degree r(θ) with r(0) = 1.

    If the cosine of a pair is above `near_zero` or below `near_pi`, its angle is computed from the
    difference of the inputs. If r `jumps` to 1 at θ = 0, angles within rounding error count as 0.
    """

    series: Series  # r for θ > 0.
    near_zero: float
    near_pi: float
    scale: float = 1.0
    degree: float = 1.0
    jumps: bool = False

    def __call__(self, theta: jax.Array) -> jax.Array:
        """Return r at angles in radians, in [0, π], any shape and float dtype."""
        values = self.series(theta)
        if not self.jumps:
            return values
        return jnp.where(theta <= 8 * jnp.finfo(theta.dtype).eps, 1, values)


def profile_of(fit: Fit, dtype: DTypeLike, **options) -> Profile:
    """Return a fitted r(θ) as a profile that is accurate for inputs of a dtype.

    `options` are the scale, degree and jumps of the profile.
    """
    eps = float(jnp.finfo(dtype).eps)
    # Cast to the dtype of the inputs: JAX 0.10 treats a float64 constant as float32 after a program
    # without float64 has used it.
    series = fit.cut(_tolerance(dtype), dtype)
    if options.get("jumps"):
        return Profile(series, 1 - 100 * eps, -2.0, **options)
    distance = np.geomspace(eps, math.pi / 2, 2000)

    def largest_near(theta: np.ndarray) -> float:
        # The error in r from an error of 5 ε in cos θ, the largest seen for 3 to 100,000 features.
        error = np.abs(fit.slope_at_angle(theta)) * 5 * eps / distance
        near = np.flatnonzero(error > 12 * _tolerance(dtype))
        # A rounded cosine may be above 1, but never above 2.
        return math.cos(distance[near[-1]]) if len(near) else 2.0

    near_zero, near_pi = largest_near(distance), -largest_near(math.pi - distance)
    return Profile(series, near_zero, near_pi, **options)


class SeriesKernel:
    """A kernel whose normalized form r(θ) is stored as a series, the attribute `fit`."""

    fit: Fit

    @property
    def coefficients(self) -> np.ndarray:
        """The Chebyshev coefficients of r that evaluate the kernel of float32 inputs.

        Float64, shape (count,), of T_0, T_1, … in the variable z that `rntk.chebyshev`
        describes.
        """
        return np.trim_zeros(np.asarray(self.fit.cut(_tolerance("float32")).coefficients), "b")

    @property
    def error_bound(self) -> float:
        """A bound on the error of float32 kernels against `at_angle`, relative to the diagonal.

        It is about 2e-6 up to T = 10^5. For larger T, rounding of the smallest angles adds to it.
        If a batch holds inputs with a large constant part and others with its negative, the error
        can exceed the bound: 8e-6 was seen.
        """
        # The error of the fit; truncation, cosines from products, and rounding; and, where r is
        # steep, half of the last digit of small angles.
        eps = float(jnp.finfo("float32").eps)
        steepest = np.max(np.abs(self.fit.slope_at_angle(np.linspace(0, math.pi, 1001))))
        last_digit = 2 * eps * 2.0 ** -half_digits("float32")
        return self.fit.error + 16 * _tolerance("float32") + float(steepest) * last_digit


def _tolerance(dtype: DTypeLike) -> float:
    """Return the largest truncation error of a series, in units of r(0)."""
    return max(float(jnp.finfo(dtype).eps), 1e-11)
