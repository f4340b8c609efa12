"""The content of published files, checked before it is unpacked, and unpacked in memory only.

Nothing is written, so no archive can write where it should not.
"""

import gzip
import hashlib
import os
import pathlib
import tarfile
import zlib

from nt_residual.data import download, published

_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, tarfile.TarError)


def read(dataset: str, root: str | os.PathLike | None) -> dict[str, bytes]:
    """The parts of a data set, by name.

    A file that is there in its published form must have the SHA-256 sum of the published one.
    Otherwise its parts are looked for, of which the sizes are checked.

    Args:
      dataset: a key of `published.DATASETS`.
      root: the folder that holds the files, or those unpacked from them; `None` for the
        cache, into which missing ones are downloaded.

    Returns:
      The bytes of every part.

    Raises:
      FileNotFoundError: if a file is not in `root`.
      ValueError: if one is not what was published.
      OSError: if one can neither be downloaded nor read.
      ImportError: if one must be downloaded and pooch is missing.
    """
    folder = download.fetch(dataset) if root is None else pathlib.Path(root).expanduser()
    parts = {}
    for file in published.DATASETS[dataset]:
        path = folder / file.name
        if path.exists():
            _check_sum(path, file)
            parts |= _unpacked(path, file)
        else:
            parts |= {name: _loose(folder, name, file) for name in file.parts}
    return parts


def _check_sum(path: pathlib.Path, file: published.File) -> None:
    with open(path, "rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found == file.sha256:
        return
    every = [each for files in published.DATASETS.values() for each in files]
    namesake = next((each.name for each in every if each.sha256 == found), None)
    what = f"it is {namesake} under another name" if namesake else "it is truncated or altered"
    raise ValueError(
        f"{path} must have the SHA-256 sum {file.sha256}, got {found} of "
        f"{path.stat().st_size} bytes: {what}. {_remedy(file)}"
    )


def _remedy(file: published.File) -> str:
    return f"Delete it and get {file.name} from {file.sources[0]}."


def _unpacked(path: pathlib.Path, file: published.File) -> dict[str, bytes]:
    try:
        return _of_tar(path, file) if file.folder else _of_gzip(path, file)
    except _DAMAGED as error:
        raise ValueError(f"{path} cannot be unpacked: {error}. {_remedy(file)}") from error


def _of_gzip(path: pathlib.Path, file: published.File) -> dict[str, bytes]:
    ((name, size),) = file.parts.items()
    with gzip.open(path) as opened:
        # One more than there should be, to see the end and to check the sum that is there.
        content = opened.read(size + 1)
    _check_size(len(content), f"{name} in {path}", name, file)
    return {name: content}


def _of_tar(path: pathlib.Path, file: published.File) -> dict[str, bytes]:
    wanted = {f"{file.folder}/{name}": name for name in file.parts}
    parts = {}
    with tarfile.open(path, "r:gz") as tar:
        for member in tar:
            name = wanted.get(member.name.removeprefix("./"))
            if name is None:
                continue
            where = f"{member.name} in {path}"
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or name in parts:
                raise ValueError(
                    f"{where} must be one file, got a link, a folder or a second one of that "
                    f"name. {_remedy(file)}"
                )
            _check_size(member.size, where, name, file)
            parts[name] = content.read()
    missing = sorted(file.parts.keys() - parts)
    if missing:
        raise ValueError(
            f"{path} must hold {', '.join(missing)} in the folder {file.folder}, found none. "
            f"{_remedy(file)}"
        )
    return parts


def _loose(folder: pathlib.Path, name: str, file: published.File) -> bytes:
    """A part that was unpacked by the user: in the archive's folder, or without that."""
    # Some programs restore the name within the gzip file, which has a dot.
    names = dict.fromkeys([name, name.replace("-idx", ".idx")])
    candidates = [folder / file.folder / each for each in names] + [folder / each for each in names]
    path = next((each for each in candidates if each.exists()), None)
    if path is None:
        raise FileNotFoundError(
            f"root must be a folder that holds {file.name} or, unpacked from it, {name}; {folder} "
            f"has neither. Get {file.name} from {file.sources[0]}, or pass root=None to have it "
            "downloaded."
        )
    _check_size(path.stat().st_size, str(path), name, file)
    return path.read_bytes()


def _check_size(found: int, where: str, name: str, file: published.File) -> None:
    expected = file.parts[name]
    if found != expected:
        got = f"more than {expected}" if found > expected else str(found)
        raise ValueError(
            f"{where} must have {expected} bytes, got {got}: it is truncated or another file. "
            f"{_remedy(file)}"
        )
