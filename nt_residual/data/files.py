"""Files of published data sets: found or downloaded, checked by their sums, and unpacked.

Files are unpacked in memory, and nothing in them is run: nothing is written outside of the cache.
"""

import gzip
import hashlib
import os
import pathlib
import tarfile
from collections.abc import Mapping
from typing import NamedTuple

_ENVIRONMENT = "NT_RESIDUAL_DATA"
# Seconds without an answer after which a download fails.
_TIMEOUT = 30


class File(NamedTuple):
    """A compressed file as its authors publish it.

    Attributes:
      name: its name.
      sha256: its SHA-256 sum, in hexadecimal.
      parts: the sizes in bytes of the files in it, by name.
    """

    name: str
    sha256: str
    parts: Mapping[str, int]


class Published(NamedTuple):
    """A published data set.

    Attributes:
      sources: addresses of folders that have the files, tried in this order.
      files: all of them.
    """

    sources: tuple[str, ...]
    files: tuple[File, ...]


def _idx(*sources: str, sha256: tuple[str, str, str, str]) -> Published:
    """The four files of a data set in the format of MNIST."""
    parts = {
        "train-images-idx3-ubyte": 16 + 60_000 * 28**2,
        "train-labels-idx1-ubyte": 8 + 60_000,
        "t10k-images-idx3-ubyte": 16 + 10_000 * 28**2,
        "t10k-labels-idx1-ubyte": 8 + 10_000,
    }
    files = [
        File(f"{name}.gz", digest, {name: size})
        for (name, size), digest in zip(parts.items(), sha256, strict=True)
    ]
    return Published(sources, tuple(files))


def _cifar(name: str, sha256: str, records: Mapping[str, int], n_labels: int) -> Published:
    """The one archive of a CIFAR data set."""
    parts = {part: count * (n_labels + 3 * 32**2) for part, count in records.items()}
    return Published(("https://www.cs.toronto.edu/~kriz/",), (File(name, sha256, parts),))


# One in the format of MNIST needs an entry here, and one in `load.FORMATS`.
DATASETS = {
    "mnist": _idx(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        sha256=(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "cifar10": _cifar(
        "cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        {f"data_batch_{i}.bin": 10_000 for i in range(1, 6)} | {"test_batch.bin": 10_000},
        n_labels=1,
    ),
    "cifar100": _cifar(
        "cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        {"train.bin": 50_000, "test.bin": 10_000},
        n_labels=2,
    ),
}


def read(dataset: str, folder: pathlib.Path | None) -> dict[str, bytes]:
    """Return the contents of the unpacked files of a data set, by name.

    The SHA-256 sums of published files are checked, and the sizes of files unpacked from them.
    With `None` for the folder, the files are those of the cache: ones that are missing or damaged
    there are downloaded.
    """
    parts = {}
    for file in DATASETS[dataset].files:
        path = _downloaded(dataset, file) if folder is None else folder / file.name
        if path.exists():
            parts |= _unpacked(path, file)
        else:
            parts |= {part: _found(path.parent, part, file, dataset) for part in file.parts}
    return parts


def _downloaded(dataset: str, file: File) -> pathlib.Path:
    """Return a file of the cache, downloaded if need be. Its sum is checked by pooch."""
    try:
        import pooch
    except ModuleNotFoundError as error:
        raise ImportError(
            "downloads need pooch, which is not installed: pip install pooch (the extra 'data'), "
            "or pass root=, a folder that holds the files"
        ) from error
    cache = pathlib.Path(os.environ.get(_ENVIRONMENT) or pooch.os_cache("nt_residual"))
    published, failures = DATASETS[dataset], []
    for source in published.sources:
        try:
            path = pooch.retrieve(
                source + file.name,
                known_hash=f"sha256:{file.sha256}",
                fname=file.name,
                path=cache.expanduser() / dataset,
                downloader=pooch.HTTPDownloader(timeout=_TIMEOUT, chunk_size=2**20),  # type: ignore[arg-type]
            )
            return pathlib.Path(path)
        # A `ValueError` is a wrong sum.
        except (OSError, ValueError) as error:
            failures.append(f"{source + file.name}: {error}")
    reasons = "\n  ".join(failures)
    names = ", ".join(each.name for each in published.files)
    raise OSError(
        f"{file.name} of the data set {dataset!r} could not be downloaded:\n  {reasons}\n"
        f"Try again with a connection, or get these files elsewhere, put them into one folder, and "
        f"pass it as root=: {names}."
    )


def _unpacked(path: pathlib.Path, file: File) -> dict[str, bytes]:
    with open(path, "rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != file.sha256:
        raise ValueError(
            f"{path} must have the SHA-256 sum {file.sha256}, got {found}: it is truncated or "
            "altered. Delete it and get it anew, or pass root=None to have it downloaded."
        )
    if not file.name.endswith(".tar.gz"):
        with gzip.open(path) as opened:
            return dict.fromkeys(file.parts, opened.read())
    with tarfile.open(path) as tar:
        members = {pathlib.PurePath(member.name).name: member for member in tar}
        streams = {part: tar.extractfile(members[part]) for part in file.parts}
        return {part: stream.read() for part, stream in streams.items() if stream}


def _found(folder: pathlib.Path, part: str, file: File, dataset: str) -> bytes:
    """Return a file that the user has unpacked, into a folder or into one in it."""
    candidates = [*folder.glob(part), *sorted(folder.glob(f"*/{part}"))]
    if not candidates:
        raise FileNotFoundError(
            f"root must be a folder with {file.name} or, unpacked from it, {part}; {folder} has "
            f"neither. Get {file.name} from {DATASETS[dataset].sources[0]}, or pass root=None to "
            "have it downloaded."
        )
    content, size = candidates[0].read_bytes(), file.parts[part]
    if len(content) != size:
        raise ValueError(
            f"{candidates[0]} must have {size} bytes, got {len(content)}: it is truncated or "
            f"another file. Unpack {file.name} again."
        )
    return content
