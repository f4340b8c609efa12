"""What becomes of the kernel between images as a convolutional ResNet gets deeper, by its α."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from nt_residual import _checks, conv, data, schedules, theory

GAMMAS = (0.0, 0.25, 0.5, 1.0)
DEPTHS = (1, 3, 10, 32, 100, 316, 1000)
_SHAPE = (8, 8)
# What the kernel between different images tends to, relative to their norms, if T → ∞.
_CONSTANT = 0.25


@dataclasses.dataclass(frozen=True)
class Row:
    """The kernel of one network, between different images.

    Entries are relative to norms, k(x, x')/√(k(x, x) k(x', x')).

    Attributes:
      depth: the number of blocks L.
      gamma: γ in α = L^(−γ).
      effective_time: T = Σ log(1 + α²) at this depth.
      regime: what this γ leads to as the depth grows.
      diagonal: the mean of k(x, x).
      mean: that of entries.
      spread: their standard deviation, divided by `mean`.
      to_constant: the largest distance of an entry to 1/4.
      to_limit: that to its limit, which is 1/4 in the degenerate regime and else the kernel of
        infinite depth.
    """

    depth: int
    gamma: float
    effective_time: float
    regime: str
    diagonal: float
    mean: float
    spread: float
    to_constant: float
    to_limit: float


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of `run`.

    Attributes:
      rows: one per γ and depth, depths ascending for each γ.
      n_images: how many images the kernel was computed between.
    """

    rows: list[Row]
    n_images: int


def run(
    depths: Sequence[int] = DEPTHS,
    gammas: Sequence[float] = GAMMAS,
    *,
    n_images: int = 30,
    padding: Literal["SAME", "CIRCULAR"] = "CIRCULAR",
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = lambda kernels: kernels,
) -> Result:
    """Follows the kernel between handwritten digits to great depth, for each γ.

    The kernel is that of the blocks of a network with α = L^(−γ), whose last layer sees all
    pixels ('flatten'). As T = Σ log(1 + α²) says, convolutional networks have the
    regimes of fully-connected ones:

        γ < 1/2    T → ∞    entries between different images tend to 1/4: averages over
                            filters even out what distinguishes pixels, and then each pixel's
                            kernel degenerates like that of a fully-connected network;
        γ = 1/2    T → 1    they tend to those of a limit, like 1/L;
        γ > 1/2    T → 0    they tend to those of one block, like T.

    Entries are relative to norms, k(x, x')/√(k(x, x) k(x', x')). Norms stay as they are with
    circular padding. With zeros around the images each convolution loses some at the borders, so
    that k(x, x) falls like exp(−c T), but the regimes are the same. With the defaults it takes
    less than a minute on two cores.

    Args:
      depths: the numbers of residual blocks L, finite.
      gammas: the exponents γ.
      n_images: the number of digits, at least 10.
      padding: 'SAME', with zeros, or 'CIRCULAR'.
      seed: of the choice of digits.
      progress: wraps the sequence of kernels, to show a progress bar.

    Returns:
      A row per γ and depth.

    Raises:
      TypeError, ValueError: if an argument is out of range.
      ImportError: if scikit-learn is missing.

    Example:
      >>> result = run(depths=[8], gammas=[0.0], n_images=10)
      >>> round(result.rows[0].mean, 2)
      0.46
    """
    remedy = "Pass finite numbers of blocks: ∞ is what they are compared with."
    depths = sorted({_checks.integer(depth, "each of depths", 1, remedy) for depth in depths})
    _checks.integer(n_images, "n_images", 10, "Pass the number of digits.")
    alphas = [schedules.PowerLaw(gamma) for gamma in gammas]
    kernels = [
        conv.ResidualKernel(depth, alpha, _SHAPE, padding=padding)
        for alpha in alphas
        for depth in depths
    ]
    digits = data.load("digits", n_images, seed=seed)
    # Of mean square 1.
    images = 8 * data.unit_norm(digits.x_train).reshape(-1, *_SHAPE, 1)
    limits, rows = {}, []
    for kernel in progress(kernels):
        if kernel.schedule not in limits:
            limits[kernel.schedule] = _limit(kernel, images)
        rows.append(_row(kernel, images, limits[kernel.schedule]))
    return Result(rows, len(images))


def _limit(kernel: Any, images: np.ndarray) -> np.ndarray | float:
    """What entries between different images tend to, as the depth grows."""
    if theory.regime(kernel.schedule).name == "degenerate":
        return _CONSTANT
    return _relative(np.asarray(kernel.at_depth(math.inf)(images), np.float64))


def _row(kernel: Any, images: np.ndarray, limit: np.ndarray | float) -> Row:
    matrix = np.asarray(kernel(images), np.float64)
    entries = _relative(matrix)
    mean = entries.mean()
    return Row(
        depth=kernel.depth,
        gamma=kernel.schedule.gamma,
        effective_time=kernel.effective_time,
        regime=theory.regime(kernel.schedule).name,
        diagonal=float(np.diag(matrix).mean()),
        mean=float(mean),
        spread=float(entries.std() / mean),
        to_constant=float(np.abs(entries - _CONSTANT).max()),
        to_limit=float(np.abs(entries - limit).max()),
    )


def _relative(matrix: np.ndarray) -> np.ndarray:
    """Entries above the diagonal, each divided by the norms of its two images."""
    norms = np.sqrt(np.diag(matrix))
    return (matrix / norms / norms[:, None])[np.triu_indices(len(matrix), 1)]


def plot(result: Result) -> Any:
    """Draws the distance of the kernel to its limit, its mean and its spread, against depth.

    Args:
      result: what `run` returned.

    Returns:
      A `matplotlib.figure.Figure`. Dashed lines are `theory.rate`, through the last point.

    Raises:
      ImportError: if matplotlib is missing.
    """
    figure = theory.plots.new_figure(13, 4)
    distance, mean, spread = figure.subplots(1, 3)
    draw_distance(distance, result)
    for i, rows in enumerate(_by_gamma(result)):
        depths = [row.depth for row in rows]
        mean.plot(depths, [row.mean for row in rows], **_style(i))
        spread.plot(depths, [row.spread for row in rows], **_style(i))
    mean.axhline(_CONSTANT, color="k", ls=":", lw=1)
    mean.set(ylim=(0, None), title="mean kernel between images (dotted: 1/4)")
    spread.set(yscale="log", title="its standard deviation, divided by the mean")
    for axes in (mean, spread):
        axes.set(xscale="log", xlabel="depth L")
        axes.grid(alpha=0.3)
    return figure


def draw_distance(axes: Any, result: Result) -> None:
    """Draws the distance to the limit against depth into one of matplotlib's axes.

    Dashed lines are `theory.rate`, through the last point.
    """
    for i, rows in enumerate(_by_gamma(result)):
        depths, errors = np.array([(row.depth, row.to_limit) for row in rows]).T
        axes.plot(depths, errors, label=f"γ = {rows[0].gamma:g}", **{**_style(i), "ls": ""})
        if (rate := theory.rate(schedules.PowerLaw(rows[0].gamma))) is not None:
            axes.plot(depths, rate(depths) * errors[-1] / rate(depths)[-1], f"C{i}--", lw=1.2)
    # For γ > 1/2 one block is the limit, but for rounding.
    axes.set(xscale="log", yscale="log", ylim=(3e-5, 2), xlabel="depth L")
    axes.set_title("largest distance to the limit (dashed: predicted rate)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _by_gamma(result: Result) -> list[list[Row]]:
    gammas = dict.fromkeys(row.gamma for row in result.rows)
    return [[row for row in result.rows if row.gamma == gamma] for gamma in gammas]


def _style(i: int) -> dict[str, Any]:
    # Hollow and smaller each time, so that none hides another.
    shape = {"marker": "os^D"[i % 4], "ms": max(3.0, 8.0 - 1.5 * i), "mfc": "none"}
    return {"color": f"C{i}", "ls": "-", **shape}
