"""How the fall of α with depth decides what a deep ResNet's kernel learns of handwritten digits."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from nt_residual import data, regression, rntk, schedules, theory

GAMMAS = (0.0, 0.25, 0.5, 1.0)
# Eigenvalues of these kernels lie between n/2 and 1e-3, so all is learned between these times.
TIMES = np.append(np.geomspace(0.1, 1e7, 81), math.inf)
_N_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Row:
    """Early-stopped regression with one kernel.

    Attributes:
      depth: the number of blocks, or infinity.
      gamma: γ in α = L^(−γ).
      effective_time: T = Σ log(1 + α²) at this depth.
      regime: what this γ leads to as the depth grows.
      stopping_time: the time with the least squared error on the validation set.
      validation_accuracy: at that time, in [0, 1].
      test_accuracy: at that time, in [0, 1].
      test_accuracy_at_infinity: that of the interpolant, in [0, 1].
    """

    depth: int | float
    gamma: float
    effective_time: float
    regime: str
    stopping_time: float
    validation_accuracy: float
    test_accuracy: float
    test_accuracy_at_infinity: float


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
    if not 0 <= label_noise < 1:
        raise ValueError(f"label_noise must be in [0, 1), got {label_noise}.")
    depths = dict.fromkeys([schedules.check_depth(depth), math.inf])
    kernels = [
        rntk.ResidualKernel(d, schedules.PowerLaw(gamma)) for d in depths for gamma in gammas
    ]
    digits = data.load("digits", n_train, seed=seed)
    n_val = len(digits.x_train) // 4
    x_val, x_train = np.split(data.unit_norm(digits.x_train), [n_val])
    y_val, y_train = np.split(_with_noise(digits.y_train, label_noise, seed), [n_val])
    sets = {"train": (x_train, y_train), "validation": (x_val, y_val)}
    sets["test"] = (data.unit_norm(digits.x_test), digits.y_test)

    rows, curves = [], []
    for kernel in progress(kernels):
        row, curve = _evaluate(kernel, sets)
        rows.append(row)
        curves.append(curve)
    sizes = {name: len(y) for name, (_, y) in sets.items()}
    return Result(rows, TIMES, np.array(curves), sizes)


def _with_noise(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    wrong = (labels + generator.integers(1, _N_CLASSES, labels.shape)) % _N_CLASSES
    return np.where(generator.random(labels.shape) < fraction, wrong, labels)


def _evaluate(
    kernel: rntk.ResidualKernel, sets: dict[str, tuple[np.ndarray, np.ndarray]]
) -> tuple[Row, np.ndarray]:
    """Returns the row of one kernel, and its test accuracy at each of `TIMES`."""
    x_train, y_train = sets["train"]
    flow = regression.GradientFlow.fit(kernel(x_train), data.one_hot(y_train, _N_CLASSES))

    x_val, y_val = sets["validation"]
    k_val = kernel(x_val, x_train)
    stopping = regression.holdout(flow, k_val, data.one_hot(y_val, _N_CLASSES), TIMES)

    x_test, y_test = sets["test"]
    curve = _accuracy(flow, kernel(x_test, x_train), y_test, TIMES)
    row = Row(
        depth=kernel.depth,
        gamma=kernel.schedule.gamma,
        effective_time=kernel.effective_time,
        regime=theory.regime(kernel.schedule).name,
        stopping_time=stopping.time,
        validation_accuracy=float(_accuracy(flow, k_val, y_val, stopping.time)),
        test_accuracy=float(curve[np.argmin(stopping.errors)]),
        test_accuracy_at_infinity=float(curve[-1]),
    )
    return row, curve


def _accuracy(
    flow: regression.GradientFlow, k: jax.Array, labels: np.ndarray, t: float | np.ndarray
) -> np.ndarray:
    """The fraction of labels predicted right, at each time."""
    return (flow.predict(k, t).argmax(axis=-1) == labels).mean(axis=-1)


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
    for row, accuracy in zip(result.rows, result.test_accuracy, strict=True):
        axes, i = panels[depths.index(row.depth)], gammas.index(row.gamma)
        # Curves may coincide: every second one is dashed, and shows the one below it.
        line = {"color": f"C{i}", "lw": 2, "ls": (0, (3, 2)) if i % 2 else "-"}
        axes.plot(result.times[:-1], 100 * accuracy[:-1], label=f"γ = {row.gamma:g}", **line)
        if math.isfinite(row.stopping_time):
            axes.plot(row.stopping_time, 100 * row.test_accuracy, "o", color=f"C{i}", ms=7)
    for axes, depth in zip(panels, depths, strict=True):
        axes.set(
            xscale="log",
            xlabel="stopping time t (dot: chosen on validation)",
            ylim=(0, 102),
            title=f"depth L = {'∞' if depth == math.inf else depth}, α = L$^{{-γ}}$",
        )
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy (%)")
    panels[0].legend()
    return figure
