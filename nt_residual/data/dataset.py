"""The structure all data sets come in."""

from typing import NamedTuple

import numpy as np


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
