"""How the fall of α with depth decides what a deep ResNet's kernel learns of handwritten digits."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from nt_residual import rntk, schedules, theory
from nt_residual.experiments import early_stopping
from nt_residual.experiments.early_stopping import Row

GAMMAS = (0.0, 0.25, 0.5, 1.0)


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of `run`.

    Attributes:
      rows: one per kernel.
      times: the times tried, shape (T,), the last of them infinity.
      test_accuracy: at each time, shape (len(rows), T).
      sizes: the number of training, validation and test images.
    """

    rows: list[Row]
    times: np.ndarray
    test_accuracy: np.ndarray
    sizes: dict[str, int]


def run(
    depth: int | float = 1000,
    gammas: Sequence[float] = GAMMAS,
    *,
    n_train: int | None = None,
    label_noise: float = 0.0,
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = lambda kernels: kernels,
) -> Result:
    """Classifies handwritten digits with the kernels of deep residual networks.

    For each γ, at the given depth and at infinite depth, the kernel of the blocks of
    a network with α = L^(−γ) is fitted to digits by gradient flow, which is stopped
    where the squared error on validation digits, a quarter of them, is least.

    Args:
      depth: the number of residual blocks, or `math.inf` for the limits alone.
      gammas: the exponents γ.
      n_train: the number of digits to train and validate on; `None` for all 1437.
      label_noise: the fraction of training and validation labels, in [0, 1), that are
        replaced by another one drawn at random. Test labels stay as they are.
      seed: of the split into training, validation and test sets, and of the noise.
      progress: wraps the sequence of kernels, to show a progress bar.

    Returns:
      A row per γ at the given depth, then a row per γ at infinite depth.

    Raises:
      TypeError, ValueError: if an argument is out of range.
      ImportError: if scikit-learn is missing.

    Example:
      >>> result = run(depth=10, gammas=[0.5], n_train=100)
      >>> [row.regime for row in result.rows]
      ['critical', 'critical']
    """
    depths = dict.fromkeys([schedules.check_depth(depth), math.inf])
    kernels = [
        rntk.ResidualKernel(d, schedules.PowerLaw(gamma)) for d in depths for gamma in gammas
    ]
    sets = early_stopping.split(n_train, label_noise, seed)
    evaluated = [early_stopping.evaluate(kernel, sets) for kernel in progress(kernels)]
    rows, curves = zip(*evaluated, strict=True)
    return Result(list(rows), early_stopping.TIMES, np.array(curves), early_stopping.sizes(sets))


def plot(result: Result) -> Any:
    """Draws test accuracy against stopping time, one curve per kernel.

    Args:
      result: what `run` returned.

    Returns:
      A `matplotlib.figure.Figure`.

    Raises:
      ImportError: if matplotlib is missing.
    """
    depths = list(dict.fromkeys(row.depth for row in result.rows))
    gammas = list(dict.fromkeys(row.gamma for row in result.rows))
    figure = theory.plots.new_figure(4.6 * len(depths), 3.9)
    panels = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for axes, depth in zip(panels, depths, strict=True):
        chosen = [i for i, row in enumerate(result.rows) if row.depth == depth]
        rows = [result.rows[i] for i in chosen]
        early_stopping.draw(axes, rows, result.test_accuracy[chosen], gammas)
        axes.set_title(f"depth L = {'∞' if depth == math.inf else depth}, α = L$^{{-γ}}$")
    panels[0].set_ylabel("test accuracy (%)")
    panels[0].legend()
    return figure
