"""With α = L^(−γ), γ ≥ 1/2, the kernel tends to one that can learn, at the predicted rate."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nt_residual import rntk, schedules, theory
from nt_residual.experiments import figures
from nt_residual.experiments.claim import Finding, Result, slope, table, upper_half
from nt_residual.theory.rates import default_angles

TITLE = "From γ = 1/2 on the kernel converges to one that learns"
STATEMENT = (
    "If α = L^(−γ) with γ > 1/2, the kernel tends to that of a network with one hidden layer, at "
    "the rate L^(1−2γ). With γ = 1/2 it tends to another kernel that is not constant, at the "
    "rate 1/L. The result for γ = 1/2 goes beyond the paper."
)
QUICK = {"gammas": (0.5, 0.6, 0.75, 1.0), "depths": (10, 30, 100, 300, 1000, 3000, 10_000)}
FULL = {"gammas": (0.5, 0.55, 0.6, 0.75, 1.0, 1.5), "depths": (*QUICK["depths"], 30_000, 100_000)}


def run(
    gammas: Sequence[float] = QUICK["gammas"], depths: Sequence[int] = QUICK["depths"]
) -> Result:
    """Measure the distance of kernels of finite depth to their limits.

    Args:
      gammas: the exponents γ, at least 1/2.
      depths: the numbers of blocks, ascending, at least three.

    Returns:
      A row per γ and depth:

      * `gamma`, γ in α = L^(−γ), `depth`, L, and `effective_time`, T = Σ log(1 + α²);
      * `distance`, max |r_L(θ) − r_∞(θ)| over 16 angles from π/8 to 3π/4;
      * `lowest` and `highest`, the smallest and the largest r_∞(θ);
      * `from_one_layer`, the largest distance to (κ1(cos θ) + cos θ κ0(cos θ))/2.

    Raises:
      TypeError, ValueError: if an argument is out of range.

    Example:
      >>> found = run([1.0], [10, 30, 100])
      >>> round(slope(found.rows.depth, found.rows.distance).value, 2)
      -0.96
    """
    if not all(gamma >= 0.5 for gamma in gammas):
        raise ValueError(
            f"gammas must be at least 1/2, got {gammas}. See slow_decay for smaller ones."
        )
    angles = default_angles()
    one_layer = (2 * np.cos(angles) * (math.pi - angles) + np.sin(angles)) / (2 * math.pi)
    rows = []
    for gamma in map(float, gammas):
        schedule = schedules.PowerLaw(gamma)
        limit = rntk.ResidualKernel(math.inf, schedule).at_angle(angles)
        found = theory.convergence(schedule, depths, theta=angles)
        for depth, time, distance in zip(
            found.depths.tolist(), found.effective_time, found.error, strict=True
        ):
            row = {"gamma": gamma, "depth": depth, "effective_time": time, "distance": distance}
            row |= {"lowest": limit.min(), "highest": limit.max()}
            # The limit is this formula by definition: finite depth is compared with it.
            entries = rntk.ResidualKernel(depth, schedule).at_angle(angles)
            rows.append(row | {"from_one_layer": np.abs(entries - one_layer).max()})
    return Result(table(rows))


def findings(result: Result) -> list[Finding]:
    """Return the predictions of the paper beside measurements.

    Example:
      >>> [f.agrees for f in findings(run([1.0], [10, 30, 100]))]
      [True, True, True]
    """
    found = []
    for gamma in dict.fromkeys(result.rows.gamma.tolist()):
        predicted = 1 - 2 * gamma if gamma > 0.5 else -1.0
        deep = upper_half(result.of(gamma=gamma))
        measured = slope(deep.depth, deep.distance).value
        low, high = deep[-1].lowest, deep[-1].highest
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
                agrees=bool(high - low > 0.3),
            ),
        ]
    last = result.of(gamma=result.rows.gamma.max())[-1]
    if last.gamma > 0.5:
        found.append(
            Finding(
                claim="For γ > 1/2 the limit is the kernel of one hidden layer (criterion: that "
                f"of γ = {last.gamma:g} at depth {last.depth} differs from it by less than the "
                f"effective time T = {last.effective_time:.1g}).",
                measured=f"They differ by at most {last.from_one_layer:.1g}.",
                agrees=bool(last.from_one_layer < last.effective_time),
            )
        )
    return found


def plot(result: Result) -> Any:
    """Draw the limits against the angle, and the distance to them against depth."""
    figure, (limits, distance) = figures.panels(2)
    gammas = dict.fromkeys(result.rows.gamma.tolist())
    names = {gamma: "γ > 1/2" if gamma > 0.5 else "γ = 1/2" for gamma in gammas}
    limit_of = {g: rntk.ResidualKernel(math.inf, schedules.PowerLaw(g)) for g in gammas}
    theory.plots.profile({names[g]: limit_of[g] for g in gammas}, ax=limits)
    limits.set_title("limits")
    for i, gamma in enumerate(gammas):
        rows = result.of(gamma=gamma)
        figures.decay(distance, i, gamma, rows.depth, rows.distance)
    distance.set_ylabel("distance to the limit, max over θ (dashed: predicted rate)")
    return figures.finish(figure)
