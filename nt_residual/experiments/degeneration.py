"""How the kernel of α = L^(−γ), and what is learned with it, changes with depth.

`constant_alpha` and `slow_decay` ask it about different γ.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nt_residual import _checks, data, rntk, schedules, theory
from nt_residual.experiments.claim import Finding
from nt_residual.experiments.on_sphere import mean_best_error
from nt_residual.theory.rates import default_angles

# What the kernel between different inputs tends to if T → ∞.
CONSTANT = 0.25
# A target of unit mean square, half in degree 1 and half in degree 2, on the sphere in three
# dimensions, where P_k has the mean square 1/(2k + 1).
_DIM = 3
_COEFFICIENTS = {1: math.sqrt(3 / 2), 2: math.sqrt(5 / 2)}


@dataclasses.dataclass(frozen=True)
class Row:
    """A kernel, and regression with it.

    Attributes:
      gamma: γ in α = L^(−γ).
      depth: the number of blocks L.
      effective_time: T = Σ log(1 + α²).
      distance: max |r(θ) − 1/4| over 16 angles from π/8 to 3π/4.
      error: the least test error over all stopping times, relative to that of predicting the
        mean; the mean over seeds.
      error_se: its standard error, NaN for one seed.
    """

    gamma: float
    depth: int
    effective_time: float
    distance: float
    error: float
    error_se: float


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of `run`.

    Attributes:
      rows: one per γ and depth, depths ascending for each γ.
      control: the γ that is there for comparison.
    """

    rows: list[Row]
    control: float

    def of(self, gamma: float) -> list[Row]:
        """The rows of one γ."""
        return [row for row in self.rows if row.gamma == gamma]

    @property
    def gammas(self) -> list[float]:
        """Those that the claim is about."""
        return [g for g in dict.fromkeys(row.gamma for row in self.rows) if g != self.control]


def run(
    gammas: Sequence[float],
    depths: Sequence[int],
    *,
    control: float,
    n_train: int = 100,
    n_test: int = 500,
    seeds: int = 3,
) -> Result:
    """Follows the kernel to great depth, and what can be learned with it.

    The target on the sphere in three dimensions has half its power in degree 1 and half in
    degree 2, without noise.

    Args:
      gammas: the exponents γ.
      depths: the numbers of blocks, finite, two at least.
      control: another γ, of at least 1/2.
      n_train: training points.
      n_test: test points.
      seeds: how many sets of points to average the error over.

    Returns:
      A row per γ and depth.

    Raises:
      TypeError, ValueError: if an argument is out of range.

    Example:
      >>> found = run([0.0], [10, 100], control=1.0, n_train=20, n_test=20, seeds=1)
      >>> [round(row.distance, 2) for row in found.of(0.0)]
      [0.45, 0.11]
    """
    _checks.integer(seeds, "seeds", 1, "Pass the number of sets of points.")
    sets = [
        data.sphere.load(n_train, n_test, _DIM, _COEFFICIENTS, seed=seed) for seed in range(seeds)
    ]
    angles = default_angles()
    remedy = "Pass two or more numbers of blocks, finite ones."
    depths = sorted({_checks.integer(depth, "each of depths", 1, remedy) for depth in depths})
    if len(depths) < 2:
        raise ValueError(f"depths must be two or more, got {depths}. {remedy}")
    rows = []
    for gamma in dict.fromkeys([*gammas, control]):
        for depth in depths:
            kernel = rntk.ResidualKernel(depth, schedules.PowerLaw(gamma))
            error, error_se = mean_best_error(kernel, sets)
            rows.append(
                Row(
                    gamma=float(gamma),
                    depth=depth,
                    effective_time=kernel.effective_time,
                    distance=float(np.abs(kernel.at_angle(angles) - CONSTANT).max()),
                    error=error,
                    error_se=error_se,
                )
            )
    return Result(rows, float(control))


def control_finding(result: Result) -> Finding:
    """Whether the γ for comparison learns at every depth."""
    rows = result.of(result.control)
    worst, deepest = max(row.error for row in rows), rows[-1].depth
    return Finding(
        claim=f"For comparison: with γ = {result.control:g} the same target is learned at every "
        "depth (criterion: relative test error below 0.1).",
        measured=f"The relative test error is at most {worst:.2g} up to depth {deepest}.",
        agrees=worst < 0.1,
    )


def plot(result: Result) -> Any:
    """Draws the distance of the kernel to 1/4, and the test error, against depth.

    Args:
      result: what `run` returned.

    Returns:
      A `matplotlib.figure.Figure`. Dashed lines are `theory.rate`, through the last point.

    Raises:
      ImportError: if matplotlib is missing.
    """
    figure = theory.plots.new_figure(10, 4)
    distance, error = figure.subplots(1, 2)
    for i, gamma in enumerate([*result.gammas, result.control]):
        rows = result.of(gamma)
        depths = np.array([row.depth for row in rows])
        style = {"color": f"C{i}", "marker": "os^Dv"[i % 5], "mfc": "none"}
        label = f"γ = {gamma:g}" + (", for comparison" if gamma == result.control else "")
        far = [row.distance for row in rows]
        distance.plot(depths, far, **style, label=label)
        law = theory.rate(schedules.PowerLaw(gamma))
        if gamma != result.control and law is not None:
            distance.plot(depths, law(depths) * far[-1] / law(depths)[-1], f"C{i}--", lw=1.2)
        bars = np.nan_to_num([row.error_se for row in rows])
        error.errorbar(depths, [row.error for row in rows], bars, capsize=3, **style, label=label)
    error.axhline(1, color="k", ls=":", lw=1)
    distance.set(ylabel="max |r(θ) − 1/4| (dashed: predicted rate)", yscale="log")
    error.set(ylabel="test error, relative (dotted: the mean)", yscale="log")
    for axes in (distance, error):
        axes.set(xscale="log", xlabel="depth L")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure
