"""The residual scale α as a function of depth, and the effective time of a network.

A block computes `x + α·branch(x)`. One number decides the limit of a network of L blocks as L
grows: the effective time T = Σ_ℓ log(1 + α_ℓ²). If T vanishes or stays finite, the kernel stays
informative. If T diverges, the kernel degenerates to a constant (arXiv 2403.04545).

A schedule is a callable that takes the depth and returns one α per block, or an array of these α.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _checks

# The rest is for other packages of ours.
__all__ = ["Constant", "Explicit", "PowerLaw", "Schedule", "effective_time"]

Schedule = Callable[[int], ArrayLike] | ArrayLike


def alphas_of(
    schedule: Schedule, depth: int | None = None, *, name: str = "schedule", traced: bool = False
) -> Any:
    """Return the α of each block, checked, as a float64 NumPy array of shape (depth,).

    `depth` may be left out for an array; `name` is what an error calls the schedule. Values that
    JAX traces are allowed if `traced`: they are returned as a JAX array, and not checked.

    Raises:
      TypeError: if `schedule` is neither a callable nor an array of real numbers, or is
        traced where that is not allowed.
      ValueError: if there is not one α per block, if an α is NaN, infinite or negative, or if
        `schedule` is a callable and `depth` is `None`.

    Example:
      >>> alphas_of(PowerLaw(gamma=0.5, c=2.0), 4), alphas_of([0.5, 1])
      (array([1., 1., 1., 1.]), array([0.5, 1. ]))
    """
    depth = _checks.optional_integer(depth, "depth", "Pass the number of residual blocks.")
    if callable(schedule) and depth is None:
        raise ValueError(
            f"{name} is a function of the depth, and the depth is not known. Pass depth= if this "
            f"function takes it, or else {name}(depth), an array with one α per block."
        )
    values: Any = schedule(depth) if callable(schedule) else schedule  # type: ignore[arg-type]
    if is_traced(values) or (isinstance(values, list | tuple) and any(map(is_traced, values))):
        if not traced:
            raise TypeError(
                f"{name} must hold known numbers, got values traced by JAX (inside jit, grad or "
                "vmap). rntk.recursive_kernel and the layers of nt_residual.stax take traced "
                "alphas."
            )
        values = sys.modules["jax"].numpy.asarray(values)
    known = not is_traced(values)
    array: Any = _array(values, name) if known else values
    _check_shape(array, depth, name)
    return _check_values(array, name) if known else array


def _array(values: Any, name: str) -> np.ndarray:
    expected = "must be a callable of the depth, or an array with one α per block"
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise TypeError(f"{name} {expected}: {error}") from None
    if array.ndim == 0:
        raise TypeError(
            f"{name} {expected}, got {values!r}. For the same α in every block pass "
            "schedules.Constant(α)(depth)."
        )
    _checks.real_dtype(array.dtype, name, "Pass one float ≥ 0 per block.")
    return array


def _check_shape(array: Any, depth: int | None, name: str) -> None:
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"{name} must have shape (depth,) with depth ≥ 1, got shape {array.shape}. Pass one α "
            "per block."
        )
    if depth is not None and len(array) != depth:
        raise ValueError(
            f"{name} must give one α per block, got {len(array)} alphas for depth={depth}. Pass "
            "as many as there are blocks, or a callable of the depth."
        )


def _check_values(array: np.ndarray, name: str) -> np.ndarray:
    array = array.astype(np.float64)
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        block = int(np.argmax(bad))
        raise ValueError(
            f"{name} must hold finite α ≥ 0, got {array[block]} in block {block}. The sign of α "
            "changes nothing, since the branch is symmetric: pass |α|."
        )
    return array


def is_traced(value: Any) -> bool:
    """Return whether `value` is traced by JAX, as inside `jit`, `grad` or `vmap`."""
    # This module must not import JAX, without which nothing is traced.
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def check_depth(depth: Any) -> int | float:
    """Return `depth` as an `int`, or `math.inf`, having checked it.

    Raises:
      TypeError: if `depth` is neither an integer nor `math.inf`.
      ValueError: if `depth` is less than 1.
    """
    if isinstance(depth, float) and depth == math.inf:
        return math.inf
    remedy = "Pass the number of residual blocks, an int ≥ 1, or math.inf."
    return _checks.integer(depth, "depth", 1, remedy)


def effective_time(schedule: Schedule, depth: int | None = None) -> float:
    """Return the effective time T = Σ_ℓ log(1 + α_ℓ²) of a network.

    The output variance of the network is exp(T) times that of its input.

    Args:
      schedule: a callable of the depth, or an array with one α per block, shape (depth,).
      depth: the number of blocks; may be left out for an array.

    Raises:
      TypeError, ValueError: as `alphas_of`.

    Example:
      >>> round(effective_time(PowerLaw(gamma=0.5), 1000), 4)
      0.9995
    """
    alphas = alphas_of(schedule, depth)
    small, large = np.minimum(alphas, 1), np.maximum(alphas, 1)
    # log(1 + α²) = log(1 + α⁻²) + 2 log α for α > 1, where α² might overflow.
    terms = np.where(alphas > 1, np.log1p(large**-2) + 2 * np.log(large), np.log1p(small**2))
    return float(np.sum(terms))


def limiting_time(schedule: Schedule, effective_time: float | None = None) -> float:
    """Return the limit of T as the depth grows, from the schedule or from the user.

    Args:
      schedule: α as a function of depth; its `limiting_effective_time` is used if it has one.
      effective_time: the limit of T, in [0, ∞], for other schedules.

    Raises:
      TypeError: if `effective_time` is not a number.
      ValueError: if neither knows the limit, or `effective_time` is negative, NaN, or differs
        from that of the schedule by more than rounding.

    Example:
      >>> limiting_time(PowerLaw(gamma=0.5, c=2.0))
      4.0
    """
    known = getattr(schedule, "limiting_effective_time", None)
    if known is None and effective_time is None:
        raise ValueError(
            f"infinite depth needs a schedule whose limit is known, got {schedule!r}. Pass "
            "effective_time=, the limit of Σ log(1 + α²) (math.inf if it diverges), give the "
            "schedule an attribute limiting_effective_time, or use schedules.PowerLaw(gamma, c)."
        )
    return check_time(effective_time, known)


def check_time(effective_time: Any, known: Any) -> float:
    """Return T as the schedule knows it, else as the user passed it, having checked both.

    Raises:
      TypeError: if one is neither a number nor `None`.
      ValueError: if one is negative or NaN, or they differ by more than rounding.
    """

    def checked(time: Any, name: str) -> float | None:
        remedy = "It is the limit of Σ log(1 + α²) as the depth grows; math.inf if that diverges."
        return None if time is None else _checks.number(time, name, infinite=True, remedy=remedy)

    given = checked(effective_time, "effective_time")
    own = checked(known, "limiting_effective_time of the schedule")
    if given is not None and own is not None and not math.isclose(given, own, rel_tol=1e-9):
        raise ValueError(
            f"effective_time must be that of the schedule, {own}, got {given}. Leave it out: it "
            "is for infinite depth and schedules that do not know their limit. To change the "
            "depth of a kernel, use at_depth."
        )
    return given if own is None else own  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """The schedule α = c·L^(−γ), the same in each of the L blocks.

    Args:
      gamma: γ ≥ 0. Below 1/2 the kernel degenerates as L grows, at 1/2 it has a
        limit that depends on c, above 1/2 it becomes that of one hidden layer.
      c: the scale at depth 1, positive. You can differentiate kernels of `stax` in both:
        they may be scalars that JAX traces, whose values are not checked.

    Raises:
      TypeError: if an argument is not a real scalar.
      ValueError: if `gamma` is negative, `c` is not positive, or either is not finite.

    Example:
      >>> schedule = PowerLaw(gamma=0.5, c=2.0)
      >>> schedule(4)
      array([1., 1., 1., 1.])
      >>> schedule.limiting_effective_time
      4.0
    """

    gamma: float
    c: float = 1.0

    def __post_init__(self):
        remedy = "α is c·L^(−γ). For another rule pass any callable depth -> alphas."
        for name in ("gamma", "c"):
            value = getattr(self, name)
            if not is_traced(value):
                value = _checks.number(value, name, positive=name == "c", remedy=remedy)
                object.__setattr__(self, name, value)

    def __call__(self, depth: int) -> np.ndarray:
        """Return α for each block, float64 of shape (depth,); a JAX array if γ or c is traced."""
        count = check_depth(depth)
        if count == math.inf:
            raise ValueError(
                "a schedule gives one α per block, and depth=math.inf has no last block. For the "
                "limit use limiting_effective_time, or rntk.ResidualKernel(math.inf, schedule)."
            )
        alpha = self.c * float(count) ** -self.gamma
        if is_traced(alpha):
            return alpha * np.ones(int(count), alpha.dtype)
        return np.full(int(count), alpha)

    @property
    def limiting_effective_time(self) -> float:
        """The limit of T as L → ∞: infinite for γ < 1/2, c² for γ = 1/2, else 0."""
        if self.gamma < 0.5:
            return math.inf
        return self.c**2 if self.gamma == 0.5 else 0.0


def Constant(c: float = 1.0) -> PowerLaw:
    """The schedule α = c at every depth: `PowerLaw` with γ = 0.

    Example:
      >>> Constant(0.5)(3)
      array([0.5, 0.5, 0.5])
    """
    return PowerLaw(gamma=0.0, c=c)


@dataclasses.dataclass(frozen=True)
class Explicit:
    """The schedule of one network whose blocks have the given α.

    Functions that take a `schedule=` take the array itself, too.

    Args:
      alphas: the residual scale of each block, shape (depth,).

    Raises:
      TypeError, ValueError: as `alphas_of`.

    Example:
      >>> Explicit([1.0, 0.5, 0.25])(3)
      array([1.  , 0.5 , 0.25])
    """

    alphas: Sequence[float]

    def __post_init__(self):
        # A tuple makes the schedule hashable, as kernels built from it must be.
        object.__setattr__(self, "alphas", tuple(alphas_of(self.alphas, name="alphas").tolist()))

    def __repr__(self) -> str:
        # A network may have a million blocks.
        few = self.alphas if len(self.alphas) <= 8 else (*self.alphas[:3], ..., self.alphas[-1])
        shown = ", ".join("…" if alpha is ... else repr(alpha) for alpha in few)
        return f"Explicit([{shown}])"

    def __call__(self, depth: int) -> np.ndarray:
        """Return the α of each block, float64 of shape (depth,)."""
        if check_depth(depth) != len(self.alphas):
            raise ValueError(
                f"this schedule holds {len(self.alphas)} alphas, got depth={depth}. "
                f"Pass depth={len(self.alphas)}, or a schedule that is a function of depth."
            )
        return np.array(self.alphas)
