"""Regression on handwritten digits, stopped where the error on validation digits is least."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from nt_residual import _checks, data, regression, theory

# Eigenvalues of these kernels lie between n/2 and 1e-3, so all is learned between these times.
TIMES = np.append(np.geomspace(0.1, 1e7, 81), math.inf)

Sets = dict[str, tuple[np.ndarray, np.ndarray]]


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


def split(n_train: int | None, label_noise: float, seed: int) -> Sets:
    """Digits to train, to validate and to test on.

    Args:
      n_train: the number to train on and, a quarter of them, to validate; `None` for all 1437.
      label_noise: the fraction of training and validation labels, in [0, 1), that are
        replaced by another one drawn at random. Test labels stay as they are.
      seed: of the split, and of the noise.

    Returns:
      For 'train', 'validation' and 'test' images of unit norm, shape (n, 64), and labels.

    Raises:
      TypeError, ValueError: if an argument is out of range.
      ImportError: if scikit-learn is missing.

    Example:
      >>> sets = split(100, label_noise=0.0, seed=0)
      >>> {name: images.shape for name, (images, _) in sets.items()}
      {'train': (75, 64), 'validation': (25, 64), 'test': (360, 64)}
    """
    return prepare(data.load("digits", n_train, seed=seed), label_noise, seed)


def prepare(dataset: data.Dataset, label_noise: float, seed: int) -> Sets:
    """Images to train, to validate and to test on.

    Args:
      dataset: with integer labels from 0.
      label_noise: as for `split`.
      seed: of the noise.

    Returns:
      As `split`.

    Raises:
      ValueError: if `label_noise` is out of range.
    """
    if not _checks.number(label_noise, "label_noise") < 1:
        raise ValueError(f"label_noise must be in [0, 1), got {label_noise}.")
    n_val = len(dataset.x_train) // 4
    x_val, x_train = np.split(data.unit_norm(dataset.x_train), [n_val])
    y_val, y_train = np.split(_with_noise(dataset.y_train, label_noise, seed), [n_val])
    sets = {"train": (x_train, y_train), "validation": (x_val, y_val)}
    sets["test"] = (data.unit_norm(dataset.x_test), dataset.y_test)
    return sets


def sizes(sets: Sets) -> dict[str, int]:
    """The number of images in each set."""
    return {name: len(labels) for name, (_, labels) in sets.items()}


def _with_noise(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    n_classes = 1 + int(labels.max())
    wrong = (labels + generator.integers(1, n_classes, labels.shape)) % n_classes
    return np.where(generator.random(labels.shape) < fraction, wrong, labels)


def evaluate(kernel: Any, sets: Sets) -> tuple[Row, np.ndarray]:
    """Fits one kernel, and stops where the error on the validation set is least.

    Args:
      kernel: a `ResidualKernel` with a `schedules.PowerLaw`.
      sets: as `split` returns, images in the shape that the kernel takes.

    Returns:
      The row of the kernel, and its test accuracy at each of `TIMES`.
    """
    (x_train, y_train), (x_val, y_val), (x_test, y_test) = (
        sets[name] for name in ("train", "validation", "test")
    )
    n_classes = 1 + max(int(labels.max()) for _, labels in sets.values())
    flow = regression.GradientFlow.fit(kernel(x_train), data.centered_one_hot(y_train, n_classes))
    # One call, since each shape is a program of its own to compile.
    others = kernel(np.concatenate([x_val, x_test]), x_train)
    k_val, k_test = others[: len(x_val)], others[len(x_val) :]
    stopping = regression.holdout(flow, k_val, data.centered_one_hot(y_val, n_classes), TIMES)
    curve = _accuracy(flow, k_test, y_test, TIMES)
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


def draw(axes: Any, rows: Sequence[Row], curves: np.ndarray, gammas: Sequence[float]) -> None:
    """Draws test accuracy against stopping time, one curve per row, into one of matplotlib's axes.

    Args:
      axes: to draw into.
      rows: of one depth, a γ each.
      curves: test accuracy at each of `TIMES`, shape (len(rows), len(TIMES)).
      gammas: all γ of the figure, by which curves are colored.
    """
    for row, accuracy in zip(rows, curves, strict=True):
        i = gammas.index(row.gamma)
        # Curves may coincide: every second one is dashed, and shows the one below it.
        line = {"color": f"C{i}", "lw": 2, "ls": (0, (3, 2)) if i % 2 else "-"}
        axes.plot(TIMES[:-1], 100 * accuracy[:-1], label=f"γ = {row.gamma:g}", **line)
        if math.isfinite(row.stopping_time):
            axes.plot(row.stopping_time, 100 * row.test_accuracy, "o", color=f"C{i}", ms=7)
    axes.set(xscale="log", xlabel="stopping time t (dot: chosen on validation)", ylim=(0, 102))
    axes.grid(alpha=0.3)
