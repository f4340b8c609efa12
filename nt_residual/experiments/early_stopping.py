"""Kernel regression on images, stopped at the time with the least error on validation images."""

import math
from typing import Any

import numpy as np

from nt_residual import _checks, conv, data, regression, theory

# Eigenvalues of these kernels lie between n/2 and 1e-3, so these times cover all of the learning.
TIMES = np.append(np.geomspace(0.1, 1e7, 81), math.inf)

Sets = dict[str, tuple[np.ndarray, np.ndarray]]


def normalized(images: np.ndarray) -> np.ndarray:
    """Return images (n, height, width, channels) scaled to |x|² = height · width."""
    pixels = math.prod(images.shape[1:3])
    return math.sqrt(pixels) * data.unit_norm(images).reshape(images.shape)


def split(dataset: data.Dataset, label_noise: float, seed: int) -> Sets:
    """Split off a quarter of the training images for validation, and replace some labels.

    Args:
      dataset: images (n, height, width, channels) with integer labels from 0.
      label_noise: the fraction of training and validation labels, in [0, 1), to replace by
        another label drawn at random.
      seed: of the noise.

    Returns:
      For 'train', 'validation' and 'test' images as `normalized` returns them, and labels.

    Example:
      >>> sets = split(data.load("digits", 100), label_noise=0.0, seed=0)
      >>> {name: images.shape for name, (images, _) in sets.items()}
      {'train': (75, 8, 8, 1), 'validation': (25, 8, 8, 1), 'test': (360, 8, 8, 1)}
    """
    if not _checks.number(label_noise, "label_noise") < 1:
        raise ValueError(f"label_noise must be in [0, 1), got {label_noise}.")
    n_val = len(dataset.x_train) // 4
    x_val, x_train = np.split(normalized(dataset.x_train), [n_val])
    y_val, y_train = np.split(_with_noise(dataset.y_train, label_noise, seed), [n_val])
    test = normalized(dataset.x_test), dataset.y_test
    return {"train": (x_train, y_train), "validation": (x_val, y_val), "test": test}


def _with_noise(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    n_classes = 1 + int(labels.max())
    wrong = (labels + generator.integers(1, n_classes, labels.shape)) % n_classes
    return np.where(generator.random(labels.shape) < fraction, wrong, labels)


def evaluate(kernel: Any, sets: Sets) -> tuple[dict[str, Any], np.ndarray]:
    """Fit one kernel, and stop where the error on the validation set is least.

    Return its row, as `classification.run` describes it, and its test accuracy at `TIMES`.
    """
    convolutional = isinstance(kernel, conv.ResidualKernel)
    (x_train, y_train), (x_val, y_val), (x_test, y_test) = sets.values()
    if not convolutional:  # Flat inputs of unit norm have the same scale of time.
        x_train, x_val, x_test = map(data.unit_norm, (x_train, x_val, x_test))
    n_classes = 1 + max(int(labels.max()) for labels in (y_train, y_val, y_test))
    flow = regression.GradientFlow.fit(kernel(x_train), data.centered_one_hot(y_train, n_classes))
    # One call, since each shape compiles a program.
    others = np.asarray(kernel(np.concatenate([x_val, x_test]), x_train))
    k_val, k_test = np.split(others, [len(x_val)])
    stopping = regression.holdout(flow, k_val, data.centered_one_hot(y_val, n_classes), TIMES)
    curve = _accuracy(flow, k_test, y_test, TIMES)
    row = {
        "network": "convolutional" if convolutional else "fully connected",
        "depth": kernel.depth,
        "gamma": kernel.schedule.gamma,
        "effective_time": kernel.effective_time,
        "regime": theory.regime(kernel.schedule).name,
        "stopping_time": stopping.time,
        "validation_accuracy": float(_accuracy(flow, k_val, y_val, stopping.time)),
        "test_accuracy": float(curve[np.argmin(stopping.errors)]),
        "test_accuracy_at_infinity": float(curve[-1]),
    }
    return row, curve


def _accuracy(
    flow: regression.GradientFlow, k: np.ndarray, labels: np.ndarray, t: float | np.ndarray
) -> np.ndarray:
    """Return the fraction of labels that are predicted right, at each time."""
    return (flow.predict(k, t).argmax(axis=-1) == labels).mean(axis=-1)
