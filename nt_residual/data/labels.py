"""Labels as the targets of a regression."""

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks


def centered_one_hot(labels: ArrayLike, n_classes: int) -> np.ndarray:
    """Return labels as regression targets that sum to zero over the classes.

    They are one-hot vectors minus their mean 1/n_classes: centered, as `GradientFlow`, which
    starts from zero, needs them.

    Args:
      labels: shape (n,), integers in [0, n_classes).
      n_classes: the number of classes, at least 2.

    Returns:
      Shape (n, n_classes), float64: 1 − 1/n_classes for the label, −1/n_classes elsewhere.

    Raises:
      TypeError: if `labels` does not hold integers, or `n_classes` is not one.
      ValueError: if a label is out of range, the shape is not (n,) or `n_classes` < 2.

    Example:
      >>> centered_one_hot([1, 0], n_classes=2)
      array([[-0.5,  0.5],
             [ 0.5, -0.5]])
    """
    return _one_hot(labels, n_classes) - 1 / n_classes


def signs(labels: ArrayLike, n_classes: int) -> np.ndarray:
    """Return labels as ±1, each class against all others.

    For two classes one column is enough: the last is 1 for label 1 and −1 for label 0.

    Arguments and errors are those of `centered_one_hot`.

    Returns:
      Shape (n, n_classes), float64: 1 for the label, −1 elsewhere.

    Example:
      >>> signs([1, 0], n_classes=2)
      array([[-1.,  1.],
             [ 1., -1.]])
    """
    return 2 * _one_hot(labels, n_classes) - 1


def _one_hot(labels: ArrayLike, n_classes: int) -> np.ndarray:
    _checks.integer(n_classes, "n_classes", 2, "Pass the number of classes.")
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"labels must hold integers, got dtype {labels.dtype}. Number the classes from 0."
        )
    if labels.ndim != 1:
        raise ValueError(
            f"labels must have shape (n,), got shape {labels.shape}. Pass one label an input."
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(
            f"labels must lie in [0, {n_classes}), got {labels.min()} to {labels.max()}. Number "
            "the classes from 0, or raise n_classes."
        )
    return np.eye(n_classes)[labels]
