"""Data sets of images by name."""

import functools
import importlib
import os
from typing import Any, NamedTuple

import numpy as np

from nt_residual import _checks
from nt_residual.data import files

_N_DIGITS_TEST = 360  # A fifth of them.


class Dataset(NamedTuple):
    """Inputs and targets, split into training and test sets.

    Inputs are floats, shape (n, …); targets are integer labels or floats, shape (n,).
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def flat(self) -> "Dataset":
        """The same data set with each input as a vector: shape (n, d)."""
        train, test = (x.reshape(len(x), -1) for x in (self.x_train, self.x_test))
        return self._replace(x_train=train, x_test=test)


def load(
    name: str,
    n_train: int | None = None,
    n_test: int | None = None,
    *,
    root: str | os.PathLike | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a data set of images, split into training and test sets.

    | name | what | x | classes | train | test |
    |---|---|---|---|---|---|
    | 'digits' | handwritten digits that come with scikit-learn | (n, 8, 8, 1) | 10 | 1437 | 360 |
    | 'mnist' | handwritten digits | (n, 28, 28, 1) | 10 | 60000 | 10000 |
    | 'fashion_mnist' | pieces of clothing | (n, 28, 28, 1) | 10 | 60000 | 10000 |
    | 'cifar10' | color images | (n, 32, 32, 3) | 10 | 50000 | 10000 |
    | 'cifar100' | color images, fine labels | (n, 32, 32, 3) | 100 | 50000 | 10000 |

    All but the digits are downloaded once, into the folder that the environment variable
    NT_RESIDUAL_DATA names, or else into the system's cache. Where Debian's package
    dataset-fashion-mnist is installed, its files are read instead. The content of every file must
    have the SHA-256 sum of the published one.

    Args:
      name: one of those above.
      n_train: the size of the training set, stratified by class; `None` for all.
      n_test: the size of the test set, likewise.
      root: a folder with the published files, of CIFAR the binary versions, in place of downloads;
        `None` for 'digits'. Files of MNIST and Fashion-MNIST may be compressed or not.
      seed: of the subsets and, for 'digits', of the split. Other sets come split, and if whole in
        their published order.

    Returns:
      Pixels as float32 in [0, 1], labels as int64. `class_names` has the words for the labels.

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
    folder = None if root is None else _checks.path(root, "root").expanduser()
    if name == "digits" and folder is not None:
        raise ValueError(
            f"root must be None for 'digits', which come with scikit-learn, got {root!r}. Leave it "
            "out."
        )
    whole = _digits(seed) if name == "digits" else FORMATS[name](files.read(name, folder))
    white = 16 if name == "digits" else 255
    parts = []
    for images, labels, n, argument in (
        (whole.x_train, whole.y_train, n_train, "n_train"),
        (whole.x_test, whole.y_test, n_test, "n_test"),
    ):
        rows = _subset(labels, n, argument, seed)
        # In one step, with no copy in between, and in C order whatever that of the pixels.
        scaled = np.true_divide(images[rows], white, dtype=np.float32, order="C")
        parts += [scaled, labels[rows].astype(np.int64)]
    return Dataset(*parts)


def _digits(seed: int) -> Dataset:
    digits = _scikit_learn("datasets", "the digits come with").load_digits()
    images, labels = digits.images[..., None], digits.target
    train, test = _split(labels, len(labels) - _N_DIGITS_TEST, seed)
    return Dataset(images[train], labels[train], images[test], labels[test])


def _idx(parts: dict[str, bytes]) -> Dataset:
    """The IDX format of MNIST: a header of 16 or 8 bytes, then the images or the labels."""
    arrays = []
    for split in ("train", "t10k"):
        images = np.frombuffer(parts[f"{split}-images-idx3-ubyte"], np.uint8, offset=16)
        labels = np.frombuffer(parts[f"{split}-labels-idx1-ubyte"], np.uint8, offset=8)
        arrays += [images.reshape(-1, 28, 28, 1), labels]
    return Dataset(*arrays)


def _cifar(parts: dict[str, bytes], n_labels: int) -> Dataset:
    """CIFAR's records: the labels, a byte each, then the red, green and blue pixels."""
    arrays = []
    for is_test in (False, True):
        names = sorted(n for n in parts if n.endswith(".bin") and ("test" in n) == is_test)
        content = b"".join(parts[name] for name in names)
        records = np.frombuffer(content, np.uint8).reshape(-1, n_labels + 3 * 32**2)
        images = records[:, n_labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        arrays += [images, records[:, n_labels - 1]]
    return Dataset(*arrays)


# How a data set of `files.DATASETS` is read.
FORMATS = {
    "mnist": _idx,
    "fashion_mnist": _idx,
    "cifar10": functools.partial(_cifar, n_labels=1),
    # The first label is that of a superclass.
    "cifar100": functools.partial(_cifar, n_labels=2),
}
NAMES = ("digits", *FORMATS)


def _subset(labels: np.ndarray, n: int | None, name: str, seed: int) -> np.ndarray | slice:
    """Return indices of a stratified subset of size n, or a slice for all in their order."""
    whole, classes = len(labels), len(np.unique(labels))
    remedy = "Pass the number of images, or None for all."
    n = whole if n is None else _checks.integer(n, name, 0, remedy)
    if n == whole:
        return slice(None)
    if not classes <= n <= whole - classes:
        raise ValueError(
            f"{name} must be {whole}, or between {classes} and {whole - classes}, so that the "
            f"subset and the rest have all classes, got {n}."
        )
    return _split(labels, n, seed)[0]


def _split(labels: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of a stratified subset of size n, and those of the rest."""
    split = _scikit_learn("model_selection", "stratified subsets need").train_test_split
    chosen, rest = split(np.arange(len(labels)), train_size=n, stratify=labels, random_state=seed)
    return chosen, rest


def _scikit_learn(module: str, purpose: str) -> Any:
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError:
        raise ImportError(
            f"{purpose} scikit-learn, which is not installed: pip install scikit-learn (the extra "
            "'data')"
        ) from None
