"""Which of the three infinite-depth regimes a schedule leads to."""

import dataclasses
import math
from typing import Literal

from nt_residual import schedules
from nt_residual.rntk import ResidualKernel


@dataclasses.dataclass(frozen=True)
class Regime:
    """The infinite-depth behaviour of a schedule.

    Attributes:
      name: 'degenerate', 'critical' or 'learnable'.
      effective_time: the limit of T = Σ log(1 + α²).
      limit: the normalised kernel of the blocks at infinite depth.
      advice: what this means for learning, and what to do.
    """

    name: Literal["degenerate", "critical", "learnable"]
    effective_time: float
    limit: ResidualKernel
    advice: str


_ADVICE = {
    "degenerate": (
        "The kernel tends to the constant 1/4 between any two different inputs, so deep networks "
        "learn nothing but the mean. Let α fall at least as fast as L^(-1/2)."
    ),
    "critical": (
        "The kernel has a limit that depends on c and learns targets of either parity. Keep "
        "c about 1: with a large c the limit is itself close to a constant."
    ),
    "learnable": (
        "The kernel tends to that of one hidden layer, with which early-stopped regression is "
        "minimax optimal. On inputs that come with their negatives it cannot learn odd harmonics "
        "of degree 3 and more: append a constant feature, or use gamma = 1/2, which keeps them."
    ),
}


def regime(schedule: schedules.Schedule) -> Regime:
    """Tells what α = c·L^(−γ) leads to as the depth L grows.

    The effective time T = Σ log(1 + α²) decides: T → ∞ for γ < 1/2, T → c² for
    γ = 1/2, and T → 0 for γ > 1/2.

    Args:
      schedule: a `schedules.PowerLaw`, or another schedule with the attribute
        `limiting_effective_time`.

    Raises:
      TypeError: if the limit of the schedule is not known.

    Example:
      >>> regime(schedules.PowerLaw(gamma=0.25)).name
      'degenerate'
      >>> regime(schedules.PowerLaw(gamma=0.5, c=2.0)).effective_time
      4.0

    Reference: arXiv 2403.04545.
    """
    time = getattr(schedule, "limiting_effective_time", None)
    if time is None:
        raise TypeError(
            f"schedule must be one whose infinite-depth limit is known, got {schedule!r}. Pass "
            "schedules.PowerLaw(gamma, c), or give it an attribute limiting_effective_time."
        )
    name = "degenerate" if time == math.inf else "learnable" if time == 0 else "critical"
    return Regime(
        name=name,
        effective_time=float(time),
        limit=ResidualKernel(math.inf, schedule),
        advice=_ADVICE[name],
    )
