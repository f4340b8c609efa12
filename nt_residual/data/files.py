"""Files of published data sets: found or downloaded, unpacked in memory, checked by their sums."""

import gzip
import hashlib
import io
import os
import pathlib
import tarfile
import zlib
from typing import NamedTuple

_ENVIRONMENT = "NT_RESIDUAL_DATA"
_UNPACKED = ", compressed or not"
_REMEDY = (
    "it is truncated or altered. Delete it and get it anew, or pass root=None to have it "
    "downloaded."
)
_KRIZHEVSKY = "https://www.cs.toronto.edu/~kriz/"


class Published(NamedTuple):
    """A published data set."""

    sources: tuple[str, ...]  # Addresses of folders that have the archives, tried in this order.
    archives: str  # Sums and names, as `sha256sum` prints them. MD5 sums begin with "md5:".
    # SHA-256 sums of the files in the archives, for archives NAME.gz of one file NAME.
    contents: str = ""
    installed: str = ""  # The folder of a package of the operating system.


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
        """
        ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db  train-images-idx3-ubyte
        65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5  train-labels-idx1-ubyte
        0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7  t10k-images-idx3-ubyte
        ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2  t10k-labels-idx1-ubyte
        """,
    ),
    "fashion_mnist": Published(
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        """
        md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d  train-images-idx3-ubyte.gz
        md5:25c81989df183df01b3e8a0aad5dffbe  train-labels-idx1-ubyte.gz
        md5:bef4ecab320f06d8554ea6380940ec79  t10k-images-idx3-ubyte.gz
        md5:bb300cfdad3c16e7a12a480ee83cd310  t10k-labels-idx1-ubyte.gz
        """,
        """
        c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888  train-images-idx3-ubyte
        bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9  train-labels-idx1-ubyte
        5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b  t10k-images-idx3-ubyte
        0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34  t10k-labels-idx1-ubyte
        """,
        # Of Debian's dataset-fashion-mnist. Its archives have other sums, their contents the same.
        "/usr/share/datasets/fashion-mnist",
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


def sums(text: str) -> dict[str, str]:
    """Return sums by name from the text that `sha256sum` prints.

    Example:
      >>> sums("ff7bcfd4  train.bin")
      {'train.bin': 'ff7bcfd4'}
    """
    return {name: value for value, name in map(str.split, text.strip().splitlines())}


def read(dataset: str, folder: pathlib.Path | None) -> dict[str, bytes]:
    """Return the contents of the unpacked files of a data set, by name.

    The files are those in `folder`. With `None` they are those that the operating system has as a
    package, or else those of the cache, downloaded if need be.
    """
    published, contents = DATASETS[dataset], {}
    names = list(sums(published.archives))
    installed = pathlib.Path(published.installed)
    if folder is None and published.installed and all(_find(installed, name) for name in names):
        folder = installed
    for name in names:
        path = _downloaded(dataset, name) if folder is None else _find(folder, name)
        if path is None:
            files = [each.removesuffix(".gz") if published.contents else each for each in names]
            raise FileNotFoundError(
                f"root must be a folder with {name}{_UNPACKED * bool(published.contents)}, got "
                f"{folder}. Get the file from {published.sources[0]}, or pass root=None to have it "
                f"downloaded. The data set {dataset!r} has the files {', '.join(files)}."
            )
        contents |= _unpacked(path, published)
    return contents


def _find(folder: pathlib.Path, archive: str) -> pathlib.Path | None:
    """Return the path of an archive in a folder, or that of its file, if it was unpacked."""
    names = (archive,) if archive.endswith(".tar.gz") else (archive, archive.removesuffix(".gz"))
    return next((folder / name for name in names if (folder / name).exists()), None)


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
    known = sums(published.archives)
    for source in published.sources:
        try:
            path = pooch.retrieve(
                source + name,
                known_hash=known[name],
                fname=name,
                path=cache.expanduser() / dataset,
            )
            return pathlib.Path(path)
        # A `ValueError` is a wrong sum.
        except (OSError, ValueError) as error:
            failures.append(f"{source + name}: {error}")
    reasons = "\n  ".join(failures)
    names = ", ".join(known)
    raise OSError(
        f"{name} of the data set {dataset!r} could not be downloaded:\n  {reasons}\n"
        f"Try again with a connection, or get these files elsewhere, put them into one folder, and "
        f"pass it as root=: {names}."
    )


def _unpacked(path: pathlib.Path, published: Published) -> dict[str, bytes]:
    """Return the contents of an archive, or of its one file, by name, if they are as published."""
    content = path.read_bytes()
    name, is_tar = path.name.removesuffix(".gz"), path.name.endswith(".tar.gz")
    if is_tar:
        expected = sums(published.archives)[path.name]
    else:
        expected = sums(published.contents)[name]
        try:
            content = gzip.decompress(content) if path.suffix == ".gz" else content
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} must be a gzip file, but {error}: {_REMEDY}") from None
    if (found := hashlib.sha256(content).hexdigest()) != expected:
        what = "" if is_tar else "content with "
        raise ValueError(
            f"{path} must have {what}the SHA-256 sum {expected}, got {found}: {_REMEDY}"
        )
    if not is_tar:
        return {name: content}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        streams = {pathlib.PurePath(member.name).name: tar.extractfile(member) for member in tar}
        return {name: stream.read() for name, stream in streams.items() if stream}
