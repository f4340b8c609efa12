"""How fast the kernel of a finite depth approaches its limit."""

import dataclasses
import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import schedules
from nt_residual.rntk import recursion


@dataclasses.dataclass(frozen=True)
class Rate:
    """A law error ~ L^exponent · (1 + log_weight · log L) for the distance to the limit.

    Attributes:
      exponent: of the depth L, negative.
      log_weight: of log L; positive for γ = 0 and else 0.
      text: the law in words, and where it holds.

    Example:
      >>> Rate(-1.0, 0.0, "1/L")([10, 100])
      array([0.1 , 0.01])
    """

    exponent: float
    log_weight: float
    text: str

    def __call__(self, depths: ArrayLike) -> np.ndarray:
        """The law at some depths, up to a constant factor: float64, the shape of `depths`."""
        depths = np.asarray(depths, np.float64)
        return depths**self.exponent * (1 + self.log_weight * np.log(depths))


def rate(
    schedule: schedules.Schedule,
    *,
    kind: Literal["ntk", "nngp"] = "ntk",
    trained: Literal["blocks", "all"] = "blocks",
) -> Rate | None:
    """The rate at which the normalized kernel of depth L approaches its limit.

    With α = c·L^(−γ), at a fixed angle 0 < θ < π,

        γ > 1/2         T = c² L^(1−2γ)    each is linear in T near T = 0
        γ = 1/2         1/L                an Euler method of L steps
        0 < γ < 1/2     1/T ~ L^(2γ−1)     since θ_T ≈ 3π/(T + t_0(θ))
        γ = 0           log(L)/L           blocks of α = c add (3s/2) log(L) to t_0

    For the NNGP with γ < 1/2 it is 1/T², since 1 − ρ ≈ θ_T²/2. For the NTK of the blocks
    with γ > 1/2 the limit has a kink at θ = π that no finite depth has: there the error is
    0.15·√T, so that over all of [0, π] it falls like L^((1−2γ)/2) only. For γ < 1/2 the
    error does not fall at all for θ below 3π/T. For γ = 0 the logarithm outweighs t_0(θ) only
    at depths beyond reach: it is given the weight 0.07 s, s = α²/(1 + α²), that it has at the
    angles `convergence` uses. All this is asymptotic: for γ < 1/2, where T exceeds about 30.

    Args:
      schedule: a `schedules.PowerLaw`; of another schedule the rate is not known.
      kind: 'ntk' or 'nngp'.
      trained: 'blocks' or 'all'.

    Returns:
      The rate, or `None` where it is not known.

    Raises:
      ValueError: if an option is unknown.

    Example:
      >>> rate(schedules.PowerLaw(gamma=0.75)).exponent
      -0.5

    Reference: arXiv 2403.04545; Belfer et al., arXiv 2104.03093, for γ = 0. The constants are
      measured.
    """
    recursion.check_options(kind, trained)
    if not isinstance(schedule, schedules.PowerLaw):
        return None
    gamma = schedule.gamma
    if gamma == 0.5:
        return Rate(-1.0, 0.0, "1/L, at every angle")
    if gamma > 0.5:
        return _vanishing(gamma, kinked=kind == "ntk" and trained == "blocks")
    return _diverging(gamma, schedule.c, kind)


def _vanishing(gamma: float, *, kinked: bool) -> Rate:
    exponent = 1 - 2 * gamma
    if not kinked:
        return Rate(exponent, 0.0, f"L^({exponent:.4g}), at every angle")
    text = f"L^({exponent:.4g}) at any θ < π, L^({exponent / 2:.4g}) over all of [0, π]"
    return Rate(exponent, 0.0, text)


def _diverging(gamma: float, c: float, kind: str) -> Rate:
    exponent = 2 * gamma - 1
    if kind == "nngp":
        return Rate(2 * exponent, 0.0, f"L^({2 * exponent:.4g}) at fixed θ > 0")
    if gamma == 0:
        weight = 0.07 * c**2 / (1 + c**2)
        return Rate(exponent, weight, "log(L)/L at fixed θ > 0")
    return Rate(exponent, 0.0, f"L^({exponent:.4g}) at fixed θ > 0")


def depth_within(schedule: schedules.PowerLaw, effective_time: float) -> float:
    """The depth at which c² L^(1−2γ) reaches a given effective time; infinite beyond floats.

    Example:
      >>> round(depth_within(schedules.PowerLaw(gamma=0.25), 100.0))
      10000
    """
    exponent = 1 - 2 * schedule.gamma
    log_depth = (math.log(effective_time) - 2 * math.log(schedule.c)) / exponent
    return math.exp(log_depth) if log_depth < 700 else math.inf
