"""A smooth function of the angle as a short Chebyshev series.

The kernel of a residual network is analytic in the angle θ on [0, π], so a few dozen
coefficients represent it to working precision at any depth. It varies quickly near one
end: near θ = 0 on the scale 3π/T if the effective time T is large, and near θ = π on the
scale √T if T is small. With t the distance of θ from that end, the variable

    v = (t + b)^(1/p),   p a power of two, b a fraction of the scale,

stretches that region, at the cost of log2(p) square roots. With z the linear map of v
to [−1, 1], the function is Σ_k c_k T_k(z).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial, chebyshev
from numpy.typing import DTypeLike

from nt_residual.rntk.arc_cosine import Array, namespace

# The numbers of coefficients to try.
_COUNTS = (128, 256, 512, 1024)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["offset", "scale", "shift"],
    meta_fields=["end", "power"],
)
@dataclasses.dataclass(frozen=True)
class Variable:
    """The variable of a series: z = scale·v + shift as a function of the angle."""

    end: Literal["zero", "pi"]  # The end of [0, π] that it stretches.
    power: int  # p
    offset: float  # b > 0
    scale: float
    shift: float

    @classmethod
    def spreading(cls, end: Literal["zero", "pi"], *, power: int, offset: float) -> "Variable":
        """Return the variable that stretches one end, for given p and b."""
        first, last = offset ** (1 / power), (math.pi + offset) ** (1 / power)
        return cls(end, power, offset, 2 / (last - first), -(first + last) / (last - first))

    def of_angle(self, theta: Array) -> Array:
        """Return z at angles in radians: a NumPy or JAX array of any shape and float dtype."""
        return self._root(theta)[0] * self.scale + self.shift

    def slope(self, theta: Array) -> Array:
        """Return dz/dθ at angles in radians: a NumPy or JAX array of any shape and float dtype."""
        v, shifted = self._root(theta)
        sign = 1 if self.end == "zero" else -1
        return sign * self.scale / self.power * v / shifted

    def to_angle(self, z: np.ndarray) -> np.ndarray:
        """Return the angles for given z, float64 NumPy."""
        v = (z - self.shift) / self.scale
        distance = np.clip(v**self.power - self.offset, 0, math.pi)
        # Set both ends exactly: rounding would move them.
        distance = np.where(z == -1, 0, np.where(z == 1, math.pi, distance))
        return distance if self.end == "zero" else math.pi - distance

    def _root(self, theta: Array) -> tuple[Array, Array]:
        """Return v and t + b."""
        xp = namespace(theta)
        distance = theta if self.end == "zero" else math.pi - theta
        shifted = xp.maximum(distance, 0) + self.offset
        v = shifted
        for _ in range(self.power.bit_length() - 1):
            v = xp.sqrt(v)
        return v, shifted


PLAIN = Variable.spreading("zero", power=1, offset=1.0)


def variable_for(effective_time: float) -> Variable:
    """Return the variable that suits a network of the given effective time."""
    if effective_time == 0:
        return PLAIN
    if effective_time <= 3:
        # Below T = 1e-16 the region is too small to matter in float64.
        return Variable.spreading("pi", power=4, offset=max(0.3 * math.sqrt(effective_time), 1e-8))
    power = 4 if effective_time < 1000 else 8
    return Variable.spreading("zero", power=power, offset=10 / effective_time)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["coefficients", "derivative", "variable"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Series:
    """A Chebyshev series as a pytree, so that it can be an argument of JAX functions."""

    coefficients: jax.Array | np.ndarray  # Of T_0, T_1, …, shape (count,).
    derivative: jax.Array | np.ndarray  # Coefficients of the derivative with respect to z.
    variable: Variable

    def __call__(self, theta: jax.Array) -> jax.Array:
        """Return its values at angles in radians, in [0, π], any shape and float dtype."""
        return _evaluate(self, theta)


# The derivative is evaluated as a series too, so reverse mode stores no intermediate results.
@jax.custom_jvp
def _evaluate(series: Series, theta: jax.Array) -> jax.Array:
    return _clenshaw(series.coefficients, series.variable.of_angle(theta))


@_evaluate.defjvp
def _evaluate_jvp(primals, tangents):
    (series, theta), (_, theta_dot) = primals, tangents
    slope = _clenshaw(series.derivative, series.variable.of_angle(theta))
    return _evaluate(series, theta), slope * series.variable.slope(theta) * theta_dot


def _clenshaw(coefficients: jax.Array | np.ndarray, z: jax.Array) -> jax.Array:
    """Return Σ_k c_k T_k(z) by Clenshaw's recurrence, in the dtype of `z`."""
    coefficients = jnp.asarray(coefficients).astype(z.dtype)
    current, previous = jnp.zeros_like(z), jnp.zeros_like(z)
    for k in range(len(coefficients) - 1, 0, -1):
        current, previous = 2 * z * current + (coefficients[k] - previous), current
    return coefficients[0] + (z * current - previous)


