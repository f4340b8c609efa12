"""What the kernels of convolutional ResNets learn of handwritten digits, by α and by depth."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from nt_residual import conv, rntk, schedules, theory
from nt_residual.experiments import early_stopping
from nt_residual.experiments.early_stopping import Row

GAMMAS = (0.0, 0.5, 1.0)
DEPTHS = (1, 10, 100, math.inf)
_SHAPE = (8, 8)


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of `run`.

    Attributes:
      rows: of convolutional networks, one per kernel.
      fully_connected: of fully-connected networks of the same depth and α, as many.
      times: the times tried, shape (T,), the last of them infinity.
      test_accuracy: that of `rows` at each time, shape (len(rows), T).
      sizes: the number of training, validation and test images.
    """

    rows: list[Row]
    fully_connected: list[Row]
    times: np.ndarray
    test_accuracy: np.ndarray
    sizes: dict[str, int]


def run(
    depths: Sequence[int | float] = DEPTHS,
    gammas: Sequence[float] = GAMMAS,
    *,
    n_train: int | None = 300,
    label_noise: float = 0.0,
    pooling: Literal["flatten", "gap"] = "flatten",
    padding: Literal["SAME", "CIRCULAR"] = "SAME",
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = lambda kernels: kernels,
) -> Result:
    """Classifies handwritten digits with the kernels of convolutional residual networks.

    For each depth and γ the kernel of the blocks of a network with α = L^(−γ) is fitted to
    digits by gradient flow, which is stopped where the squared error on validation digits, a
    quarter of them, is least. The same is done with a fully-connected network. With the
    defaults it takes a minute or two on two cores.

    Args:
      depths: the numbers of residual blocks, `math.inf` for the limit. Where γ < 1/2 a
        convolutional network has none of use, and that pair is left out.
      gammas: the exponents γ.
      n_train: the number of digits to train and validate on; `None` for all 1437. The time it
        takes grows with its square.
      label_noise: the fraction of training and validation labels, in [0, 1), that are
        replaced by another one drawn at random. Test labels stay as they are.
      pooling: 'flatten', or 'gap' for global average pooling, which takes about 64 times as
        long: choose few digits and blocks.
      padding: 'SAME', with zeros, or 'CIRCULAR'.
      seed: of the split into training, validation and test sets, and of the noise.
      progress: wraps the sequence of convolutional kernels, to show a progress bar.

    Returns:
      A row for each depth and γ, and one of the fully-connected network beside it.

    Raises:
      TypeError, ValueError: if an argument is out of range, or nothing is left to compute.
      ImportError: if scikit-learn is missing.

    Example:
      >>> result = run(depths=[1], gammas=[1.0], n_train=40)
      >>> [row.regime for row in result.rows]
      ['learnable']
    """
    pairs = [(d, schedules.PowerLaw(gamma)) for d in depths for gamma in gammas]
    pairs = [(d, alpha) for d, alpha in pairs if d != math.inf or alpha.gamma >= 0.5]
    kernels = [
        conv.ResidualKernel(d, alpha, _SHAPE, pooling=pooling, padding=padding)
        for d, alpha in pairs
    ]
    if not kernels:
        raise ValueError(
            f"depths and gammas must leave a kernel to compute, got {depths} and {gammas}: for "
            "γ < 1/2 there is none at infinite depth. Pass a finite depth."
        )
    flat = early_stopping.split(n_train, label_noise, seed)
    # Of mean square 1, as the norm of flat ones is.
    images = {name: (8 * x.reshape(-1, *_SHAPE, 1), labels) for name, (x, labels) in flat.items()}
    evaluated = [early_stopping.evaluate(kernel, images) for kernel in progress(kernels)]
    rows, curves = zip(*evaluated, strict=True)
    beside = [rntk.ResidualKernel(d, alpha) for d, alpha in pairs]
    fully_connected = [early_stopping.evaluate(kernel, flat)[0] for kernel in beside]
    return Result(
        rows=list(rows),
        fully_connected=fully_connected,
        times=early_stopping.TIMES,
        test_accuracy=np.array(curves),
        sizes=early_stopping.sizes(flat),
    )


def plot(result: Result) -> Any:
    """Draws test accuracy against depth, of convolutional beside fully-connected networks.

    Args:
      result: what `run` returned.

    Returns:
      A `matplotlib.figure.Figure`.

    Raises:
      ImportError: if matplotlib is missing.
    """
    depths = sorted({row.depth for row in result.rows})
    gammas = list(dict.fromkeys(row.gamma for row in result.rows))
    figure = theory.plots.new_figure(6, 4)
    axes = figure.subplots()
    for i, gamma in enumerate(gammas):
        for name, rows, style in (
            ("convolutional", result.rows, {"ls": "-", "marker": "o"}),
            ("fully connected", result.fully_connected, {"ls": "--", "marker": "s", "mfc": "none"}),
        ):
            mine = [row for row in rows if row.gamma == gamma]
            places = [depths.index(row.depth) for row in mine]
            heights = [100 * row.test_accuracy for row in mine]
            axes.plot(places, heights, color=f"C{i}", label=f"γ = {gamma:g}, {name}", **style)
    axes.set_xticks(range(len(depths)), ["∞" if d == math.inf else f"{d}" for d in depths])
    axes.set(xlabel="depth L", ylabel="test accuracy (%), stopped in time")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
