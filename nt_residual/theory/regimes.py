"""The infinite-depth regime of a schedule, and the schedule to start with."""

import dataclasses
import math
from typing import Literal

from nt_residual import _checks, schedules
from nt_residual.rntk import ResidualKernel
from nt_residual.theory.advice import advice
from nt_residual.theory.rates import Rate, limit_kernel, rate


@dataclasses.dataclass(frozen=True)
class Regime:
    """The infinite-depth behavior of a schedule.

    Attributes:
      name: 'degenerate', 'critical' or 'learnable'. 'linear' replaces 'learnable' if all layers
        are trained.
      effective_time: the limit of T = Σ log(1 + α²).
      limit: the normalized NTK at infinite depth.
      rate: the rate at which the kernel of depth L approaches it, `None` if not known.
      advice: what the regime means for learning and what to do, one paragraph.
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
    """Return the regime that a schedule leads to as the depth L grows.

    The effective time T = Σ log(1 + α²) decides. With α = c·L^(−γ) it tends to ∞ for γ < 1/2,
    to c² for γ = 1/2, and to 0 for γ > 1/2.

    Args:
      schedule: a `schedules.PowerLaw`, or a callable of the depth with the attribute
        `limiting_effective_time`.
      effective_time: the limit of T, in [0, ∞]. Pass it for any other schedule.
      trained: 'blocks' if only the blocks are trained, as in the paper; 'all' if the first
        and the last layer are too.

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


def suitable_schedule(
    *, trained: Literal["all", "blocks"] = "all", odd_harmonics: bool = False
) -> schedules.PowerLaw:
    """Return the schedule to start with.

        α = 1/√L    if all layers are trained, with normalization layers and Adam too
        α = 1/L     in the kernel regime with the blocks trained alone; 1/√L for odd harmonics

    With all layers trained, α that falls faster than 1/√L leaves the linear kernel, and α that
    falls more slowly a constant. For feature learning at infinite depth 1/√L is the only power
    too, for blocks of one layer (Yang et al.). With deeper blocks, in μP, it transfers learning
    rates from one depth to another (Bordelon et al.).

    With the blocks trained alone, early-stopped regression is minimax optimal for every
    γ > 1/2, and with γ = 1 the kernel is within 0.01 of its limit from 9 blocks on. For γ > 1/2
    the kernel of a deep network has no odd harmonics beyond degree 1, for γ < 1/2 none at all.

    The theory is that of infinite width, gradient flow and no normalization layers. It does not
    determine the constant c of c/√L: tune it, from 1 on.

    Args:
      trained: 'all' for a network of which all layers are trained; 'blocks' for the kernel regime
        with the first and the last layer fixed, as in arXiv 2403.04545.
      odd_harmonics: whether odd harmonics of degree 3 and more must be learned, for
        `trained='blocks'`. It matters for inputs that come with their negatives, as points spread
        over a whole sphere do. It does not for inputs that are positive or have a constant
        feature (`bias=` of the estimators).

    Raises:
      TypeError: if an argument has another type.
      ValueError: if `trained` is unknown.

    Example:
      >>> suitable_schedule()(100)[0], suitable_schedule(trained="blocks")(100)[0]
      (np.float64(0.1), np.float64(0.01))

    Reference: arXiv 2403.04545 (kernels); Yang et al. 2023, arXiv 2310.02244; Bordelon et al.
      2023, arXiv 2309.16620.
    """
    _checks.choice(trained, "trained", ("blocks", "all"))
    odd_harmonics = _checks.boolean(odd_harmonics, "odd_harmonics")
    return schedules.PowerLaw(0.5 if trained == "all" or odd_harmonics else 1.0)
