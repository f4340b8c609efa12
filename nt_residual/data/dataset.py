"""The structure all data sets come in, and the encodings kernels need."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Dataset(NamedTuple):
    """Inputs and targets, split into training and test sets.

    Attributes:
      x_train: shape (n_train, …), floats.
      y_train: shape (n_train,), integer labels or float targets.
      x_test: shape (n_test, …).
      y_test: shape (n_test,).
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def one_hot(labels: ArrayLike, n_classes: int) -> np.ndarray:
    """Labels as regression targets that sum to zero over the classes.

    Args:
      labels: shape (n,), integers in [0, n_classes).
      n_classes: the number of classes, at least 2.

    Returns:
      Shape (n, n_classes), float64: 1 − 1/n_classes for the label, −1/n_classes else.

    Raises:
      TypeError: if `labels` does not hold integers.
      ValueError: if a label is out of range or the shape is not (n,).

    Example:
      >>> one_hot([1, 0], n_classes=2)
      array([[-0.5,  0.5],
             [ 0.5, -0.5]])
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must hold integers, got dtype {labels.dtype}.")
    if labels.ndim != 1:
        raise ValueError(f"labels must have shape (n,), got shape {labels.shape}.")
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(
            f"labels must lie in [0, {n_classes}), got {labels.min()} to {labels.max()}. "
            "Number the classes from 0, or raise n_classes."
        )
    return np.eye(n_classes)[labels] - 1 / n_classes


def unit_norm(x: ArrayLike) -> np.ndarray:
    """Inputs flattened and projected to the unit sphere.

    Args:
      x: shape (n, …), floats, no input all zero.

    Returns:
      Shape (n, d), the dtype of `x`.

    Raises:
      ValueError: if an input is zero or not finite.

    Example:
      >>> unit_norm([[3.0, 4.0]])
      array([[0.6, 0.8]])
    """
    x = np.asarray(x)
    flat = x.reshape(len(x), -1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    bad = ~(np.isfinite(norms) & (norms > 0))[:, 0]
    if bad.any():
        raise ValueError(
            f"x must hold finite inputs that are not zero, got norm {norms[bad][0, 0]} in row "
            f"{int(np.argmax(bad))} ({int(bad.sum())} such rows). Remove these rows."
        )
    return flat / norms
