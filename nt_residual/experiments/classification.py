"""Classification of images by depth and α, with early-stopped kernel regression."""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from nt_residual import _checks, conv, data, rntk, schedules
from nt_residual.experiments import early_stopping, figures
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
    "conv_gammas": (0.5, 1.0),
    "conv_depths": (1, 10, 100),
    "n_train": 600,
    "n_conv": 200,
    "label_noise": 0.2,
}
FULL = QUICK | {
    "gammas": (0.0, 0.1, 0.25, 0.4, 0.5, 0.75, 1.0),
    "depths": (10, 100, 1000, 10_000, 100_000, math.inf),
    # With a constant α accuracy is lost where fully-connected networks lose it, beyond 1000 blocks.
    "conv_gammas": (0.0, 0.5, 1.0),
    "conv_depths": (10, 100, 1000, 10_000),
    "n_train": 1400,
    "n_conv": 500,
}


@dataclasses.dataclass(frozen=True)
class Accuracies(Result):
    """The outcome of `run`.

    Attributes:
      test_accuracy: at each of `early_stopping.TIMES`, shape (len(rows), T).
      label_noise: the fraction of training and validation labels that were replaced.
      sizes: the numbers of training, validation and test images of fully-connected networks.
    """

    test_accuracy: np.ndarray
    label_noise: float
    sizes: dict[str, int]


