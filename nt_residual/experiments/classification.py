"""Which kernels classify real images, by α and depth, stopped in time."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nt_residual import conv, data, rntk, schedules, theory
from nt_residual.experiments import early_stopping
from nt_residual.experiments.claim import Finding

TITLE = "Classification of images"
STATEMENT = (
    "What the theory says of the kernels shows on real images: early-stopped regression with "
    "γ > 1/2 or γ = 1/2 keeps its accuracy however deep the network is, and with γ < 1/2 loses it."
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
class Row(early_stopping.Row):
    """Early-stopped regression with one kernel.

    Attributes:
      network: 'fully connected' or 'convolutional', the latter flattened at the end.
    """

    network: str


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of `run`.

    Attributes:
      rows: one per kernel.
      label_noise: the fraction of training and validation labels that were replaced.
    """

    rows: list[Row]
    label_noise: float

    def of(self, network: str, gamma: float) -> list[Row]:
        """The rows of one kind of network and γ, by depth."""
        return [row for row in self.rows if (row.network, row.gamma) == (network, gamma)]


def run(
    dataset: str = "digits",
    *,
    gammas: Sequence[float] = QUICK["gammas"],
    depths: Sequence[int | float] = QUICK["depths"],
    conv_gammas: Sequence[float] = QUICK["conv_gammas"],
    conv_depths: Sequence[int] = QUICK["conv_depths"],
    n_train: int | None = 600,
    n_conv: int | None = 200,
    n_test: int | None = None,
    label_noise: float = 0.2,
    root: str | os.PathLike | None = None,
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = lambda kernels: kernels,
) -> Result:
    """Classifies images with the kernels of fully-connected and convolutional residual networks.

    Each is fitted to one-hot labels by gradient flow, which is stopped where the squared error on
    validation images, a quarter of the training set, is least.

    Args:
      dataset: a name that `data.load` knows.
      gammas: the exponents γ of fully-connected networks.
      depths: their numbers of blocks, ascending, infinity included.
      conv_gammas: the exponents γ of convolutional networks.
      conv_depths: their numbers of blocks, ascending, finite. The time grows with them.
      n_train: images to train and validate fully-connected networks on, `None` for all.
      n_conv: those for convolutional networks. The time grows with its square.
      n_test: images to test on, `None` for all.
      label_noise: the fraction of training and validation labels, in [0, 1), that are replaced
        by another one drawn at random.
      root: where the files of the data set are, as for `data.load`.
      seed: of the choice and split of images, and of the noise.
      progress: wraps the sequence of kernels, to show a progress bar.

    Returns:
      A row per kernel.

    Raises:
      TypeError, ValueError: if an argument is out of range.
      ImportError: if scikit-learn is missing.
      OSError: if the data set cannot be had.

    Example:
      >>> found = run(gammas=[1.0], depths=[10], conv_gammas=[], n_train=100)
      >>> found.rows[0].test_accuracy > 0.7
      True
    """
    options = {"n_test": n_test, "root": root, "seed": seed}
    chosen = data.load(dataset, n_train, **options)
    flat = early_stopping.prepare(chosen, label_noise, seed)
    pairs = [(depth, gamma) for gamma in gammas for depth in depths]
    work: list[tuple[str, Any, early_stopping.Sets]] = [
        ("fully connected", rntk.ResidualKernel(depth, schedules.PowerLaw(gamma)), flat)
        for depth, gamma in pairs
    ]
    if conv_gammas and conv_depths:
        images = data.load(dataset, n_conv, **options)
        sets, shape = _as_images(images, early_stopping.prepare(images, label_noise, seed))
        work += [
            ("convolutional", conv.ResidualKernel(d, schedules.PowerLaw(gamma), shape), sets)
            for gamma in conv_gammas
            for d in conv_depths
        ]
    rows = [
        Row(**dataclasses.asdict(early_stopping.evaluate(kernel, sets)[0]), network=network)
        for network, kernel, sets in progress(work)
    ]
    return Result(rows, label_noise)


def _as_images(
    dataset: data.Dataset, flat: early_stopping.Sets
) -> tuple[early_stopping.Sets, tuple[int, int]]:
    """The sets as images (n, height, width, channels), of mean square 1 a pixel, and their size."""
    height, width, channels = dataset.x_train.shape[1:]
    scale = math.sqrt(height * width)
    sets = {
        name: ((scale * x).reshape(-1, height, width, channels), labels)
        for name, (x, labels) in flat.items()
    }
    return sets, (height, width)


