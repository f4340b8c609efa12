"""Classification of images with the kernels of convolutional residual networks."""

import itertools
import math
import os
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from nt_residual import _checks, conv, data, rntk, schedules
from nt_residual.experiments import early_stopping, figures, record
from nt_residual.experiments.claim import Finding, Result, table

TITLE = "Convolutional networks"
STATEMENT = (
    "The kernels of convolutional networks behave as those of fully-connected ones: with γ ≥ 1/2 "
    "the accuracy of early-stopped regression does not depend on depth, with γ < 1/2 it is lost."
)
QUICK = {"gammas": (0.5, 1.0), "depths": (1, 10, 100), "n_flatten": (200,), "label_noise": (0.2,)}
FULL = {
    # With constant α, accuracy falls beyond 1000 blocks, as it does in fully-connected networks.
    "gammas": (0.0, 0.5, 1.0),
    "depths": (10, 100, 1000, 10_000),
    "n_flatten": (500,),
    "label_noise": (0.0, 0.2),
}
# For images of 28 × 28 or 32 × 32 pixels. With 10 blocks, a pair of images takes 0.14 ms with
# 'flatten' and 130 ms with 'gap' on one core: minutes for 1000 images, an hour for 100 with 'gap'.
LARGE = {
    "quick": {"gammas": (0.5,), "n_test": 200},
    "full": {
        "gammas": (0.5, 1.0),
        "depths": (1, 10),
        "n_flatten": (100, 1000),
        "n_test": 1000,
        "preprocessing": ("center", "zca"),
    },
}


def run(
    dataset: str = "digits",
    *,
    gammas: Sequence[float] = QUICK["gammas"],
    depths: Sequence[int | float] = QUICK["depths"],
    n_flatten: Sequence[int] = QUICK["n_flatten"],
    n_gap: Sequence[int] = (),
    preprocessing: Sequence[early_stopping.Preprocessing] = ("center",),
    label_noise: Sequence[float] = QUICK["label_noise"],
    n_test: int | None = None,
    root: str | os.PathLike | None = None,
    seed: int = 0,
    out: str | os.PathLike | None = None,
    progress: bool = False,
) -> Result:
    """Classify images with convolutional kernels, and with fully-connected ones to compare.

    Gradient flow fits each kernel to one-hot labels, and stops as in `classification.run`.

    Args:
      dataset: a name of `data.load`.
      gammas: the exponents γ.
      depths: the numbers of blocks, ascending. `math.inf`, the limit, needs γ ≥ 1/2.
      n_flatten: numbers of images to train and validate 'flatten' kernels on. The time grows with
        the square of this number.
      n_gap: numbers of images for 'gap' kernels, with global average pooling. They take longer
        than 'flatten' kernels, by a factor of about the number of pixels.
      preprocessing: 'center', 'zca' or both; see `early_stopping.split`.
      label_noise: fractions of training and validation labels to replace, in [0, 1).
      n_test: the number of images to test on, `None` for all.
      root: the folder with the files of the data set, as for `data.load`.
      seed: the seed of the choice and split of images, and of the noise.
      out: as for `classification.run`.
      progress: whether to show a progress bar.

    Returns:
      A row per kernel, number of images, preprocessing and fraction of noise: `network`, 'flatten',
      'gap' or 'fully connected', `preprocessing`, and the columns of `classification.run`.

    It raises the errors of `data.load` and of the kernels.
    """
    progress = _checks.boolean(progress, "progress")
    config = {"dataset": dataset, "n_test": n_test, "seed": seed}
    config |= {"label_noise": record.plain(tuple(label_noise))}
    sizes, found = sorted({*n_flatten, *n_gap}), []
    pairs = [(schedules.PowerLaw(gamma), depth) for gamma in gammas for depth in depths]
    with record.kept(out, config) as (done, keep):
        for n, how in itertools.product(sizes, preprocessing):
            images = data.load(dataset, n, n_test, root=root, seed=seed)
            sets = early_stopping.split(images, label_noise, seed, how)
            poolings = ["flatten"] * (n in n_flatten) + ["gap"] * (n in n_gap)
            bar = {"desc": f"{n} images, {how}", "leave": False}
            for schedule, depth in tqdm(pairs, **bar, disable=not progress):
                kernels = _kernels(depth, schedule, images.x_train.shape[1:3], poolings)
                for network, kernel in kernels.items():
                    name = f"{network}, {n} images, {how}, gamma {schedule.gamma:g}, depth {depth}"
                    if name not in done:
                        first = {"network": network, "preprocessing": how}
                        first |= early_stopping.of_kernel(kernel)
                        fits = early_stopping.evaluate(kernel, sets)
                        keep(name, {"rows": [first | row for row, _ in fits]})
                    found += done[name]["rows"]
    return Result(table(found))


def _kernels(depth: Any, schedule: Any, shape: Any, poolings: Sequence[Any]) -> dict[str, Any]:
    """Return a fully-connected kernel, and a convolutional one for each kind of pooling."""
    found: dict[str, Any] = {"fully connected": rntk.ResidualKernel(depth, schedule)}
    for pooling in poolings:
        found[pooling] = conv.ResidualKernel(depth, schedule, shape, pooling=pooling)
    return found


def findings(result: Result) -> list[Finding]:
    """Compare the predictions of the paper with measurements, for the largest training sets."""
    found, rows = [], result.rows
    kinds = dict.fromkeys(rows[["network", "preprocessing", "label_noise", "gamma"]].tolist())
    for network, how, noise, gamma in kinds:
        if network == "fully connected":
            continue
        n = max(result.of(network=network).n_train)
        mine = result.of(
            network=network, preprocessing=how, label_noise=noise, gamma=gamma, n_train=n
        )
        name = f"{network}, {n} images{', ZCA' * (how == 'zca')}, {figures.noise(noise)}"
        mine = mine if gamma >= 0.5 else mine[mine.depth < math.inf]
        found.append(early_stopping.by_depth(name, gamma, mine))
    return found


def plot(result: Result) -> Any:
    """Draw test accuracy against depth, a panel per network, for the largest training sets."""
    networks = list(dict.fromkeys(result.rows.network.tolist()))
    figure, panels = figures.panels(len(networks), sharey=True)
    for axes, network in zip(panels, networks, strict=True):
        rows = result.of(network=network)
        noise, n = max(rows.label_noise), max(rows.n_train)
        rows = rows[(rows.label_noise == noise) & (rows.n_train == n)]
        figures.by_depth(axes, rows[rows.preprocessing == rows.preprocessing[0]])
        axes.set_title(f"{network}, {n} images, {figures.noise(noise)}")
    panels[0].set_ylabel("test accuracy (%), dotted: at t = ∞")
    return figures.finish(figure)
