"""With γ > 1/2 the limit has no odd harmonics from degree 3 on; with γ = 1/2 it has all."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nt_residual import rntk, schedules, theory
from nt_residual.experiments import figures, sphere_regression
from nt_residual.experiments.claim import Finding, Result, table

TITLE = "Odd harmonics are learned with γ = 1/2, not with γ > 1/2"
STATEMENT = (
    "The limit for γ > 1/2 is the kernel of one hidden layer without biases. It has no harmonics "
    "of odd degree from 3 on, so on a sphere no number of points suffices to learn them. The limit "
    "for γ = 1/2 has all harmonics. The paper does not say so, but it follows from the limits."
)
QUICK = {"sizes": (64, 128, 256, 512), "n_seeds": 2}
FULL = {"sizes": (64, 128, 256, 512, 1024, 2048, 4096), "n_seeds": 10}
_GAMMAS = (0.5, 1.0)
_DIM, _DEGREE = 3, 3


def run(
    sizes: Sequence[int] = QUICK["sizes"],
    *,
    depths: Sequence[int | float] = (1000, math.inf),
    n_test: int = 1000,
    n_seeds: int = 2,
) -> Result:
    """Learn a harmonic of degree 3 on the sphere in three dimensions, without noise.

    Args:
      sizes: numbers of training points, ascending.
      depths: the numbers of blocks, infinity among them.
      n_test: test points.
      n_seeds: the number of sets of points to average the error over.

    Returns:
      A row per number of points, γ, of 1/2 and 1, and depth:

      * `gamma`, γ in α = L^(−γ), `depth` and `n_train`;
      * `error`, the mean of `sphere_regression.best_error` over seeds, and `error_se`, its standard
        error, NaN for one seed;
      * `eigenvalue`, λ_3 on the sphere in three dimensions at infinite depth.
    """
    if math.inf not in depths:
        raise ValueError(f"depths must have infinity among them, got {depths}. Add math.inf.")
    # P_k has the mean square 1/(2k + 1).
    target = {"dim": _DIM, "coefficients": {_DEGREE: math.sqrt(2 * _DEGREE + 1)}}
    rows = []
    for n in sorted(sizes):
        sets = sphere_regression.draw_sets(n_seeds, n, n_test=n_test, **target)
        for gamma in _GAMMAS:
            limit = rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma))
            eigenvalue = theory.spectrum(limit, _DIM, _DEGREE).eigenvalue[_DEGREE]
            for depth in depths:
                error, error_se = sphere_regression.best_error(limit.at_depth(depth), sets)
                row = {"gamma": gamma, "depth": depth, "n_train": n, "error": error}
                rows.append(row | {"error_se": error_se, "eigenvalue": float(eigenvalue)})
    return Result(table(rows))


def findings(result: Result) -> list[Finding]:
    """Return the predictions beside measurements."""
    learned, unlearned = (result.of(gamma=gamma, depth=math.inf) for gamma in _GAMMAS)
    least = unlearned.error.min()
    most, first, last = unlearned[-1].n_train, learned[0], learned[-1]
    zero, positive = abs(unlearned[0].eigenvalue), learned[0].eigenvalue
    return [
        Finding(
            claim="The eigenvalue of degree 3 is zero for γ > 1/2 and positive for γ = 1/2 "
            "(criterion: below 1e-9, above 1e-3).",
            measured=f"On S² it is {zero:.1g} for γ = 1 and {positive:.4f} for γ = 1/2.",
            agrees=bool(zero < 1e-9 and positive > 1e-3),
        ),
        Finding(
            claim="γ = 1 at infinite depth does not learn a target of degree 3, from any number of "
            "points, at any stopping time (criterion: relative test error above 0.9).",
            measured=f"Up to {most} points the relative test error is {least:.3f} or more.",
            agrees=bool(least > 0.9),
        ),
        Finding(
            claim="γ = 1/2 at infinite depth learns it (criterion: relative test error below 0.1, "
            "falling).",
            measured=f"It goes from {first.error:.2g} with {first.n_train} points to "
            f"{last.error:.2g} with {most}.",
            agrees=bool(last.error < 0.1 and all(np.diff(learned.error) < 0)),
        ),
    ]


def plot(result: Result) -> Any:
    """Draw test error against the number of points, for each kernel."""
    figure, (axes,) = figures.panels(1)
    depths = list(dict.fromkeys(result.rows.depth.tolist()))
    for i, gamma in enumerate(_GAMMAS):
        for j, depth in enumerate(depths):
            rows = result.of(gamma=gamma, depth=depth)
            style = {**figures.style(j), "color": f"C{i}", "ls": "-" if j == 0 else "--"}
            style["label"] = f"γ = {gamma:g}, L = {figures.depth(depth)}"
            bars = np.nan_to_num(rows.error_se)
            axes.errorbar(rows.n_train, rows.error, bars, capsize=3, **style)
    axes.axhline(1, color="k", ls=":", lw=1)
    axes.set(xscale="log", yscale="log", xlabel="training points n")
    axes.set_ylabel("relative test error of P₃ (dotted: the mean)")
    return figures.finish(figure)