def findings(result: Result) -> list[Finding]:
    """What was measured, beside what the paper says.

    Args:
      result: what `run` returned.

    Example:
      >>> row = Row(10, 0.5, 1.0, "critical", 3.0, 0.9, 0.9, 0.8, network="fully connected")
      >>> [f.agrees for f in findings(Result([row], label_noise=0.2))]
      [True, True]
    """
    found, kinds = [], dict.fromkeys((row.network, row.gamma) for row in result.rows)
    for network, gamma in kinds:
        rows = result.of(network, gamma)
        name = f"{network.capitalize()}, γ = {gamma:g}"
        if gamma >= 0.5:
            found.append(_kept(name, rows))
        elif rows[0].depth < math.inf:
            found.append(_lost(name, rows))
    if result.label_noise and any(gamma >= 0.5 for _, gamma in kinds):
        found.append(_early_stopping(result))
    return found


def _percents(rows: list[Row]) -> str:
    steps = [
        f"{row.test_accuracy:.1%} at {'∞' if row.depth == math.inf else row.depth}" for row in rows
    ]
    return f"The accuracy by depth is {', '.join(steps)}."


def _kept(name: str, rows: list[Row]) -> Finding:
    accuracy = [row.test_accuracy for row in rows]
    return Finding(
        claim=f"{name}: the accuracy does not depend on depth (criterion: within 3 points).",
        measured=_percents(rows),
        agrees=max(accuracy) - min(accuracy) < 0.03,
    )


def _lost(name: str, rows: list[Row]) -> Finding:
    # The limit is a constant by definition here: what it classifies proves nothing.
    finite = [row for row in rows if row.depth < math.inf]
    accuracy = [row.test_accuracy for row in finite]
    return Finding(
        claim=f"{name}: accuracy is lost with depth, for which {finite[-1].depth} blocks may be "
        "too few (criterion: there it is 3 points below the best).",
        measured=_percents(rows),
        agrees=accuracy[-1] < max(accuracy) - 0.03,
    )


def _early_stopping(result: Result) -> Finding:
    gains = [
        row.test_accuracy - row.test_accuracy_at_infinity for row in result.rows if row.gamma >= 0.5
    ]
    return Finding(
        claim=f"With {result.label_noise:.0%} of labels wrong, stopping in time is better than "
        "interpolating, for γ ≥ 1/2 (criterion: with every kernel).",
        measured=f"It gains {100 * min(gains):.1f} to {100 * max(gains):.1f} points of accuracy.",
        agrees=min(gains) > 0,
    )


def plot(result: Result) -> Any:
    """Draws test accuracy against depth, a panel per kind of network.

    Args:
      result: what `run` returned.

    Returns:
      A `matplotlib.figure.Figure`.

    Raises:
      ImportError: if matplotlib is missing.
    """
    networks = list(dict.fromkeys(row.network for row in result.rows))
    gammas = sorted({row.gamma for row in result.rows})
    figure = theory.plots.new_figure(5 * len(networks), 4)
    panels = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
    for axes, network in zip(panels, networks, strict=True):
        depths = sorted({row.depth for row in result.rows if row.network == network})
        for i, gamma in enumerate(gammas):
            rows = result.of(network, gamma)
            places = [depths.index(row.depth) for row in rows]
            # Curves may coincide: smaller marks show the ones below.
            style = {"color": f"C{i}", "marker": "os^Dv"[i % 5], "ms": max(3, 9 - 2 * i)}
            for column, ls in (("test_accuracy", "-"), ("test_accuracy_at_infinity", ":")):
                label = f"γ = {gamma:g}" if ls == "-" and rows else None
                heights = [100 * getattr(row, column) for row in rows]
                axes.plot(places, heights, ls=ls, mfc="none", label=label, **style)
        axes.set_xticks(range(len(depths)), ["∞" if d == math.inf else f"{d}" for d in depths])
        axes.set(xlabel="depth L", ylim=(0, 102), title=network)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    panels[0].set_ylabel("test accuracy (%), dotted: interpolated")
    return figure
