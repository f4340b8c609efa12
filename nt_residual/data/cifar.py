"""CIFAR-10 and CIFAR-100, 32×32 color images of things and animals.

A file is a row of records: the labels, a byte each, then the red, the green and the blue
pixels. https://www.cs.toronto.edu/~kriz/cifar.html
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from nt_residual.data import archives
from nt_residual.data.dataset import Dataset
from nt_residual.data.labels import check_range

_PIXELS = 3 * 32 * 32


@dataclasses.dataclass(frozen=True)
class _Format:
    """How the files of one data set are to be read.

    Attributes:
      train: the names of the files to train on.
      test: those to test on.
      n_classes: of each label of a record; the last label is the one that is used.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    n_classes: tuple[int, ...]


_FORMATS = {
    "cifar10": _Format(
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",), (10,)
    ),
    # The first label is that of 20 superclasses.
    "cifar100": _Format(("train.bin",), ("test.bin",), (20, 100)),
}


def read(dataset: str, root: str | os.PathLike | None) -> Dataset:
    """Returns images of shape (n, 32, 32, 3), uint8, with labels, uint8.

    Args:
      dataset: 'cifar10' or 'cifar100', of which the labels are the 100 fine ones.
      root: the folder of the files, `None` for the cache, as for `archives.read`.

    Raises:
      ValueError: if a file is not what it should be.
      OSError: if one is not there.
    """
    parts, form = archives.read(dataset, root), _FORMATS[dataset]
    return Dataset(
        *_joined(parts, form.train, form.n_classes), *_joined(parts, form.test, form.n_classes)
    )


def _joined(
    parts: dict[str, bytes], names: Sequence[str], n_classes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of some files, which are let go of."""
    pairs = [_parse(parts.pop(name), name, n_classes) for name in names]
    images, labels = (
        each[0] if len(each) == 1 else np.concatenate(each) for each in zip(*pairs, strict=True)
    )
    return images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _parse(content: bytes, name: str, n_classes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    count = len(n_classes)
    records = np.frombuffer(content, np.uint8).reshape(-1, count + _PIXELS)
    for column, classes in enumerate(n_classes):
        check_range(
            records[:, column], classes, f"labels of {name}", "Get the file anew: it is altered."
        )
    return records[:, count:], records[:, count - 1]
