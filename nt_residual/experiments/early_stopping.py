"""Kernel regression on images, stopped at the time with the least error on validation images."""

import math
import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from nt_residual import _checks, conv, data, gram, regression, theory
from nt_residual.experiments import figures
from nt_residual.experiments.claim import Finding
from nt_residual.gram.landmarks import choose

# Eigenvalues of these kernels lie between n/2 and 1e-3, so these times cover all of the learning.
TIMES = np.append(np.geomspace(0.1, 1e7, 81), math.inf)

# A quarter of the training images is held out, but at most this number.
_MOST_VALIDATION = 6000


Preprocessing = Literal["center", "zca"]


class Sets(NamedTuple):
    """Images of shape (n, height, width, channels) with |x|² = height · width, and labels.

    `y_train` and `y_validation` have a column for each entry of `label_noise`, the fraction of
    labels that were replaced by another label.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    label_noise: tuple[float, ...]


def split(
    dataset: data.Dataset,
    label_noise: Sequence[float],
    seed: int,
    preprocessing: Preprocessing = "center",
) -> Sets:
    """Split off validation images, center all images, and replace some labels.

    Args:
      dataset: images (n, height, width, channels) with integer labels from 0.
      label_noise: the fractions of training and validation labels, in [0, 1), to replace by
        another label drawn at random.
      seed: the seed of the noise.
      preprocessing: 'center' subtracts the mean of the training images; 'zca' also makes the
        pixels uncorrelated (see `data.zca`).

    Example:
      >>> sets = split(data.load("digits", 100), label_noise=[0.0, 0.2], seed=0)
      >>> sets.x_train.shape, sets.y_train.shape, sets.x_validation.shape
      ((75, 8, 8, 1), (75, 2), (25, 8, 8, 1))
    """
    for fraction in label_noise:
        if not _checks.number(fraction, "label_noise") < 1:
            raise ValueError(f"label_noise must be in [0, 1), got {fraction}.")
    _checks.choice(preprocessing, "preprocessing", ("center", "zca"))
    if preprocessing == "zca":
        images = data.zca(dataset.x_train, dataset.x_test)
    else:
        center = dataset.x_train.mean(axis=0)
        images = dataset.x_train - center, dataset.x_test - center
    x, x_test = map(normalized, images)
    labels = [with_noise(dataset.y_train, fraction, seed) for fraction in label_noise]
    y, n_val = np.stack(labels, axis=1), min(len(x) // 4, _MOST_VALIDATION)
    return Sets(
        x[n_val:], y[n_val:], x[:n_val], y[:n_val], x_test, dataset.y_test, tuple(label_noise)
    )


def normalized(images: np.ndarray) -> np.ndarray:
    """Return images (n, height, width, channels) scaled to |x|² = height · width."""
    pixels = math.prod(images.shape[1:3])
    return math.sqrt(pixels) * data.unit_norm(images).reshape(images.shape)


def with_noise(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Replace a random fraction of labels by another label, drawn at random."""
    generator = np.random.default_rng(seed)
    n_classes = 1 + int(labels.max())
    wrong = (labels + generator.integers(1, n_classes, labels.shape)) % n_classes
    return np.where(generator.random(labels.shape) < fraction, wrong, labels)


def landmarks(kernel: Any, sets: Sets, count: int) -> np.ndarray | None:
    """Return `count` cluster centers of the training images; `None` for at most `count` images."""
    if count >= len(sets.x_train):
        return None
    return choose(kernel, data.unit_norm(sets.x_train), count, seed=0, method="kmeans")


