"""The infinite-depth regime of a schedule, and the schedule to start with."""

import dataclasses
import math
from typing import Literal

from nt_residual import _checks, schedules
from nt_residual.rntk import ResidualKernel
from nt_residual.theory.rates import Rate, rate

# The effective time at which the kernel is 0.01 from its limit, at angles from π/8 to 3π/4: as
# T → ∞ the distance is 5.6/T (5.8/T with all layers trained), as T → 0 it is 0.083·T (1.4·T).
_NEAR_INFINITY = {"blocks": 560, "all": 580}
_NEAR_ZERO = {"blocks": 0.12, "all": 0.007}
# Beyond so many blocks a limit says little about networks that can be built.
_TOO_DEEP = 1e4


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
    time = schedules.limiting_time(schedule, effective_time)
    limit = ResidualKernel(math.inf, schedule, trained=trained, effective_time=time)
    name = "degenerate" if time == math.inf else "learnable" if time == 0 else "critical"
    if name == "learnable" and trained == "all":
        name = "linear"
    return Regime(
        name=name,
        effective_time=time,
        limit=limit,
        rate=rate(schedule, trained=trained),
        advice=_advice(name, schedule, trained),
    )


def suitable_schedule(
    *, trained: Literal["all", "blocks"] = "all", odd_harmonics: bool = False
) -> schedules.PowerLaw:
    """Return the schedule to start with.

        α = 1/√L    if all layers are trained, with normalization layers and Adam too
        α = 1/L     in the kernel regime with the blocks trained alone; 1/√L for odd harmonics

    With all layers trained, the kernel tends to the linear one if α falls faster than 1/√L, and to
    a constant if α falls more slowly. 1/√L is also the only power that allows feature learning at
    infinite depth (Yang et al.), and it transfers learning rates between depths (Bordelon et al.).

    With the blocks trained alone, early-stopped regression is minimax optimal for every γ > 1/2,
    but deep networks then have no odd harmonics beyond degree 1. The theory does not determine
    the constant c of c/√L: tune it, starting from 1.

    Args:
      trained: 'all' for a network of which all layers are trained; 'blocks' for the kernel regime
        with the first and the last layer fixed.
      odd_harmonics: whether odd harmonics of degree 3 and more must be learned. They are needed if
        x and −x are both inputs, unless inputs have a constant feature (`bias=` of estimators).

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


def _advice(name: str, schedule: schedules.Schedule, trained: str) -> str:
    """A paragraph on what a regime means for learning, and what to do."""
    if name == "degenerate":
        return (
            "The kernel of any two different inputs tends to the constant 1/4: infinitely deep "
            "networks learn only the mean of the targets. Networks are within 0.01 of this limit, "
            f"at angles from 22 to 135 degrees, if T > {_NEAR_INFINITY[trained]}. Let α fall at "
            "least as fast as L^(-1/2): start with gamma = 1/2."
        )
    if name == "critical":
        near = 10 if trained == "blocks" else 20
        text = (
            "The kernel has a limit that depends on c, and learns both even and odd functions: "
            f"start with this gamma. Networks are within 0.01 of it from about {near} blocks on "
            "for c = 1, and from about 160 for c = 3. With a large c the limit is nearly constant."
        )
        linear = (
            " Training the first and the last layer, too, adds much of the linear kernel to it."
        )
        return text + (linear if trained == "all" else "")
    if name == "learnable":
        return (
            "The kernel tends to the kernel of one hidden layer. Early-stopped regression with it "
            f"is minimax optimal. {_near_limit(schedule, trained)} Without biases it has no odd "
            "harmonics beyond degree 1: if x and −x are both inputs, append a constant feature "
            "(bias= of the estimators does), or use gamma = 1/2. If all layers are trained "
            "(trained='all'), the limit is the linear kernel cos θ: start such networks with "
            "gamma = 1/2."
        )
    return (
        "With all layers trained the kernel tends to the linear kernel cos θ: infinitely deep "
        f"networks learn only linear functions. {_near_limit(schedule, trained)} Start with "
        "gamma = 1/2, or train only the blocks (trained='blocks')."
    )


def _near_limit(schedule: schedules.Schedule, trained: str) -> str:
    """From which depth on a limit with T = 0 describes a network."""
    near = _NEAR_ZERO[trained]
    if not isinstance(schedule, schedules.PowerLaw):
        return f"Networks are within 0.01 of it if T < {near:.2g}."
    # The depth at which T = c² L^(1−2γ) falls to `near`.
    log_depth = (math.log(near) - 2 * math.log(schedule.c)) / (1 - 2 * schedule.gamma)
    depth = math.exp(min(max(log_depth, 0), 700))
    if depth <= _TOO_DEEP:
        rounded = float(f"{math.ceil(depth):.2g}")
        return f"Networks are within 0.01 of it from a depth of about {rounded:.0f} on."
    time = schedule.c**2 * 1000 ** (1 - 2 * schedule.gamma)
    return (
        "Networks approach it slowly: they are within 0.01 of it only from a depth of about "
        f"{depth:.0e} on. Until then their kernel is that of gamma = 1/2 with c² = T, where T is "
        f"{time:.2g} for 1000 blocks."
    )
