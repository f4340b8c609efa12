"""With α = L^(−γ), γ ≥ 1/2, the kernel converges to one that learns, at the predicted rate."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nt_residual import rntk, schedules, theory
from nt_residual.experiments import figures
from nt_residual.experiments.claim import Finding, slope, upper_half
from nt_residual.theory.rates import default_angles

TITLE = "From γ = 1/2 on the kernel converges to one that learns"
STATEMENT = (
    "If α = L^(−γ) with γ > 1/2 the kernel tends to that of a network of one hidden layer, like "
    "L^(1−2γ); with γ = 1/2 it tends to another that is not constant either, like 1/L (which "
    "goes beyond the paper)."
)
QUICK = {"gammas": (0.5, 0.6, 0.75, 1.0), "depths": (10, 30, 100, 300, 1000, 3000, 10_000)}
FULL = {
    "gammas": (0.5, 0.55, 0.6, 0.75, 1.0, 1.5),
    "depths": (10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """The distance of a kernel to its limit.

    Attributes:
      gamma: γ in α = L^(−γ).
      depth: the number of blocks L.
      effective_time: T = Σ log(1 + α²).
      distance: max |r_L(θ) − r_∞(θ)| over 16 angles from π/8 to 3π/4.
    """

    gamma: float
    depth: int
    effective_time: float
    distance: float


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of `run`.

    Attributes:
      rows: one per γ and depth, depths ascending for each γ.
      convergences: the result of `theory.convergence`, by γ.
      from_one_layer: the largest distance of the kernel of the greatest γ > 1/2 and the greatest
        depth to (κ1(cos θ) + cos θ κ0(cos θ))/2; NaN where there is no such γ.
      limit_range: the smallest and the largest value of the limit over the angles, by γ.
    """

    rows: list[Row]
    convergences: dict[float, theory.Convergence]
    from_one_layer: float
    limit_range: dict[float, tuple[float, float]]


def run(
    gammas: Sequence[float] = QUICK["gammas"], depths: Sequence[int] = QUICK["depths"]
) -> Result:
    """Measure the distance of kernels of finite depth to their limits.

    Args:
      gammas: the exponents γ, at least 1/2.
      depths: the numbers of blocks, ascending, at least three.

    Returns:
      A row per γ and depth.

    Raises:
      TypeError, ValueError: if an argument is out of range.

    Example:
      >>> found = run([1.0], [10, 30, 100])
      >>> round(found.convergences[1.0].slope, 2)
      -0.96
    """
    outside = [gamma for gamma in gammas if not gamma >= 0.5]
    if outside:
        raise ValueError(
            f"gammas must be at least 1/2, got {outside}. See constant_alpha and slow_decay for "
            "others."
        )
    found = {float(g): theory.convergence(schedules.PowerLaw(g), depths) for g in gammas}
    angles = default_angles()
    limits = {
        g: rntk.ResidualKernel(math.inf, schedules.PowerLaw(g)).at_angle(angles) for g in found
    }
    rows = [
        Row(gamma, int(depth), float(time), float(distance))
        for gamma, one in found.items()
        for depth, time, distance in zip(one.depths, one.effective_time, one.error, strict=True)
    ]
    ranges = {g: (float(values.min()), float(values.max())) for g, values in limits.items()}
    return Result(rows, found, _from_one_layer(max(found), max(depths), angles), ranges)


def _from_one_layer(gamma: float, depth: int, angles: np.ndarray) -> float:
    # By the recursion at a finite depth: the limit is this formula by definition.
    if gamma == 0.5:
        return math.nan
    deep = rntk.ResidualKernel(depth, schedules.PowerLaw(gamma)).at_angle(angles)
    one_layer = (2 * np.cos(angles) * (math.pi - angles) + np.sin(angles)) / (2 * math.pi)
    return float(np.abs(deep - one_layer).max())


def findings(result: Result) -> list[Finding]:
    """Return the predictions of the paper beside measurements.

    Example:
      >>> [f.agrees for f in findings(run([1.0], [10, 30, 100]))]
      [True, True, True]
    """
    found = []
    for gamma in result.convergences:
        predicted = 1 - 2 * gamma if gamma > 0.5 else -1.0
        deep = upper_half([row for row in result.rows if row.gamma == gamma])
        measured = slope([row.depth for row in deep], [row.distance for row in deep]).value
        low, high = result.limit_range[gamma]
        found += [
            Finding(
                claim=f"γ = {gamma:g}: the distance to the limit falls like L^({predicted:.2g}) "
                "(criterion: the slope is within 10%).",
                measured=f"The slope is {measured:.3f} over depths {deep[0].depth} to "
                f"{deep[-1].depth}.",
                agrees=abs(measured / predicted - 1) < 0.1,
            ),
            Finding(
                claim=f"γ = {gamma:g}: the limit is not constant (criterion: it varies by more "
                "than 0.3 over angles from π/8 to 3π/4).",
                measured=f"It goes from {low:.3f} to {high:.3f}.",
                agrees=high - low > 0.3,
            ),
        ]
    last = max(result.rows, key=lambda row: (row.gamma, row.depth))
    if not math.isnan(result.from_one_layer):
        found.append(
            Finding(
                claim="For γ > 1/2 the limit is the kernel of one hidden layer (criterion: that of "
                f"γ = {last.gamma:g} and depth {last.depth} is within its effective time, "
                f"T = {last.effective_time:.1g}).",
                measured=f"They differ by {result.from_one_layer:.1g} at most.",
                agrees=result.from_one_layer < last.effective_time,
            )
        )
    return found


def plot(result: Result) -> Any:
    """Draw the limits against the angle, and the distance to them against depth.

    Returns a `matplotlib.figure.Figure`.
    """
    figure, (limits, distance) = figures.panels(2)
    kernels = {
        "γ > 1/2" if gamma > 0.5 else "γ = 1/2": rntk.ResidualKernel(
            math.inf, schedules.PowerLaw(gamma)
        )
        for gamma in result.convergences
    }
    theory.plots.profile(kernels, ax=limits)
    limits.set_title("limits")
    theory.plots.convergence(
        {f"γ = {gamma:g}": one for gamma, one in result.convergences.items()}, ax=distance
    )
    return figure
