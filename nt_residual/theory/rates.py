"""The rate at which kernels of finite depth approach their limit, predicted and measured."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks, schedules
from nt_residual.rntk import ResidualKernel, recursion

# Errors below this may be those of the limit itself.
_FLOOR = 1e-10


@dataclasses.dataclass(frozen=True)
class Rate:
    """A law error ~ L^exponent · (1 + log_weight · log L) for the distance to the limit.

    `log_weight` is positive for γ = 0, else 0. `text` has the law in words, and where it holds.
    """

    exponent: float
    log_weight: float
    text: str

    def __call__(self, depths: ArrayLike) -> np.ndarray:
        """Return the law at some depths, up to a constant factor: float64, shape of `depths`."""
        depths = np.asarray(depths, np.float64)
        return depths**self.exponent * (1 + self.log_weight * np.log(depths))


def rate(
    schedule: schedules.Schedule,
    *,
    kind: Literal["ntk", "nngp"] = "ntk",
    trained: Literal["blocks", "all"] = "blocks",
) -> Rate | None:
    """Return the rate at which the normalized kernel of depth L approaches its limit.

    With α = c·L^(−γ), at a fixed angle 0 < θ < π,

        γ > 1/2         T = c² L^(1−2γ)    the kernel is linear in T near T = 0
        γ = 1/2         1/L                an Euler method of L steps
        0 < γ < 1/2     1/T ~ L^(2γ−1)     since θ_T ≈ 3π/(T + t_0(θ))
        γ = 0           log(L)/L           blocks of α = c add (3s/2) log(L) to t_0

    - NNGP, γ < 1/2: the rate is 1/T², since 1 − ρ ≈ θ_T²/2.
    - NTK of the blocks, γ > 1/2: the limit has a kink at θ = π, where the error is 0.15·√T. Over
      all of [0, π] it falls like L^((1−2γ)/2) only.
    - γ < 1/2: the law holds where T exceeds about 30, for θ above 3π/T.
    - γ = 0: the logarithm has the weight 0.07 s, s = α²/(1 + α²), as measured at the angles that
      `convergence` uses.

    It is `None` for schedules other than `schedules.PowerLaw`.

    Raises:
      ValueError: if `kind` or `trained` is unknown.

    Example:
      >>> rate(schedules.PowerLaw(gamma=0.75)).exponent
      -0.5

    Reference: arXiv 2403.04545; Belfer et al., arXiv 2104.03093, for γ = 0. The constants are
      measured.
    """
    recursion.check_options(kind, trained)
    if not isinstance(schedule, schedules.PowerLaw):
        return None
    gamma, c = schedule.gamma, schedule.c
    if gamma == 0.5:
        return Rate(-1.0, 0.0, "1/L, at every angle")
    if gamma > 0.5:
        exponent = 1 - 2 * gamma
        at_kink = f"L^({exponent / 2:.4g}) over all of [0, π]"
        has_kink = kind == "ntk" and trained == "blocks"
        where = f" at any θ < π, {at_kink}" if has_kink else ", at every angle"
        return Rate(exponent, 0.0, f"L^({exponent:.4g}){where}")
    exponent = (2 * gamma - 1) * (2 if kind == "nngp" else 1)
    if gamma == 0 and kind == "ntk":
        return Rate(exponent, 0.07 * c**2 / (1 + c**2), "log(L)/L at fixed θ > 0")
    return Rate(exponent, 0.0, f"L^({exponent:.4g}) at fixed θ > 0")


@dataclasses.dataclass(frozen=True, eq=False)
class Convergence:
    """The distances of kernels of finite depth to their limit.

    Attributes:
      depths: the depths L, ascending, shape (n,).
      error: max over `theta` of |r_L(θ) − r_∞(θ)|, shape (n,).
      effective_time: T at each depth, shape (n,).
      slope: of log error against log L, fitted where the error exceeds 1e-10; NaN where
        fewer than two do.
      slope_error: its standard error, NaN for fewer than three depths.
      rate: the predicted law, `None` where it is not known.
      predicted: that law through the error at the greatest depth above 1e-10, shape (n,);
        `None` where there is none.
      predicted_slope: of `predicted`, fitted at the same depths as `slope`; for γ = 0 the
        logarithm makes it differ from `rate.exponent`. `None` where it is not known.
    """

    depths: np.ndarray
    error: np.ndarray
    effective_time: np.ndarray = dataclasses.field(repr=False)
    slope: float
    slope_error: float
    rate: Rate | None
    predicted: np.ndarray | None = dataclasses.field(repr=False)
    predicted_slope: float | None


def convergence(
    schedule: schedules.Schedule,
    depths: Sequence[int] | np.ndarray,
    *,
    kind: Literal["ntk", "nngp"] = "ntk",
    trained: Literal["blocks", "all"] = "blocks",
    theta: ArrayLike | None = None,
    effective_time: float | None = None,
) -> Convergence:
    """Compare kernels of finite depth with their limit, and with the predicted rate.

        error(L) = max_θ |r_L(θ) − r_∞(θ)|

    Both are normalized to 1 at θ = 0. The cost is some tens of µs per block.

    Args:
      schedule: α as a function of depth.
      depths: the depths L, ascending integers, at least two.
      kind: of `rntk.ResidualKernel`.
      trained: of `rntk.ResidualKernel`.
      theta: angles in radians, in [0, π], shape (m,) or a scalar; `None` for sixteen from π/8 to
        3π/4. Near 0 and π the rate is another.
      effective_time: the limit of T, if the schedule does not know it, as for `regime`.

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
    angles = default_angles() if theta is None else _checks.real_array(theta, "theta")
    if angles.size == 0:
        raise ValueError("theta must hold at least one angle, got none. Pass angles in radians.")
    time = schedules.limiting_time(schedule, effective_time)
    deep = ResidualKernel(math.inf, schedule, kind=kind, trained=trained, effective_time=time)
    limit = deep.at_angle(angles)
    kernels = [deep.at_depth(int(n)) for n in count]
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
        slope=slope,
        slope_error=slope_error,
        rate=law,
        predicted=predicted,
        predicted_slope=predicted_slope,
    )


def default_angles() -> np.ndarray:
    """Return sixteen angles from π/8 to 3π/4, where every regime converges at its own rate."""
    return np.linspace(math.pi / 8, 3 * math.pi / 4, 16)


def fit_power_law(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the slope of log y against log x, and its standard error.

    Both are NaN for fewer than two points, the standard error for fewer than three.
    """
    if len(x) < 2:
        return math.nan, math.nan
    if len(x) == 2:
        return float(np.polyfit(np.log(x), np.log(y), 1)[0]), math.nan
    line, covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    return float(line[0]), math.sqrt(covariance[0, 0])


def _check_depths(depths: Sequence[int] | np.ndarray) -> np.ndarray:
    remedy = "Pass at least two ascending, finite numbers of blocks, as [10, 100, 1000]."
    if np.ndim(depths) != 1:
        raise ValueError(f"depths must have shape (n,), got shape {np.shape(depths)}. {remedy}")
    count = [_checks.integer(depth, "each of depths", 1, remedy) for depth in depths]
    if len(count) < 2 or np.any(np.diff(count) <= 0):
        raise ValueError(f"depths must be two or more, ascending, got {count}. {remedy}")
    return np.array(count)
