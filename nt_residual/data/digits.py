"""The 8×8 handwritten digits that come with scikit-learn: nothing is downloaded."""

import operator
from typing import Any, cast

import numpy as np

from nt_residual.data.dataset import Dataset

_N_TEST = 360  # A fifth of 1797.


def load(n_train: int | None, seed: int) -> Dataset:
    """Returns images of shape (n, 8, 8), float32 in [0, 1], with labels 0 to 9."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError as error:
        raise ImportError(
            "the digits come with scikit-learn, which is not installed: pip install scikit-learn "
            "(the extra 'data')"
        ) from error

    digits = cast(Any, load_digits())
    images, labels = digits.images.astype(np.float32) / 16, digits.target
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=_N_TEST, stratify=labels, random_state=seed
    )
    if n_train is not None:
        n_train = operator.index(n_train)
        whole = len(x_train)
        if n_train != whole and not 10 <= n_train <= whole - 10:
            raise ValueError(
                f"n_train must be {whole}, or between 10 and {whole - 10}, so that each class is "
                f"split, got {n_train}."
            )
        if n_train < len(x_train):
            x_train, _, y_train, _ = train_test_split(
                x_train, y_train, train_size=n_train, stratify=y_train, random_state=seed
            )
    return Dataset(*map(np.asarray, (x_train, y_train, x_test, y_test)))
