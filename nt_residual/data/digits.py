"""The 8×8 handwritten digits that come with scikit-learn: nothing is downloaded."""

from typing import Any, cast

import numpy as np

from nt_residual.data import subsets
from nt_residual.data.dataset import Dataset

_N_TEST = 360  # A fifth of 1797.


def read(seed: int) -> Dataset:
    """Return images of shape (n, 8, 8, 1), uint8 from 0 to 16, with labels 0 to 9.

    Args:
      seed: of the split into training and test set.

    Raises:
      ImportError: if scikit-learn is missing.
    """
    subsets.require_scikit_learn("the digits come with")
    from sklearn.datasets import load_digits

    digits = cast(Any, load_digits())
    images, labels = digits.images[..., None].astype(np.uint8), digits.target
    train, test = subsets.split(labels, len(labels) - _N_TEST, seed)
    return Dataset(images[train], labels[train], images[test], labels[test])
