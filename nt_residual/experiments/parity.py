"""With γ > 1/2 the limit has no odd harmonics from degree 3 on; with γ = 1/2 it has all."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nt_residual import rntk, schedules, theory
from nt_residual.experiments import figures, sphere_regression
from nt_residual.experiments.claim import Finding

TITLE = "Odd harmonics are learned with γ = 1/2, not with γ > 1/2"
STATEMENT = (
    "The kernel of one hidden layer without biases, the limit for γ > 1/2, has no harmonics of "
    "odd degree from 3 on, so on a sphere it cannot learn them from any number of points. The "
    "limit for γ = 1/2 has them all. This follows from the limits; the paper does not speak of it."
)
QUICK = {"sizes": (64, 128, 256, 512), "n_seeds": 2}
FULL = {"sizes": (64, 128, 256, 512, 1024, 2048, 4096), "n_seeds": 10}
_GAMMAS = (0.5, 1.0)
_DIM, _DEGREE = 3, 3


@dataclasses.dataclass(frozen=True)
class Row:
    """Regression of one harmonic.

    Attributes:
      gamma: γ in α = L^(−γ).
      depth: the number of blocks, or infinity.
      n_train: training points.
      error: the mean of `sphere_regression.best_error` over seeds.
      error_se: its standard error, NaN for one seed.
    """

    gamma: float
    depth: int | float
    n_train: int
    error: float
    error_se: float


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of `run`.

    Attributes:
      rows: one per γ, depth and number of points.
      eigenvalues: λ_3 on the sphere in three dimensions, by γ, at infinite depth.
    """

    rows: list[Row]
    eigenvalues: dict[float, float]

    def of(self, gamma: float, depth: int | float) -> list[Row]:
        """Return the rows of one kernel, by number of points."""
        return [row for row in self.rows if (row.gamma, row.depth) == (gamma, depth)]


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
      A row per γ, of 1/2 and 1, depth and number of points.

    Raises:
      TypeError, ValueError: if an argument is out of range.

    Example:
      >>> found = run([512], depths=[math.inf])  # doctest: +SKIP
      >>> abs(found.eigenvalues[1.0]) < 1e-12 < found.eigenvalues[0.5]  # doctest: +SKIP
      True
    """
    if math.inf not in depths:
        raise ValueError(f"depths must have infinity among them, got {depths}. Add math.inf.")
    # P_k has the mean square 1/(2k + 1).
    target = {_DEGREE: math.sqrt(2 * _DEGREE + 1)}
    kernels = {
        (gamma, depth): rntk.ResidualKernel(depth, schedules.PowerLaw(gamma))
        for gamma in _GAMMAS
        for depth in depths
    }
    rows = []
    for n in sorted(sizes):
        sets = sphere_regression.draw_sets(n_seeds, n, n_test, _DIM, target)
        for (gamma, depth), kernel in kernels.items():
            rows.append(Row(gamma, depth, n, *sphere_regression.best_error(kernel, sets)))
    eigenvalues = {
        gamma: float(theory.spectrum(kernels[gamma, math.inf], _DIM, _DEGREE).eigenvalue[_DEGREE])
        for gamma in _GAMMAS
    }
    return Result(rows, eigenvalues)


def findings(result: Result) -> list[Finding]:
    """Return the predictions beside measurements.

    Example:
      >>> rows = [Row(g, math.inf, n, g, 0.0) for g in (0.5, 1.0) for n in (64, 128)]
      >>> [f.agrees for f in findings(Result(rows, {0.5: 0.006, 1.0: 0.0}))]
      [True, True, False]
    """
    learned, unlearned = (result.of(gamma, math.inf) for gamma in _GAMMAS)
    least = min(row.error for row in unlearned)
    most = unlearned[-1].n_train
    return [
        Finding(
            claim="The eigenvalue of degree 3 is zero for γ > 1/2 and positive for γ = 1/2 "
            "(criterion: below 1e-9, above 1e-3).",
            measured=f"On S² it is {abs(result.eigenvalues[1.0]):.1g} for γ = 1 and "
            f"{result.eigenvalues[0.5]:.4f} for γ = 1/2.",
            agrees=abs(result.eigenvalues[1.0]) < 1e-9 and result.eigenvalues[0.5] > 1e-3,
        ),
        Finding(
            claim="γ = 1, infinite depth, does not learn a target of degree 3, from any number of "
            "points, at any stopping time (criterion: relative test error above 0.9).",
            measured=f"Up to {most} points the relative test error is {least:.3f} or more.",
            agrees=least > 0.9,
        ),
        Finding(
            claim="γ = 1/2, infinite depth, learns it (criterion: relative test error below 0.1, "
            "falling).",
            measured=f"It goes from {learned[0].error:.2g} with {learned[0].n_train} points to "
            f"{learned[-1].error:.2g} with {most}.",
            agrees=learned[-1].error < 0.1 and all(np.diff([row.error for row in learned]) < 0),
        ),
    ]


def plot(result: Result) -> Any:
    """Draw test error against the number of points, for each kernel.

    Returns a `matplotlib.figure.Figure`.
    """
    figure, (axes,) = figures.panels(1)
    depths = list(dict.fromkeys(row.depth for row in result.rows))
    for i, gamma in enumerate(_GAMMAS):
        for j, depth in enumerate(depths):
            rows = result.of(gamma, depth)
            style = {**figures.style(j), "color": f"C{i}", "ls": "-" if j == 0 else "--"}
            bars = np.nan_to_num([row.error_se for row in rows])
            axes.errorbar(
                [row.n_train for row in rows],
                [row.error for row in rows],
                bars,
                capsize=3,
                label=f"γ = {gamma:g}, L = {figures.depth(depth)}",
                **style,
            )
    axes.axhline(1, color="k", ls=":", lw=1)
    axes.set(xscale="log", yscale="log", xlabel="training points n")
    axes.set_ylabel("relative test error of P₃ (dotted: the mean)")
    return figures.finish(figure)
