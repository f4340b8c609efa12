"""The distance of kernels of finite depth to their limit."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks, schedules
from nt_residual.rntk import ResidualKernel
from nt_residual.theory.rates import Rate, rate
from nt_residual.theory.regimes import limit_kernel

# Errors below this may be those of the limit itself.
_FLOOR = 1e-10


@dataclasses.dataclass(frozen=True, eq=False)
class Convergence:
    """How kernels of finite depth approach their limit.

    Attributes:
      depths: the depths L, ascending, shape (n,).
      error: max over `theta` of |r_L(θ) − r_∞(θ)|, shape (n,).
      effective_time: T at each depth, shape (n,).
      theta: the angles, in radians.
      slope: of log error against log L, fitted where the error exceeds 1e-10; NaN where
        fewer than two do.
      slope_error: its standard error, NaN for fewer than three depths.
      rate: the predicted law, `None` where it is not known.
      predicted: that law through the error at the greatest depth above 1e-10, shape (n,);
        `None` where there is none.
      predicted_slope: of `predicted`, fitted at the same depths as `slope`; it differs
        from `rate.exponent` by the logarithm for γ = 0. `None` where it is not known.
    """

    depths: np.ndarray
    error: np.ndarray
    effective_time: np.ndarray = dataclasses.field(repr=False)
    theta: np.ndarray = dataclasses.field(repr=False)
    slope: float
    slope_error: float
    rate: Rate | None
    predicted: np.ndarray | None = dataclasses.field(repr=False)
    predicted_slope: float | None


def default_angles() -> np.ndarray:
    """Sixteen angles from π/8 to 3π/4, at which every regime converges at its own rate.

    At θ = π the limit for γ > 1/2 has a kink that a finite depth rounds off over a
    distance of √T, and near θ = 0 the kernel varies on the scale of 3π/T for γ < 1/2.

    Example:
      >>> default_angles().shape
      (16,)
    """
    return np.linspace(math.pi / 8, 3 * math.pi / 4, 16)


def convergence(
    schedule: schedules.Schedule,
    depths: Sequence[int] | np.ndarray,
    *,
    kind: Literal["ntk", "nngp"] = "ntk",
    trained: Literal["blocks", "all"] = "blocks",
    theta: ArrayLike | None = None,
    effective_time: float | None = None,
) -> Convergence:
    """The error of finite depths against the limit, with the predicted rate.

        error(L) = max_θ |r_L(θ) − r_∞(θ)|

    both normalized to 1 at θ = 0. It costs some tens of µs per block.

    Args:
      schedule: α as a function of depth.
      depths: the depths L, ascending integers, at least two.
      kind: 'ntk' or 'nngp'.
      trained: 'blocks' or 'all'.
      theta: angles in radians, in [0, π], at least one; `None` for `default_angles()`,
        which stay clear of both ends, where the rate is another.
      effective_time: the limit of T, where the schedule does not know it, as for `regime`.

    Returns:
      The errors, a fitted slope and the prediction.

    Raises:
      TypeError: if a depth is not an integer.
      ValueError: if the limit of the schedule is not known, depths are not ascending, an angle
        is out of range, or an option is unknown.

    Example:
      >>> found = convergence(schedules.PowerLaw(gamma=1.0), [10, 30, 100])
      >>> round(found.slope, 2), round(found.predicted_slope, 2)
      (-0.96, -1.0)

    Reference: see `rate`.
    """
    count = _check_depths(depths)
    angles = default_angles() if theta is None else _check_angles(theta)
    limit = limit_kernel(schedule, effective_time, kind=kind, trained=trained).at_angle(angles)
    kernels = [ResidualKernel(int(n), schedule, kind=kind, trained=trained) for n in count]
    error = np.array([np.max(np.abs(kernel.at_angle(angles) - limit)) for kernel in kernels])
    used = error > _FLOOR
    slope, slope_error = fit_power_law(count[used], error[used])
    law = rate(schedule, kind=kind, trained=trained)
    predicted, predicted_slope = None, None
    if law is not None and used.any():
        shape = law(count)
        predicted = shape * (error[used][-1] / shape[used][-1])
        predicted_slope = fit_power_law(count[used], predicted[used])[0]
    return Convergence(
        depths=count,
        error=error,
        effective_time=np.array([kernel.effective_time for kernel in kernels]),
        theta=angles,
        slope=slope,
        slope_error=slope_error,
        rate=law,
        predicted=predicted,
        predicted_slope=predicted_slope,
    )


def _check_depths(depths: Sequence[int] | np.ndarray) -> np.ndarray:
    remedy = "Pass at least two ascending numbers of blocks, as [10, 100, 1000]."
    if np.ndim(depths) != 1:
        raise ValueError(f"depths must have shape (n,), got shape {np.shape(depths)}. {remedy}")
    if any(isinstance(depth, float) and depth == math.inf for depth in depths):
        raise ValueError(
            f"depths must be finite, got {list(depths)}: ∞ is what they are compared with. {remedy}"
        )
    count = [_checks.integer(depth, "each of depths", 1, remedy) for depth in depths]
    if len(count) < 2 or any(b <= a for a, b in itertools.pairwise(count)):
        raise ValueError(f"depths must be two or more, ascending, got {count}. {remedy}")
    return np.array(count)


def _check_angles(theta: ArrayLike) -> np.ndarray:
    angles = np.atleast_1d(_checks.real_array(theta, "theta", "Pass angles in radians."))
    if angles.ndim != 1 or angles.size == 0:
        raise ValueError(
            f"theta must be a scalar or have shape (n,), n ≥ 1, got shape {angles.shape}. "
            "Pass angles in radians."
        )
    return angles


def fit_power_law(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The slope of log y against log x, and its standard error.

    Both are NaN for fewer than two points, the standard error for fewer than three.

    Example:
      >>> slope, slope_error = fit_power_law(np.array([1, 10, 100]), np.array([1.0, 0.1, 0.01]))
      >>> round(slope, 3)
      -1.0
    """
    if len(x) < 2:
        return math.nan, math.nan
    x, y = np.log(x), np.log(y)
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    if len(x) < 3:
        return slope, math.nan
    residual = y - slope * x
    return slope, math.sqrt(float(residual @ residual / (len(x) - 2) / (x @ x)))
