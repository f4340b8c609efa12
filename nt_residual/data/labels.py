"""Labels as the targets of a regression."""

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks


def centered_one_hot(labels: ArrayLike, n_classes: int) -> np.ndarray:
    """Return labels as regression targets that sum to zero over the classes.

    They are one-hot vectors minus their mean 1/n_classes, for `GradientFlow` starts from zero.

    Args:
      labels: shape (n,), integers in [0, n_classes).
      n_classes: the number of classes, at least 2.

    Returns:
      Shape (n, n_classes), float64.

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

    The result has the shape (n, n_classes), float64. For two classes the last column is enough.
    Arguments and errors are those of `centered_one_hot`.

    Example:
      >>> signs([1, 0], n_classes=2)
      array([[-1.,  1.],
             [ 1., -1.]])
    """
    return 2 * _one_hot(labels, n_classes) - 1


def _one_hot(labels: ArrayLike, n_classes: int) -> np.ndarray:
    _checks.integer(n_classes, "n_classes", 2, "Pass the number of classes.")
    return np.eye(n_classes)[_checks.labels(labels, "labels", n_classes)]
