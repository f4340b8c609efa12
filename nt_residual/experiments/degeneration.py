"""The kernel of α = L^(−γ), and regression with it, at increasing depth.

The claims `constant_alpha` and `slow_decay` share it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nt_residual import _checks, rntk, schedules
from nt_residual.experiments import figures, sphere_regression
from nt_residual.experiments.claim import Finding, Result, table
from nt_residual.theory.rates import default_angles

# The limit of the kernel between different inputs if T → ∞.
CONSTANT = 0.25
# On the sphere in three dimensions P_k has the mean square 1/(2k + 1).
_TARGET = {"dim": 3, "coefficients": {1: math.sqrt(3 / 2), 2: math.sqrt(5 / 2)}}


def run(
    gammas: Sequence[float],
    depths: Sequence[int],
    *,
    control: float,
    n_train: int = 100,
    n_test: int = 500,
    n_seeds: int = 3,
) -> Result:
    """Compute kernels of increasing depth, and fit them to points on the sphere.

    The target has half its power in degree 1 and half in degree 2, without noise.

    Args:
      gammas: the exponents γ.
      depths: the numbers of blocks, finite, at least two.
      control: another γ, at least 1/2, for comparison.
      n_train: training points.
      n_test: test points.
      n_seeds: the number of sets of points to average the error over.

    Returns:
      A row per γ and depth, depths ascending for each γ, `control` last:

      * `gamma`, γ in α = L^(−γ), `depth`, L, and `effective_time`, T = Σ log(1 + α²);
      * `distance`, max |r(θ) − 1/4| over 16 angles from π/8 to 3π/4;
      * `error`, the mean of `sphere_regression.best_error` over seeds, and `error_se`, its standard
        error, NaN for one seed.
    """
    sets = sphere_regression.draw_sets(n_seeds, n_train, n_test=n_test, **_TARGET)
    remedy = "Pass two or more numbers of blocks, finite ones."
    depths = sorted({_checks.integer(depth, "each of depths", 1, remedy) for depth in depths})
    if len(depths) < 2:
        raise ValueError(f"depths must be two or more, got {depths}. {remedy}")
    rows = []
    for gamma in dict.fromkeys([*map(float, gammas), control]):
        for depth in depths:
            kernel = rntk.ResidualKernel(depth, schedules.PowerLaw(gamma))
            error, error_se = sphere_regression.best_error(kernel, sets)
            row = {"gamma": gamma, "depth": depth, "effective_time": kernel.effective_time}
            row["distance"] = float(np.abs(kernel.at_angle(default_angles()) - CONSTANT).max())
            rows.append(row | {"error": error, "error_se": error_se})
    return Result(table(rows))


def control_finding(result: Result) -> Finding:
    """Return whether regression with the γ for comparison works at every depth."""
    control, deepest = result.rows[-1].gamma, result.rows[-1].depth
    worst = result.of(gamma=control).error.max()
    return Finding(
        claim=f"For comparison: regression with γ = {control:g} learns the same target at "
        "every depth (criterion: relative test error below 0.1).",
        measured=f"The relative test error is at most {worst:.2g} up to depth {deepest}.",
        agrees=bool(worst < 0.1),
    )


def plot(result: Result) -> Any:
    """Draw the distance of the kernel to 1/4 and the test error against depth."""
    figure, (distance, error) = figures.panels(2)
    control = result.rows[-1].gamma
    for i, gamma in enumerate(dict.fromkeys(result.rows.gamma.tolist())):
        rows = result.of(gamma=gamma)
        options = {"label": f"γ = {gamma:g}", **figures.style(i)}
        if gamma == control:
            options["label"] += ", for comparison"
            distance.plot(rows.depth, rows.distance, **options)
        else:
            figures.decay(distance, i, gamma, rows.depth, rows.distance)
        error.errorbar(rows.depth, rows.error, np.nan_to_num(rows.error_se), capsize=3, **options)
    error.axhline(1, color="k", ls=":", lw=1)
    distance.set_ylabel("max |r(θ) − 1/4| (dashed: predicted rate)")
    error.set(xscale="log", yscale="log", xlabel="depth L")
    error.set_ylabel("relative test error (dotted: the mean)")
    return figures.finish(figure)
