"""Data sets by name."""

import os

import numpy as np

from nt_residual import _checks
from nt_residual.data import cifar, digits, mnist, subsets
from nt_residual.data.dataset import Dataset

# The value of a pixel that stands for 1.
_WHITE = {"digits": 16, "mnist": 255, "cifar10": 255, "cifar100": 255}

NAMES = tuple(_WHITE)


def load(
    name: str,
    n_train: int | None = None,
    n_test: int | None = None,
    *,
    root: str | os.PathLike | None = None,
    seed: int = 0,
) -> Dataset:
    """Loads a data set, split into training and test sets.

    | name | what | x | classes | train | test |
    |---|---|---|---|---|---|
    | 'digits' | handwritten digits that come with scikit-learn | (n, 8, 8, 1) | 10 | 1437 | 360 |
    | 'mnist' | handwritten digits | (n, 28, 28, 1) | 10 | 60000 | 10000 |
    | 'cifar10' | color images | (n, 32, 32, 3) | 10 | 50000 | 10000 |
    | 'cifar100' | color images, fine labels | (n, 32, 32, 3) | 100 | 50000 | 10000 |

    All but the digits are downloaded when they are first asked for, into the folder that the
    environment variable NT_RESIDUAL_DATA names, or else into the system's cache. Every file
    must have the SHA-256 sum of the published one. CIFAR takes 0.74 GB of memory, 0.9 GB while
    it is read; a subset 0.35 GB while it is read, since only what is asked for becomes floats.

    Args:
      name: one of those above.
      n_train: the size of the training set, each class with its share; `None` for all.
      n_test: the size of the test set, likewise.
      root: a folder that holds the files under the names they are published by, or what they
        contain, unpacked: nothing is downloaded then. For CIFAR these are the binary versions.
        `None` for 'digits', which has no files.
      seed: of the subsets and, for 'digits', of the split; other data sets come split. The
        same seed gives the same subset; a whole set is in its published order.

    Returns:
      The data set as it is, but for pixels as float32 in [0, 1]; labels are int64.

    Raises:
      TypeError: if `name` is not a string, or a size or the seed not an integer.
      ValueError: if the name is unknown, a size out of range, `root` is given for 'digits', or
        a file is not the published one.
      FileNotFoundError: if a file is not in `root`.
      OSError: if a file can neither be downloaded nor read.
      ImportError: if scikit-learn is missing, for subsets and digits, or pooch, for downloads.

    Example:
      >>> digits = load("digits", n_train=1000)
      >>> digits.x_train.shape, digits.y_train.shape, digits.x_test.shape
      ((1000, 8, 8, 1), (1000,), (360, 8, 8, 1))
    """
    _checks.choice(name, "name", NAMES)
    seed = _checks.integer(seed, "seed", 0)
    whole = _read(name, root, seed)
    train = subsets.stratified(whole.y_train, n_train, "n_train", seed)
    test = subsets.stratified(whole.y_test, n_test, "n_test", seed)
    return Dataset(
        _scaled(whole.x_train[train], _WHITE[name]),
        whole.y_train[train].astype(np.int64),
        _scaled(whole.x_test[test], _WHITE[name]),
        whole.y_test[test].astype(np.int64),
    )


def _read(name: str, root: str | os.PathLike | None, seed: int) -> Dataset:
    """The whole data set, pixels as bytes."""
    if name == "digits":
        if root is not None:
            raise ValueError(
                f"root must be None for 'digits', which come with scikit-learn, got {root!r}. "
                "Leave it out."
            )
        return digits.read(seed)
    return mnist.read(root) if name == "mnist" else cifar.read(name, root)


def _scaled(pixels: np.ndarray, white: int) -> np.ndarray:
    # In one step, with no copy in between, and in C order whatever that of the pixels.
    return np.true_divide(pixels, white, dtype=np.float32, order="C")
