"""Atomic replacement of files, locks, and a folder that belongs to one configuration."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import types
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks

try:
    import fcntl
except ImportError:  # Windows. Two processes that fill one store write the same values.
    fcntl = None

_CONFIG, _LOCK = "config.json", "lock"


def replace(path: pathlib.Path, text: str) -> None:
    """Write a text file in one step: at any moment it holds either the old text or the new.

    Raises:
      OSError: if it cannot be written; the old file is as it was.
    """
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Open a file to write bytes. They replace the old ones, all at once, when this ends.

    Of several writers at once, the last to end replaces the others' bytes. A writer that is
    killed leaves a temporary file, which `claimed` removes.

    Raises:
      OSError: if it cannot be written; the old file is as it was.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


@contextlib.contextmanager
def exclusive(path: pathlib.Path) -> Iterator[None]:
    """Hold the lock of a file. The operating system releases it when the process ends.

    Args:
      path: a file made for this, which stays; it holds the id of the process.

    Raises:
      BlockingIOError: if another process holds it, or another part of this one.
    """
    with open(path, "a+", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise BlockingIOError(
                    error.errno,
                    f"{path.parent} is being written by process {file.read().strip()}. Wait "
                    "until it is done, end it, or pass another path",
                ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def claimed(
    path: str | os.PathLike,
    config: Mapping[str, Any],
    argument: str,
    *,
    recorded: Mapping[str, Any] = types.MappingProxyType({}),
) -> Iterator[pathlib.Path]:
    """Create a folder for some work, or resume in it, and lock it.

    Args:
      path: of the folder. It gets a file `config.json`, and a lock.
      config: what the results depend on, numbers and texts by name.
      argument: the name of the user's argument, for errors.
      recorded: further entries of `config.json`, which later runs may change.

    Yields:
      Its absolute path.

    Raises:
      BlockingIOError: if another process, or another part of this one, holds it.
      FileExistsError: if there is something else.
      ValueError: if it belongs to another configuration.
    """
    path = _checks.path(path, argument).absolute()
    file = path / _CONFIG
    if path.exists() and not file.exists() and _foreign(path):
        raise FileExistsError(
            f"{argument} must be a new folder or one of an earlier run, got {path}, which holds "
            "something else. Pass another folder."
        )
    path.mkdir(parents=True, exist_ok=True)
    with exclusive(path / _LOCK):
        for leftover in _leftovers(path):
            leftover.unlink(missing_ok=True)
        if not file.exists():
            replace(file, json.dumps({**config, **recorded}, indent=1) + "\n")
        there = stored(path) or {}
        keys = [key for key in {**there, **config} if key not in recorded]
        differs = [key for key in keys if there.get(key) != config.get(key)]
        if differs:
            pairs = [f"{key} (there {there.get(key)}, now {config.get(key)})" for key in differs]
            raise ValueError(
                f"{argument} must be the folder of the same run, but the run in {path} differs in "
                f"{', '.join(pairs)}. Pass another folder."
            )
        yield path


def digest(*arrays: ArrayLike) -> str:
    """Return a short text that differs where arrays or texts do, for a configuration."""
    found = hashlib.sha256()
    for array in map(np.asarray, arrays):
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def stored(path: str | os.PathLike) -> dict[str, Any] | None:
    """Return the configuration of a folder, if it has one.

    Raises:
      ValueError: if it is damaged.
    """
    file = pathlib.Path(path) / _CONFIG
    if not file.exists():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{file} must hold the configuration of a run as JSON, but cannot be read: {error}. "
            "Restore it from a backup, or pass another folder."
        ) from None


def _leftovers(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the temporary files of writers that were killed, or still write."""
    return [file for file in folder.glob("*.tmp") if re.search(r"\.[0-9a-f]{12}\.tmp$", file.name)]


def _foreign(path: pathlib.Path) -> bool:
    """Return whether there is more than what a kill leaves before there is a configuration."""
    return not path.is_dir() or not {path / _LOCK, *_leftovers(path)}.issuperset(path.iterdir())


def _sync_directory(path: pathlib.Path) -> None:
    """Write the names of the files in a folder to the disk."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
