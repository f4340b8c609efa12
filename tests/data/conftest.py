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

    root: pathlib.Path
    arrays: dict  # Images and labels, for training and for tests, by data set.
    parts: dict  # Bytes by data set and name.
    monkeypatch: pytest.MonkeyPatch

    def use_sources(self, dataset, *sources):
        changed = published.DATASETS[dataset]._replace(sources=sources)
        self.monkeypatch.setitem(published.DATASETS, dataset, changed)

    def unpack(self, dataset, folder):
        """Replaces the published files by what is in them."""
        (self.root / folder).mkdir(exist_ok=True)
        for file in published.DATASETS[dataset].files:
            (self.root / file.name).unlink()
            for name in file.parts:
                (self.root / folder / name).write_bytes(self.parts[dataset][name])


def _arrays():
    rng = np.random.default_rng(0)

    def some(n, *shape, classes=10):
        return rng.integers(0, 256, (n, *shape), dtype=np.uint8), rng.permutation(n) % classes

    color = (32, 32, 3)
    return {
        "mnist": (*some(60, 28, 28, 1), *some(40, 28, 28, 1)),
        "cifar10": (*some(60, *color), *some(40, *color)),
        "cifar100": (*some(200, *color, classes=100), *some(200, *color, classes=100)),
    }


def _parts(arrays):
    parts = {"mnist": {}, "cifar10": {}, "cifar100": {}}
    x, y, x_test, y_test = arrays["mnist"]
    for prefix, images, labels in (("train", x, y), ("t10k", x_test, y_test)):
        parts["mnist"][f"{prefix}-images-idx3-ubyte"] = idx(images[..., 0])
        parts["mnist"][f"{prefix}-labels-idx1-ubyte"] = idx(labels.astype(np.uint8))
    x, y, x_test, y_test = arrays["cifar10"]
    for i in range(5):
        rows = slice(12 * i, 12 * i + 12)
        parts["cifar10"][f"data_batch_{i + 1}.bin"] = records(x[rows], y[rows])
    parts["cifar10"]["test_batch.bin"] = records(x_test, y_test)
    x, y, x_test, y_test = arrays["cifar100"]
    parts["cifar100"]["train.bin"] = records(x, y // 5, y)
    parts["cifar100"]["test.bin"] = records(x_test, y_test // 5, y_test)
    return parts


@pytest.fixture(scope="session")
def small():
    """Arrays, and parts by data set."""
    arrays = _arrays()
    return arrays, _parts(arrays)


@pytest.fixture
def files(small, tmp_path, monkeypatch):
    arrays, parts = small
    root = tmp_path / "root"
    root.mkdir()
    for dataset, of_dataset in parts.items():
        there = published.DATASETS[dataset]
        registered = []
        for file in there.files:
            content = {name: of_dataset[name] for name in file.parts}
            data = packed(file.name, content)
            (root / file.name).write_bytes(data)
            sizes = {name: len(each) for name, each in content.items()}
            digest = hashlib.sha256(data).hexdigest()
            registered.append(file._replace(sha256=digest, parts=sizes))
        monkeypatch.setitem(published.DATASETS, dataset, there._replace(files=tuple(registered)))
    return Files(root, arrays, parts, monkeypatch)
