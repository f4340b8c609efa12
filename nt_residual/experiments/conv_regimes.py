"""The regimes of depth for convolutional kernels between images, by α."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from nt_residual import _checks, conv, data, schedules, theory
from nt_residual.experiments import early_stopping, figures
from nt_residual.experiments.degeneration import CONSTANT

GAMMAS = (0.0, 0.25, 0.5, 1.0)
DEPTHS = (1, 3, 10, 32, 100, 316, 1000)


@dataclasses.dataclass(frozen=True)
class Row:
    """The kernel of one network between different images.

    Entries are relative to norms, k(x, x')/√(k(x, x) k(x', x')).

    Attributes:
      gamma: γ in α = L^(−γ).
      depth: the number of blocks L.
      effective_time: T = Σ log(1 + α²) at this depth.
      regime: the regime of this γ.
      mean: the mean of the entries.
      spread: their standard deviation, divided by `mean`.
      distance: the largest distance of an entry to its limit, which is 1/4 in the degenerate
        regime and else the entry of the kernel of infinite depth.
    """

    gamma: float
    depth: int
    effective_time: float
    regime: str
    mean: float
    spread: float
    distance: float


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of `run`.

    Attributes:
      rows: one per γ and depth, depths ascending for each γ.
    """

    rows: list[Row]


def run(
    depths: Sequence[int] = DEPTHS,
    gammas: Sequence[float] = GAMMAS,
    *,
    n_images: int = 30,
    seed: int = 0,
    progress: bool = False,
) -> Result:
    """Compute kernels between handwritten digits up to great depth, for each γ.

    The last layer sees all pixels ('flatten'), and padding is circular, which keeps norms.
    As T = Σ log(1 + α²) says, convolutional networks have the regimes of fully-connected ones:

        γ < 1/2    T → ∞    entries between different images tend to 1/4: averages over
                            filters even out differences between pixels, and then the kernel of
                            each pixel degenerates like that of a fully-connected network;
        γ = 1/2    T → 1    entries tend to those of a limit, like 1/L;
        γ > 1/2    T → 0    entries tend to those of one block, like T.

    With the defaults it takes less than a minute on two cores.

    Args:
      depths: the numbers of residual blocks L, finite.
      gammas: the exponents γ.
      n_images: the number of digits, at least 10.
      seed: of the choice of digits.
      progress: whether to show a progress bar.

    Returns:
      A row per γ and depth.

    Raises:
      TypeError, ValueError: if an argument is out of range.
      ImportError: if scikit-learn is missing.

    Example:
      >>> result = run(depths=[8], gammas=[0.0])  # doctest: +SKIP
      >>> result.rows[0].regime  # doctest: +SKIP
      'degenerate'
    """
    remedy = "Pass finite numbers of blocks: they are compared with infinite depth."
    depths = sorted({_checks.integer(depth, "each of depths", 1, remedy) for depth in depths})
    _checks.integer(n_images, "n_images", 10, "Pass the number of digits.")
    progress = _checks.boolean(progress, "progress")
    images = early_stopping.normalized(data.load("digits", n_images, seed=seed).x_train)
    rows, bar = [], tqdm(total=len(gammas) * len(depths), desc="kernels", disable=not progress)
    for gamma in gammas:
        schedule = schedules.PowerLaw(gamma)
        regime = theory.regime(schedule).name
        kernel = conv.ResidualKernel(depths[0], schedule, images.shape[1:3], padding="CIRCULAR")
        limit = CONSTANT if regime == "degenerate" else _relative(kernel.at_depth(math.inf)(images))
        for depth in depths:
            deep = kernel.at_depth(depth)
            entries = _relative(deep(images))
            mean, spread = float(entries.mean()), float(entries.std() / entries.mean())
            distance = float(np.abs(entries - limit).max())
            rows.append(
                Row(schedule.gamma, depth, deep.effective_time, regime, mean, spread, distance)
            )
            bar.update()
    bar.close()
    return Result(rows)


def _relative(matrix: Any) -> np.ndarray:
    """Return the entries above the diagonal, divided by the norms of both images."""
    matrix = np.asarray(matrix, np.float64)
    norms = np.sqrt(np.diag(matrix))
    return (matrix / norms / norms[:, None])[np.triu_indices(len(matrix), 1)]


def plot(result: Result) -> Any:
    """Draw the distance of the kernel to its limit, its mean and its spread, against depth.

    Returns a `matplotlib.figure.Figure`. Dashed lines are `theory.rate`, through the last point.
    """
    figure, (distance, mean, spread) = figures.panels(3)
    draw_distance(distance, result)
    for i, rows in enumerate(_by_gamma(result)):
        depths = [row.depth for row in rows]
        mean.plot(depths, [row.mean for row in rows], **figures.style(i))
        spread.plot(depths, [row.spread for row in rows], **figures.style(i))
    mean.axhline(CONSTANT, color="k", ls=":", lw=1)
    mean.set(xscale="log", ylim=(0, None), title="mean kernel between images (dotted: 1/4)")
    spread.set(xscale="log", yscale="log", title="standard deviation divided by the mean")
    return figures.finish(figure)


def draw_distance(axes: Any, result: Result) -> None:
    """Draw the distance to the limit against depth into one of matplotlib's axes."""
    for i, rows in enumerate(_by_gamma(result)):
        depths, distances = zip(*((row.depth, row.distance) for row in rows), strict=True)
        figures.decay(axes, i, rows[0].gamma, depths, distances)
    # For γ > 1/2 one block is the limit, but for rounding.
    axes.set(ylim=(3e-5, 2), title="largest distance to the limit (dashed: predicted rate)")
    axes.legend(fontsize="small")


def _by_gamma(result: Result) -> list[list[Row]]:
    gammas = dict.fromkeys(row.gamma for row in result.rows)
    return [[row for row in result.rows if row.gamma == gamma] for gamma in gammas]
