"""Folders of long work: each belongs to one configuration, and one process writes it at a time."""

import contextlib
import json
import os
import pathlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

from nt_residual.gram import durable

_CONFIG, _LOCK = "config.json", "lock"


@contextlib.contextmanager
def claimed(
    path: str | os.PathLike,
    config: Mapping[str, Any],
    argument: str,
    *,
    recorded: Mapping[str, Any] = types.MappingProxyType({}),
) -> Iterator[pathlib.Path]:
    """Makes a folder for some work, or takes that of the same work, and keeps others from it.

    Args:
      path: of the folder. It gets a file `config.json`, and a lock.
      config: what the results depend on, numbers and texts by name.
      argument: what the user calls `path`, for errors.
      recorded: what `config.json` also has of the first run, but later ones may change.

    Yields:
      Its absolute path.

    Raises:
      BlockingIOError: if another process, or another part of this one, holds it.
      FileExistsError: if there is something else.
      ValueError: if it belongs to another configuration.
    """
    path = pathlib.Path(path).absolute()
    file = path / _CONFIG
    if path.exists() and not file.exists() and _foreign(path):
        raise FileExistsError(
            f"{argument} must be a new folder or one of an earlier run, got {path}, which holds "
            "something else. Pass another folder."
        )
    path.mkdir(parents=True, exist_ok=True)
    with durable.exclusive(path / _LOCK):
        if not file.exists():
            durable.replace(file, json.dumps({**config, **recorded}, indent=1) + "\n")
        there = stored(path) or {}
        keys = [key for key in {**there, **config} if key not in recorded]
        differs = [key for key in keys if there.get(key) != config.get(key)]
        if differs:
            pairs = [f"{key} (there {there.get(key)}, now {config.get(key)})" for key in differs]
            raise ValueError(
                f"{argument} must be the folder of the same run, but that in {path} differs in "
                f"{', '.join(pairs)}. Pass another folder."
            )
        yield path


def stored(path: str | os.PathLike) -> dict[str, Any] | None:
    """The configuration of a folder, if it has one.

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


def _foreign(path: pathlib.Path) -> bool:
    """Whether there is more than what a kill leaves before there is a configuration."""
    expected = {path / _LOCK, *durable.leftovers(path / _CONFIG)}
    return not path.is_dir() or not expected.issuperset(path.iterdir())