@dataclasses.dataclass(frozen=True)
class Fit:
    """A function of the angle as a float64 series, which `cut` shortens."""

    coefficients: tuple[float, ...]  # Of T_0, T_1, …; a tuple is hashable.
    variable: Variable
    error: float  # The largest error found, at angles that are not nodes.

    def at_angle(self, theta: np.ndarray) -> np.ndarray:
        """Return the values at angles in radians, float64 NumPy."""
        return chebyshev.chebval(self.variable.of_angle(theta), np.array(self.coefficients))

    def slope_at_angle(self, theta: np.ndarray) -> np.ndarray:
        """Return the derivative with respect to the angle, float64 NumPy."""
        derivative = chebyshev.chebval(self.variable.of_angle(theta), self._derivative)
        return derivative * self.variable.slope(theta)

    @property
    def _derivative(self) -> np.ndarray:
        return np.append(chebyshev.chebder(self.coefficients), 0.0)[: len(self.coefficients)]

    def cut(self, tol: float, dtype: DTypeLike = np.float64) -> Series:
        """Return the shortest series of 4, 8, 12, … coefficients with truncation error ≤ `tol`."""
        coefficients = np.array(self.coefficients)
        count = _needed(coefficients, tol)
        # Series of equal length share a compiled program.
        padding = (0, -count % 4)
        return Series(
            np.pad(coefficients[:count], padding).astype(dtype),
            np.pad(self._derivative[:count], padding).astype(dtype),
            self.variable,
        )


def _needed(coefficients: np.ndarray, tol: float) -> int:
    """Return the least number of coefficients with a truncation error of at most `tol`."""
    rests = np.cumsum(np.abs(coefficients[::-1]))[::-1]
    return max(1, int(np.sum(rests > tol)))


def fit(
    f: Callable[[np.ndarray], np.ndarray], variable: Variable, *, tol: float, most: int = 1024
) -> Fit:
    """Fit a series to a function of float64 angles in [0, π], with an error of at most `tol`.

    `error` of the result exceeds `tol` if 128, 256, …, `most` coefficients are not enough.

    Raises:
      ValueError: if the function is not finite.
    """
    # Test points: nodes of no series, with both ends.
    between = np.cos(math.pi * np.arange(64) / 63)
    for count in _COUNTS:
        # One call for all angles, since a call of a deep recursion is slow even for a few angles.
        sampled = f(variable.to_angle(np.concatenate([chebyshev.chebpts1(count), between])))
        if not np.all(np.isfinite(sampled)):
            raise ValueError("the function must be finite at every angle, got NaN or infinity.")
        values, expected = np.split(sampled, [count])
        sampled_before: Any = lambda _, values=values: values  # noqa: E731
        coefficients = chebyshev.chebinterpolate(sampled_before, count - 1)
        needed = _needed(coefficients, tol / 4)
        result = Fit(tuple(coefficients[:needed].tolist()), variable, math.inf)
        error = np.max(np.abs(result.at_angle(variable.to_angle(between)) - expected))
        # The last quarter of the coefficients estimates the truncation error at all angles.
        error = max(float(error), float(np.sum(np.abs(coefficients[3 * count // 4 :]))))
        if error <= tol or count >= most:
            break
    return dataclasses.replace(result, error=error)


def powers(
    function: Callable[[np.ndarray], np.ndarray], degree: int, domain: tuple[float, float]
) -> list[float]:
    """Return the coefficients, lowest degree first, of an interpolating polynomial."""
    series = Chebyshev.interpolate(function, degree, domain=list(domain))
    return series.convert(kind=Polynomial, domain=[-1, 1]).coef.tolist()


def horner(coefficients: list[float], x: jax.Array) -> jax.Array:
    """Return the polynomial Σ_k c_k x^k."""
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value
