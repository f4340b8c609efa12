"""Classification of images with early-stopped kernel regression, for several depths and α."""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from nt_residual import _checks, data, rntk, schedules
from nt_residual.experiments import early_stopping, figures, record
from nt_residual.experiments.claim import Finding, Result, table
from nt_residual.experiments.early_stopping import TIMES

TITLE = "Classification of images"
STATEMENT = (
    "The theory of the kernels holds on real images: early-stopped regression with γ ≥ 1/2 keeps "
    "its accuracy however deep the network is, and with γ < 1/2 loses it."
)
QUICK = {
    "gammas": (0.0, 0.25, 0.5, 1.0),
    "depths": (10, 1000, 100_000, math.inf),
    "sizes": (600,),
}
FULL = QUICK | {
    "gammas": (0.0, 0.1, 0.25, 0.4, 0.5, 0.75, 1.0),
    "depths": (10, 100, 1000, 10_000, 100_000, math.inf),
    "sizes": (200, 600, 1400),
}
# For data sets of 60,000 images.
LARGE = {
    "quick": {
        "gammas": (0.0, 0.5, 1.0),
        "depths": (10, 100_000),
        "sizes": (60_000,),
        "landmarks": 4000,
    },
    "full": {
        "gammas": (0.0, 0.25, 0.5, 0.75, 1.0),
        "depths": (1, 10, 100, 1000, 100_000, math.inf),
        "sizes": (1000, 2000, 4000, 60_000),
        "landmarks": 4000,
    },
}


@dataclasses.dataclass(frozen=True)
class Accuracies(Result):
    """The accuracies that `run` measures.

    Attributes:
      curves: the test accuracy at each of `early_stopping.TIMES`, shape (len(rows), T).
    """

    curves: np.ndarray


def run(
    dataset: str = "digits",
    *,
    gammas: Sequence[float] = QUICK["gammas"],
    depths: Sequence[int | float] = QUICK["depths"],
    sizes: Sequence[int | None] = QUICK["sizes"],
    landmarks: int = 4000,
    label_noise: Sequence[float] = (0.0, 0.2),
    n_test: int | None = None,
    root: str | os.PathLike | None = None,
    seed: int = 0,
    out: str | os.PathLike | None = None,
    progress: bool = False,
) -> Accuracies:
    """Classify images with the kernels of fully-connected residual networks.

    Gradient flow fits each kernel to one-hot labels. It stops at the time with the least squared
    error on validation images: a quarter of the training set, but at most 6000. Images are centered
    by the mean of the training images, and scaled to unit norm.

    Args:
      dataset: a name of `data.load`.
      gammas: the exponents γ.
      depths: the numbers of blocks, ascending, `math.inf` for the limit.
      sizes: numbers of images to train and validate on, ascending, `None` for all.
      landmarks: the number of landmarks (`gram.LowRank`, centers of clusters). They are used for
        more training images than this; fewer images are fitted with the whole matrix.
      label_noise: fractions of training and validation labels to replace, in [0, 1).
      n_test: the number of images to test on, `None` for all.
      root: the folder with the files of the data set, as for `data.load`.
      seed: the seed of the choice and split of images, and of the noise.
      out: a new folder, or the folder of an earlier run of the same configuration, whose kernels
        are not fitted again.
      progress: whether to show a progress bar.

    Returns:
      A row per number of images, kernel and fraction of noise:

      * `depth` and `gamma`, γ in α = L^(−γ); `effective_time`, T = Σ log(1 + α²); and `regime`,
        the regime of this γ;
      * the columns of `early_stopping.evaluate`.

    It raises the errors of `data.load`, of `gram.LowRank` and of the kernels.
    """
    progress = _checks.boolean(progress, "progress")
    kernels = [rntk.ResidualKernel(d, schedules.PowerLaw(g)) for g in gammas for d in depths]
    config = {"dataset": dataset, "landmarks": landmarks, "n_test": n_test, "seed": seed}
    config |= {"label_noise": record.plain(tuple(label_noise))}
    found = []
    with record.kept(out, config) as (done, keep):
        for size in sizes:
            images = data.load(dataset, size, n_test, root=root, seed=seed)
            sets = early_stopping.split(images, label_noise, seed)
            centers = early_stopping.landmarks(kernels[0], sets, landmarks)
            bar = {"desc": f"{len(images.x_train)} images", "leave": False}
            for kernel in tqdm(kernels, **bar, disable=not progress):
                of_kernel = early_stopping.of_kernel(kernel)
                # At depth 1, and at infinite depth, several γ give the same kernel.
                name = f"{len(images.x_train)} images, depth {kernel.depth}, "
                name += f"T {of_kernel['effective_time']:.6g}"
                if name not in done:
                    keep(name, {"fits": early_stopping.evaluate(kernel, sets, centers)})
                found += [(of_kernel | row, curve) for row, curve in done[name]["fits"]]
    return Accuracies(table([row for row, _ in found]), np.array([curve for _, curve in found]))


