import dataclasses
import gzip
import hashlib
import io
import pathlib
import struct
import tarfile

import numpy as np
import pytest

from nt_residual.data import files as published


def idx(array):
    """An array of bytes in the IDX format."""
    return struct.pack(f">2xBB{array.ndim}I", 8, array.ndim, *array.shape) + array.tobytes()


def records(images, *labels):
    """CIFAR records of images (n, 32, 32, 3)."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.column_stack([*labels, planes]).astype(np.uint8).tobytes()


def packed(name, parts):
    """The parts in a gzip file, or in a folder of a tar.gz file."""
    if not name.endswith(".tar.gz"):
        return gzip.compress(*parts.values(), compresslevel=1)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for part, content in parts.items():
            info = tarfile.TarInfo(f"a-folder/{part}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@dataclasses.dataclass
class Files:
    """Small data sets in the format of the published ones, and registered in their place."""

    root: pathlib.Path  # Of a folder for each data set.
    arrays: dict  # Images and labels, for training and for tests, by data set.


def _arrays():
    rng = np.random.default_rng(0)

    def some(n, *shape, classes=10):
        return rng.integers(0, 256, (n, *shape), dtype=np.uint8), rng.permutation(n) % classes

    color = (32, 32, 3)
    return {
        "mnist": (*some(60, 28, 28, 1), *some(40, 28, 28, 1)),
        "fashion_mnist": (*some(60, 28, 28, 1), *some(40, 28, 28, 1)),
        "cifar10": (*some(60, *color), *some(40, *color)),
        "cifar100": (*some(200, *color, classes=100), *some(200, *color, classes=100)),
    }


def _idx_files(x, y, x_test, y_test):
    found = {}
    for prefix, images, labels in (("train", x, y), ("t10k", x_test, y_test)):
        found[f"{prefix}-images-idx3-ubyte"] = idx(images[..., 0])
        found[f"{prefix}-labels-idx1-ubyte"] = idx(labels.astype(np.uint8))
    return {f"{name}.gz": {name: content} for name, content in found.items()}


def _contents(arrays):
    """The bytes in each published file, by data set, file and name."""
    x, y, x_test, y_test = arrays["cifar10"]
    rows = [slice(12 * i, 12 * i + 12) for i in range(5)]
    cifar10 = {f"data_batch_{i + 1}.bin": records(x[r], y[r]) for i, r in enumerate(rows)}
    cifar10 = {"test_batch.bin": records(x_test, y_test), "readme.html": b"", **cifar10}
    x, y, x_test, y_test = arrays["cifar100"]
    cifar100 = {
        "train.bin": records(x, y // 5, y),
        "test.bin": records(x_test, y_test // 5, y_test),
    }
    return {
        "mnist": _idx_files(*arrays["mnist"]),
        "fashion_mnist": _idx_files(*arrays["fashion_mnist"]),
        "cifar10": {"cifar-10-binary.tar.gz": cifar10},
        "cifar100": {"cifar-100-binary.tar.gz": cifar100},
    }


def _sums(contents):
    return "\n".join(f"{hashlib.sha256(x).hexdigest()} {name}" for name, x in contents.items())


@pytest.fixture
def files(tmp_path, monkeypatch):
    arrays, root = _arrays(), tmp_path
    for dataset, contents in _contents(arrays).items():
        archives = {name: packed(name, parts) for name, parts in contents.items()}
        (root / dataset).mkdir()
        for name, content in archives.items():
            (root / dataset / name).write_bytes(content)
        there = published.DATASETS[dataset]
        assert list(published.sums(there.archives)) == list(archives)
        changed = {"archives": _sums(archives), "installed": ""}
        if there.contents:
            inside = {name: x for parts in contents.values() for name, x in parts.items()}
            assert list(published.sums(there.contents)) == list(inside)
            changed["contents"] = _sums(inside)
        monkeypatch.setitem(published.DATASETS, dataset, there._replace(**changed))
    return Files(root, arrays)