def run(
    dataset: str = "digits",
    *,
    gammas: Sequence[float] = QUICK["gammas"],
    depths: Sequence[int | float] = QUICK["depths"],
    conv_gammas: Sequence[float] = QUICK["conv_gammas"],
    conv_depths: Sequence[int | float] = QUICK["conv_depths"],
    n_train: int | None = 600,
    n_conv: int | None = 200,
    n_test: int | None = None,
    pooling: Literal["flatten", "gap"] = "flatten",
    label_noise: float = 0.2,
    root: str | os.PathLike | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Accuracies:
    """Classify images with the kernels of fully-connected and convolutional residual networks.

    Gradient flow fits each kernel to one-hot labels. It stops at the time with the least squared
    error on validation images, a quarter of the training set.

    Args:
      dataset: a name of `data.load`.
      gammas: the exponents γ of fully-connected networks.
      depths: their numbers of blocks, ascending, `math.inf` for the limit.
      conv_gammas: the exponents γ of convolutional networks, none to leave these out.
      conv_depths: their numbers of blocks, ascending. The limit, `math.inf`, is computed for
        γ ≥ 1/2 only.
      n_train: images to train and validate fully-connected networks on, `None` for all.
      n_conv: likewise for convolutional networks. The time grows with its square.
      n_test: images to test on, `None` for all.
      pooling: 'flatten', or 'gap' for global average pooling, which takes about as many times as
        long as an image has pixels.
      label_noise: the fraction of training and validation labels to replace, in [0, 1).
      root: the folder with the files of the data set, as for `data.load`.
      seed: of the choice and split of images, and of the noise.
      progress: whether to show a progress bar.

    Returns:
      A row per kernel:

      * `network`, 'fully connected' or 'convolutional', `depth` and `gamma`, γ in α = L^(−γ);
      * `effective_time`, T = Σ log(1 + α²), and `regime`, that of this γ;
      * `stopping_time`, the time with the least squared error on validation images;
      * `validation_accuracy` and `test_accuracy` at that time, and `test_accuracy_at_infinity`,
        that of the interpolant, in [0, 1].

    Errors are those of `data.load` and of the kernels.
    """
    progress = _checks.boolean(progress, "progress")
    images = data.load(dataset, n_train, n_test, root=root, seed=seed)
    flat = early_stopping.split(images, label_noise, seed)
    work: list[tuple[Any, early_stopping.Sets]] = [
        (rntk.ResidualKernel(depth, schedules.PowerLaw(gamma)), flat)
        for gamma in gammas
        for depth in depths
    ]
    if conv_gammas and conv_depths:
        images = data.load(dataset, n_conv, n_test, root=root, seed=seed)
        sets, shape = early_stopping.split(images, label_noise, seed), images.x_train.shape[1:3]
        work += [
            (conv.ResidualKernel(d, schedules.PowerLaw(gamma), shape, pooling=pooling), sets)
            for gamma in conv_gammas
            for d in conv_depths
            if d != math.inf or gamma >= 0.5
        ]
    kernels = tqdm(work, desc="kernels", leave=False, disable=not progress)
    evaluated = [early_stopping.evaluate(kernel, sets) for kernel, sets in kernels]
    return Accuracies(
        rows=table([row for row, _ in evaluated]),
        test_accuracy=np.array([curve for _, curve in evaluated]),
        label_noise=label_noise,
        sizes={name: len(labels) for name, (_, labels) in flat.items()},
    )


def findings(result: Accuracies) -> list[Finding]:
    """Return the predictions of the paper beside measurements."""
    found, kinds = [], dict.fromkeys(result.rows[["network", "gamma"]].tolist())
    for network, gamma in kinds:
        rows = result.of(network=network, gamma=gamma)
        # The limit of γ < 1/2 is a constant by definition: its accuracy proves nothing.
        rows = rows if gamma >= 0.5 else rows[rows.depth < math.inf]
        if len(rows):
            found.append(_by_depth(f"{network.capitalize()}, γ = {gamma:g}", gamma >= 0.5, rows))
    if result.label_noise and any(gamma >= 0.5 for _, gamma in kinds):
        found.append(_gain(result))
    return found


def _by_depth(name: str, kept: bool, rows: Any) -> Finding:
    accuracy, deepest = rows.test_accuracy, rows[-1].depth
    steps = [f"{row.test_accuracy:.1%} at {figures.depth(row.depth)}" for row in rows]
    kept_claim = "the accuracy does not depend on depth (criterion: within 3 points)."
    lost_claim = (
        f"accuracy falls with depth, for which {deepest} blocks may be too few (criterion: there "
        "it is 3 points below the best)."
    )
    agrees = np.ptp(accuracy) < 0.03 if kept else accuracy[-1] < accuracy.max() - 0.03
    return Finding(
        claim=f"{name}: {kept_claim if kept else lost_claim}",
        measured=f"The accuracy by depth is {', '.join(steps)}.",
        agrees=bool(agrees),
    )


def _gain(result: Accuracies) -> Finding:
    rows = result.rows[result.rows.gamma >= 0.5]
    gains = rows["test_accuracy"] - rows["test_accuracy_at_infinity"]
    return Finding(
        claim=f"With {result.label_noise:.0%} of labels wrong, early stopping is better than "
        "interpolation, for γ ≥ 1/2 (criterion: with every kernel).",
        measured=f"It gains {100 * min(gains):.1f} to {100 * max(gains):.1f} points of accuracy.",
        agrees=bool(min(gains) > 0),
    )


def plot(result: Accuracies) -> Any:
    """Draw test accuracy against depth, a panel per kind of network."""
    networks = list(dict.fromkeys(result.rows.network.tolist()))
    gammas = sorted(set(result.rows.gamma))
    figure, panels = figures.panels(len(networks), sharey=True)
    for axes, network in zip(panels, networks, strict=True):
        depths = sorted(set(result.of(network=network).depth))
        for i, gamma in enumerate(gammas):
            rows = result.of(network=network, gamma=gamma)
            places = [depths.index(depth) for depth in rows.depth]
            for column, ls in (("test_accuracy", "-"), ("test_accuracy_at_infinity", ":")):
                label = f"γ = {gamma:g}" if ls == "-" and len(rows) else None
                axes.plot(places, 100 * rows[column], ls=ls, label=label, **figures.style(i))
        axes.set_xticks(range(len(depths)), map(figures.depth, depths))
        axes.set(xlabel="depth L", ylim=(0, 102), title=network)
    panels[0].set_ylabel("test accuracy (%), dotted: interpolated")
    return figures.finish(figure)


def plot_times(result: Accuracies) -> Any:
    """Draw test accuracy against stopping time, a panel per depth, a curve per γ."""
    depths = list(dict.fromkeys(result.rows.depth.tolist()))
    gammas = list(dict.fromkeys(result.rows.gamma.tolist()))
    figure, panels = figures.panels(len(depths), sharey=True)
    for row, accuracy in zip(result.rows, result.test_accuracy, strict=True):
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
