import dataclasses
import gzip
import hashlib
import io
import pathlib
import struct
import tarfile
import types

import numpy as np
import pytest

from nt_residual.data import published


def gzipped(content):
    return gzip.compress(content, compresslevel=1)


def tarred(members):
    """A tar.gz of files, by name, or of whatever `TarInfo` is given for one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                tar.addfile(info)
    return buffer.getvalue()


def idx(array):
    """An array of bytes in the IDX format."""
    return struct.pack(f">2xBB{array.ndim}I", 8, array.ndim, *array.shape) + array.tobytes()


def records(images, *labels):
    """CIFAR records of images (n, 32, 32, 3)."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.column_stack([*labels, planes]).astype(np.uint8).tobytes()


@dataclasses.dataclass
class Files:
    """Small data sets in the format of the published ones, and registered in their place.

    Attributes:
      root: the folder they are in.
      arrays: the images and labels, for training and for tests, by data set.
      parts: the bytes by data set and name.
      monkeypatch: that of the test.
    """

    root: pathlib.Path
    arrays: dict
    parts: dict
    monkeypatch: pytest.MonkeyPatch

    def publish(self, dataset, name, packed, **changes):
        """Writes a file, and makes its sum the right one."""
        (self.root / name).write_bytes(packed)
        self.register(dataset, name, sha256=hashlib.sha256(packed).hexdigest(), **changes)

    def register(self, dataset, name, **changes):
        files = published.DATASETS[dataset]
        changed = [dataclasses.replace(f, **changes) if f.name == name else f for f in files]
        assert any(file.name == name for file in files)
        self.monkeypatch.setitem(published.DATASETS, dataset, tuple(changed))

    def unpack(self, dataset, folder=""):
        """Replaces the published files by what is in them."""
        for file in published.DATASETS[dataset]:
            (self.root / file.name).unlink()
            for name in file.parts:
                (self.root / folder).mkdir(exist_ok=True)
                (self.root / folder / name).write_bytes(self.parts[dataset][name])


def _arrays():
    rng = np.random.default_rng(0)

    def images(n, *shape):
        return rng.integers(0, 256, (n, *shape), dtype=np.uint8)

    def labels(n, classes):
        return rng.permutation(np.arange(n) % classes)

    return {
        "mnist": (
            *(images(60, 28, 28, 1), labels(60, 10)),
            *(images(40, 28, 28, 1), labels(40, 10)),
        ),
        "cifar10": (
            *(images(60, 32, 32, 3), labels(60, 10)),
            *(images(40, 32, 32, 3), labels(40, 10)),
        ),
        "cifar100": (
            *(images(200, 32, 32, 3), labels(200, 100)),
            *(images(200, 32, 32, 3), labels(200, 100)),
        ),
    }


def _parts(arrays):
    x, y, x_test, y_test = arrays["mnist"]
    parts = {"mnist": {}, "cifar10": {}, "cifar100": {}}
    for prefix, images, labels in (("train", x, y), ("t10k", x_test, y_test)):
        parts["mnist"][f"{prefix}-images-idx3-ubyte"] = idx(images[..., 0])
        parts["mnist"][f"{prefix}-labels-idx1-ubyte"] = idx(labels.astype(np.uint8))
    x, y, x_test, y_test = arrays["cifar10"]
    for i, rows in enumerate(np.split(np.arange(60), 5), start=1):
        parts["cifar10"][f"data_batch_{i}.bin"] = records(x[rows], y[rows])
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
    found = Files(root, arrays, parts, monkeypatch)
    for dataset, of_dataset in parts.items():
        for file in published.DATASETS[dataset]:
            content = {name: of_dataset[name] for name in file.parts}
            if file.folder:
                members = [(f"{file.folder}/{name}", each) for name, each in content.items()]
                packed = tarred([(file.folder, (tarfile.DIRTYPE, "")), *members])
            else:
                packed = gzipped(*content.values())
            sizes = {name: len(each) for name, each in content.items()}
            found.publish(dataset, file.name, packed, parts=sizes)
    return found


@pytest.fixture
def packers():
    """The functions that write the formats."""
    return types.SimpleNamespace(gzipped=gzipped, tarred=tarred, idx=idx)
