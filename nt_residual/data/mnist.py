"""MNIST, 28×28 handwritten digits."""

import os

import numpy as np

from nt_residual.data import archives, idx
from nt_residual.data.dataset import Dataset
from nt_residual.data.labels import check_range


def read(root: str | os.PathLike | None) -> Dataset:
    """Return images of shape (n, 28, 28, 1), uint8, with labels 0 to 9, uint8.

    Args:
      root: the folder of the files, `None` for the cache, as for `archives.read`.

    Raises:
      ValueError: if a file is not what it should be.
      OSError: if one is not there.
    """
    parts = archives.read("mnist", root)
    return Dataset(*_pair(parts, "train"), *_pair(parts, "t10k"))


def _pair(parts: dict[str, bytes], prefix: str) -> tuple[np.ndarray, np.ndarray]:
    of_images, of_labels = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
    images = idx.parse(parts[of_images], of_images, ndim=3)
    labels = idx.parse(parts[of_labels], of_labels, ndim=1)
    expected = (len(labels), 28, 28)
    if images.shape != expected:
        raise ValueError(
            f"{of_images} must hold an array of shape {expected}, as there are {len(labels)} "
            f"labels, got {images.shape}. Get both files anew."
        )
    check_range(labels, 10, f"labels of {of_labels}", "Get the file anew: it is altered.")
    return images[..., None], labels
