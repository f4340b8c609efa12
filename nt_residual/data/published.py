"""The files in which data sets are published: where, how large, and their SHA-256 sums."""

import dataclasses
import types
from collections.abc import Mapping

_MNIST = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
_CIFAR = ("https://www.cs.toronto.edu/~kriz/",)


@dataclasses.dataclass(frozen=True)
class File:
    """A compressed file as its authors publish it.

    Attributes:
      name: its own name.
      sha256: of all its bytes, in hexadecimal.
      sources: addresses of folders that have it, to be tried in this order.
      parts: what it holds, the size in bytes by name.
      folder: where an archive has its parts; empty for one part alone, compressed by gzip.
    """

    name: str
    sha256: str
    sources: tuple[str, ...]
    parts: Mapping[str, int]
    folder: str = ""


def _idx(name: str, sha256: str, n_bytes: int) -> File:
    return File(f"{name}.gz", sha256, _MNIST, types.MappingProxyType({name: n_bytes}))


def _archive(name: str, sha256: str, folder: str, parts: dict[str, int]) -> File:
    return File(name, sha256, _CIFAR, types.MappingProxyType(parts), folder)


DATASETS: dict[str, tuple[File, ...]] = {
    "mnist": (
        _idx(
            "train-images-idx3-ubyte",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            16 + 60_000 * 28**2,
        ),
        _idx(
            "train-labels-idx1-ubyte",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            8 + 60_000,
        ),
        _idx(
            "t10k-images-idx3-ubyte",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            16 + 10_000 * 28**2,
        ),
        _idx(
            "t10k-labels-idx1-ubyte",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            8 + 10_000,
        ),
    ),
    "cifar10": (
        _archive(
            "cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            "cifar-10-batches-bin",
            {f"data_batch_{i}.bin": 10_000 * (1 + 3 * 32**2) for i in range(1, 6)}
            | {"test_batch.bin": 10_000 * (1 + 3 * 32**2)},
        ),
    ),
    "cifar100": (
        _archive(
            "cifar-100-binary.tar.gz",
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            "cifar-100-binary",
            {
                "train.bin": 50_000 * (2 + 3 * 32**2),
                "test.bin": 10_000 * (2 + 3 * 32**2),
            },
        ),
    ),
}
