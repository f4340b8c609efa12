"""Which of the infinite-depth regimes a schedule leads to."""

import dataclasses
import math
from typing import Literal

from nt_residual import _checks, schedules
from nt_residual.rntk import ResidualKernel
from nt_residual.theory.advice import advice
from nt_residual.theory.rates import Rate, rate


@dataclasses.dataclass(frozen=True)
class Regime:
    """The infinite-depth behavior of a schedule.

    Attributes:
      name: 'degenerate', 'critical' or 'learnable'; 'linear' for what is learnable if only
        the blocks are trained, but all layers are.
      effective_time: the limit of T = Σ log(1 + α²).
      limit: the normalized NTK at infinite depth.
      rate: how fast that of depth L approaches it, `None` where that is not known.
      advice: what this means for learning, and what to do; one paragraph.
    """

    name: Literal["degenerate", "critical", "learnable", "linear"]
    effective_time: float
    limit: ResidualKernel
    rate: Rate | None
    advice: str


def regime(
    schedule: schedules.Schedule,
    *,
    effective_time: float | None = None,
    trained: Literal["blocks", "all"] = "blocks",
) -> Regime:
    """Tells what α = c·L^(−γ) leads to as the depth L grows.

    The effective time T = Σ log(1 + α²) decides: T → ∞ for γ < 1/2, T → c² for
    γ = 1/2, and T → 0 for γ > 1/2.

    Args:
      schedule: a `schedules.PowerLaw`, or another schedule with the attribute
        `limiting_effective_time`.
      effective_time: the limit of T, in [0, ∞], where the schedule does not know it. What
        else `rntk.ResidualKernel` asks of such schedules.
      trained: 'blocks' if only the blocks are trained, as in the paper; 'all' if the first
        and the last layer are too.

    Returns:
      The regime, with the kernel at infinite depth and advice.

    Raises:
      TypeError: if `effective_time` is not a number.
      ValueError: if the limit of the schedule is not known, `effective_time` is negative, NaN or
        not that of the schedule, or `trained` is unknown.

    Example:
      >>> regime(schedules.PowerLaw(gamma=0.25)).name
      'degenerate'
      >>> regime(schedules.PowerLaw(gamma=0.5, c=2.0)).effective_time
      4.0
      >>> regime(schedules.PowerLaw(gamma=1.0)).rate.text
      'L^(-1) at any θ < π, L^(-0.5) over all of [0, π]'

    Reference: arXiv 2403.04545.
    """
    _checks.choice(trained, "trained", ("blocks", "all"))
    time = schedules.limiting_time(schedule, effective_time)
    name = "degenerate" if time == math.inf else "learnable" if time == 0 else "critical"
    if name == "learnable" and trained == "all":
        name = "linear"
    return Regime(
        name=name,
        effective_time=time,
        limit=limit_kernel(schedule, effective_time, trained=trained),
        rate=rate(schedule, trained=trained),
        advice=advice(name, schedule, trained),
    )


def limit_kernel(
    schedule: schedules.Schedule,
    effective_time: float | None,
    *,
    kind: Literal["ntk", "nngp"] = "ntk",
    trained: Literal["blocks", "all"] = "blocks",
) -> ResidualKernel:
    """The normalized kernel at infinite depth, of effective time `schedules.limiting_time`.

    Example:
      >>> limit_kernel(schedules.PowerLaw(gamma=1.0), None).depth
      inf
    """
    time = schedules.limiting_time(schedule, effective_time)
    return ResidualKernel(math.inf, schedule, kind=kind, trained=trained, effective_time=time)