def evaluate(
    kernel: Any, sets: Sets, landmarks: np.ndarray | None = None
) -> list[tuple[dict[str, Any], list[float]]]:
    """Fit one kernel, and stop at the time with the least squared error on the validation set.

    All fractions of noise are fitted at once, with `landmarks` or, for `None`, the whole matrix.

    Returns:
      A row, and the test accuracy at `TIMES`, for each fraction. The row has `n_train`, the number
      of training images without those of the validation set; `landmarks`, 0 for the whole matrix;
      `label_noise`; `stopping_time`; `validation_accuracy` and `test_accuracy` at that time,
      `test_accuracy_at_infinity`; and `seconds`, the time for all fractions, compilation included.
      Accuracies are in [0, 1].
    """
    start = time.perf_counter()
    images = sets.x_train, sets.x_validation, sets.x_test
    if not isinstance(kernel, conv.ResidualKernel):
        # Unit norm gives flat inputs the same time scale as images in convolutional kernels.
        images = map(data.unit_norm, images)
    x_train, x_val, x_test = images
    n_classes = 1 + int(max(map(np.max, (sets.y_train, sets.y_validation, sets.y_test))))
    whole = landmarks is None
    k_train = kernel(x_train) if whole else gram.LowRank(kernel, x_train, landmarks)
    flow = regression.GradientFlow.fit(
        k_train, _targets(sets.y_train, n_classes), solver="eigh" if whole else "auto"
    )
    # One call, since each shape compiles a program.
    inputs = np.concatenate([x_val, x_test])
    others = np.asarray(kernel(inputs, x_train if whole else landmarks))
    k_val, k_test = np.split(others, [len(x_val)])
    shape = (len(TIMES), -1, len(sets.label_noise), n_classes)
    validation, tests = (flow.predict(k, TIMES).reshape(shape) for k in (k_val, k_test))
    targets = _targets(sets.y_validation, n_classes).reshape(shape[1:])
    best = np.argmin(np.square(validation - targets).mean(axis=(1, 3)), axis=0)
    right = (tests.argmax(axis=-1) == sets.y_test[:, None]).mean(axis=1)
    right_val = (validation.argmax(axis=-1) == sets.y_validation).mean(axis=1)
    seconds = round(time.perf_counter() - start, 1)
    found = []
    for i, (noise, at) in enumerate(zip(sets.label_noise, best, strict=True)):
        row = {
            "n_train": len(x_train),
            "landmarks": 0 if landmarks is None else len(landmarks),
            "label_noise": float(noise),
            "stopping_time": float(TIMES[at]),
            "validation_accuracy": float(right_val[at, i]),
            "test_accuracy": float(right[at, i]),
            "test_accuracy_at_infinity": float(right[-1, i]),
            "seconds": seconds,
        }
        found.append((row, right[:, i].tolist()))
    return found


def _targets(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the targets of all columns of labels, side by side."""
    return np.hstack([data.centered_one_hot(column, n_classes) for column in labels.T])


def of_kernel(kernel: Any) -> dict[str, Any]:
    """Return the depth, γ, effective time and regime of a kernel, as columns of a row."""
    return {
        "depth": kernel.depth,
        "gamma": kernel.schedule.gamma,
        "effective_time": kernel.effective_time,
        "regime": theory.regime(kernel.schedule).name,
    }


def by_depth(name: str, gamma: float, rows: Any) -> Finding:
    """Check that accuracy does not depend on depth, for γ ≥ 1/2, or falls with it, for γ < 1/2.

    Args:
      name: the name of the kernels.
      gamma: γ of all rows.
      rows: rows by ascending depth.
    """
    accuracy, deepest = rows.test_accuracy, rows[-1].depth
    steps = [f"{row.test_accuracy:.1%} at {figures.depth(row.depth)}" for row in rows]
    kept_claim = "the accuracy does not depend on depth (criterion: within 3 points)."
    lost_claim = (
        f"accuracy falls with depth, for which {deepest} blocks may be too few (criterion: there "
        "it is 3 points below the best)."
    )
    kept = np.ptp(accuracy) < 0.03 if gamma >= 0.5 else accuracy[-1] < accuracy.max() - 0.03
    return Finding(
        claim=f"{name}, γ = {gamma:g}: {kept_claim if gamma >= 0.5 else lost_claim}",
        measured=f"The accuracy by depth is {', '.join(steps)}.",
        agrees=bool(kept),
    )
