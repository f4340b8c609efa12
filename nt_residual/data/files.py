"""Files of published data sets: found or downloaded, checked by their sums, unpacked in memory."""

import gzip
import hashlib
import os
import pathlib
import tarfile
from typing import NamedTuple

_ENVIRONMENT = "NT_RESIDUAL_DATA"
_KRIZHEVSKY = "https://www.cs.toronto.edu/~kriz/"


class Published(NamedTuple):
    """A published data set."""

    sources: tuple[str, ...]  # Addresses of folders that have the files, tried in this order.
    sums: str  # SHA-256 sums and names of the compressed files, as `sha256sum` prints them.

    @property
    def files(self) -> dict[str, str]:
        """The sum of each file by its name."""
        return {name: sha256 for sha256, name in map(str.split, self.sums.strip().splitlines())}


# One in the format of MNIST needs an entry here, and one in `load.FORMATS`.
DATASETS = {
    "mnist": Published(
        (
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        """
        440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609  train-images-idx3-ubyte.gz
        3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c  train-labels-idx1-ubyte.gz
        8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6  t10k-images-idx3-ubyte.gz
        f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6  t10k-labels-idx1-ubyte.gz
        """,
    ),
    "cifar10": Published(
        (_KRIZHEVSKY,),
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd  cifar-10-binary.tar.gz",
    ),
    "cifar100": Published(
        (_KRIZHEVSKY,),
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec  cifar-100-binary.tar.gz",
    ),
}


def read(dataset: str, folder: pathlib.Path | None) -> dict[str, bytes]:
    """Return the contents of the unpacked files of a data set, by name.

    The files are those in `folder`, or with `None` those of the cache, downloaded if need be.
    """
    published, contents = DATASETS[dataset], {}
    for name, sha256 in published.files.items():
        if folder is None:
            path = _downloaded(dataset, name)
        elif not (path := folder / name).exists():
            raise FileNotFoundError(
                f"root must be a folder with {name}, got {folder}. Get the file from "
                f"{published.sources[0]}, or pass root=None to have it downloaded."
            )
        contents |= _unpacked(path, sha256)
    return contents


def _downloaded(dataset: str, name: str) -> pathlib.Path:
    """Return a file of the cache. One that is missing or has another sum is downloaded."""
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
                source + name,
                known_hash=f"sha256:{published.files[name]}",
                fname=name,
                path=cache.expanduser() / dataset,
            )
            return pathlib.Path(path)
        # A `ValueError` is a wrong sum.
        except (OSError, ValueError) as error:
            failures.append(f"{source + name}: {error}")
    reasons = "\n  ".join(failures)
    names = ", ".join(published.files)
    raise OSError(
        f"{name} of the data set {dataset!r} could not be downloaded:\n  {reasons}\n"
        f"Try again with a connection, or get these files elsewhere, put them into one folder, and "
        f"pass it as root=: {names}."
    )


def _unpacked(path: pathlib.Path, sha256: str) -> dict[str, bytes]:
    with open(path, "rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} must have the SHA-256 sum {sha256}, got {found}: it is truncated or altered. "
            "Delete it and get it anew, or pass root=None to have it downloaded."
        )
    if not path.name.endswith(".tar.gz"):
        with gzip.open(path) as opened:
            return {path.stem: opened.read()}
    with tarfile.open(path) as tar:
        streams = {pathlib.PurePath(member.name).name: tar.extractfile(member) for member in tar}
        return {name: stream.read() for name, stream in streams.items() if stream}