def findings(result: Accuracies) -> list[Finding]:
    """Compare the predictions of the paper with measurements, for the largest training set."""
    rows, found = result.of(n_train=max(result.rows.n_train)), []
    for noise in dict.fromkeys(rows.label_noise.tolist()):
        noisy = rows[rows.label_noise == noise]
        for gamma in dict.fromkeys(noisy.gamma.tolist()):
            mine = noisy[noisy.gamma == gamma]
            # The limit for γ < 1/2 is a constant kernel by definition: its accuracy proves nothing.
            mine = mine if gamma >= 0.5 else mine[mine.depth < math.inf]
            if len(mine):
                found.append(early_stopping.by_depth(figures.noise(noise), gamma, mine))
    # A fit with landmarks does not interpolate: they make the kernel smoother, as stopping does.
    whole = result.of(landmarks=0)
    whole = whole[(whole.gamma >= 0.5) & (whole.label_noise > 0)]
    if len(whole):
        found.append(_gain(whole[whole.n_train == max(whole.n_train)]))
    return found


def _gain(rows: Any) -> Finding:
    gains = rows.test_accuracy - rows.test_accuracy_at_infinity
    return Finding(
        claim=f"With wrong labels and {rows.n_train[0]} training images, early stopping is better "
        "than interpolation, for γ ≥ 1/2 (criterion: with every kernel).",
        measured=f"It gains {100 * min(gains):.1f} to {100 * max(gains):.1f} points of accuracy.",
        agrees=bool(min(gains) > 0),
    )


def plot(result: Accuracies) -> Any:
    """Draw test accuracy against depth for the largest training set, a panel per noise.

    If there are several sizes, a second row of panels shows the accuracy against the number of
    images: at the largest depth for γ ≥ 1/2, and at the largest finite depth for γ < 1/2, where
    the limit is constant.
    """
    noises = list(dict.fromkeys(result.rows.label_noise.tolist()))
    sizes = sorted(set(result.rows.n_train))
    figure, panels = figures.panels(len(noises), 1 + (len(sizes) > 1), sharey=True)
    for k, noise in enumerate(noises):
        rows = result.of(label_noise=noise)
        figures.by_depth(panels[k], rows[rows.n_train == sizes[-1]])
        panels[k].set_title(f"{figures.noise(noise)}, {sizes[-1]} images")
        for axes in panels[k + len(noises) :: len(noises)]:
            for i, gamma in enumerate(sorted(set(rows.gamma))):
                mine = rows[rows.gamma == gamma]
                kept = [d for d in mine.depth if gamma >= 0.5 or d < math.inf]
                depth = max(kept, default=math.inf)
                mine = mine[mine.depth == depth]
                label = f"γ = {gamma:g}, L = {figures.depth(depth)}"
                for column, ls in (("test_accuracy", "-"), ("test_accuracy_at_infinity", ":")):
                    style = {"ls": ls, "label": label if ls == "-" else None, **figures.style(i)}
                    axes.plot(mine.n_train, 100 * mine[column], **style)
            axes.set(xscale="log", xlabel="training images", title=figures.noise(noise))
    for axes in panels[:: len(noises)]:
        axes.set_ylabel("test accuracy (%), dotted: at t = ∞")
    return figures.finish(figure)


def plot_times(result: Accuracies) -> Any:
    """Draw test accuracy against stopping time, a panel per depth, a curve per γ.

    Curves are for the largest training set and the largest noise.
    """
    largest = {name: max(result.rows[name]) for name in ("n_train", "label_noise")}
    depths = list(dict.fromkeys(result.rows.depth.tolist()))
    gammas = list(dict.fromkeys(result.rows.gamma.tolist()))
    figure, panels = figures.panels(len(depths), sharey=True)
    for row, accuracy in zip(result.rows, result.curves, strict=True):
        if any(row[name] != value for name, value in largest.items()):
            continue
        axes, i = panels[depths.index(row.depth)], gammas.index(row.gamma)
        # Curves may coincide: every second one is dashed, and shows the one below it.
        line = {"color": f"C{i}", "lw": 2, "ls": (0, (3, 2)) if i % 2 else "-"}
        axes.plot(TIMES[:-1], 100 * accuracy[:-1], label=f"γ = {row.gamma:g}", **line)
        if math.isfinite(row.stopping_time):
            axes.plot(row.stopping_time, 100 * row.test_accuracy, "o", color=f"C{i}", ms=7)
    for axes, depth in zip(panels, depths, strict=True):
        axes.set_title(f"depth L = {figures.depth(depth)}, α = L$^{{-γ}}$")
        axes.set(xscale="log", xlabel="stopping time t (dot: chosen on validation)", ylim=(0, 102))
    panels[0].set_ylabel("test accuracy (%)")
    return figures.finish(figure)
