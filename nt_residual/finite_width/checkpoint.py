"""Training runs on disk: they go on where they were, whenever the process ends."""

import contextlib
import csv
import hashlib
import io
import os
import pathlib
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nt_residual import _files
from nt_residual._files import claimed, stored

_STATES, _UNREADABLE, _METRICS = "states", "unreadable", "metrics.csv"
_VERSION = "the version of orbax"
# The last one, and the one before in case that is damaged.
_KEPT = 2


def digest(*arrays: Any) -> str:
    """A short text that differs when arrays, trees or texts do."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        array = np.asarray(_from_key(leaf))
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:16]


class Folder:
    """The folder of one run: `states` of orbax, and `metrics.csv`.

    No state that cannot be read is deleted. When training arrives at its step again, it moves
    to `unreadable`.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._unreadable: list[int] = []
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT, enable_async_checkpointing=False, create=True
        )
        self._manager = ocp.CheckpointManager(path / _STATES, options=options)

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: str | os.PathLike, config: Mapping[str, Any]) -> Iterator["Folder"]:
        """Opens a folder for a run, or makes it, and keeps others from writing it.

        Args:
          path: of the folder.
          config: what the run is computed from, numbers and texts by name.

        Raises:
          BlockingIOError: if another process, or this one, is training into it.
          FileExistsError: if there is something else.
          ValueError: if it holds a run of another configuration.
        """
        # Another version of orbax reads what it can, and changes no result: it is recorded only.
        versions = {_VERSION: ocp.__version__}
        with claimed(path, config, "checkpoint", recorded=versions) as found:
            folder = cls(found)
            try:
                yield folder
            finally:
                folder._manager.close()

    def restore(self, state: Any) -> tuple[Any, dict[str, list]] | None:
        """Return the last state, on the host, and the history until then.

        Args:
          state: one of the same structure, shapes and dtypes.

        Returns:
          `None` if nothing has been saved yet.

        Raises:
          OSError: if there are states, but none can be read.
        """
        like = jax.tree.map(_on_host, _by_number(state))
        found = self._last(like)
        if found is None:
            return None
        leaves = [
            _as_key(found.state[key], leaf)
            for key, leaf in zip(like, jax.tree.leaves(state), strict=True)
        ]
        history = {name: list(values) for name, values in found.history.items()}
        self._write_metrics(history)
        return jax.tree.unflatten(jax.tree.structure(state), leaves), history

    def _last(self, like: Any) -> Any:
        """Return the last state that can be read, or `None` if there is no state."""
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(like), history=ocp.args.JsonRestore()
        )
        causes = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self._manager.restore(step, args=items)
            except Exception as error:  # Damaged files may raise anything.
                causes[step] = f"{type(error).__name__}: {error}"
                continue
            for unreadable, cause in causes.items():
                warnings.warn(
                    f"the state of step {unreadable} in {self._path / _STATES} cannot be read, "
                    f"and training goes on from step {step}. Nothing is deleted: the state moves "
                    f"to {self._path / _UNREADABLE} when the next one is saved. The cause: {cause}",
                    stacklevel=2,
                )
            self._unreadable = list(causes)
            return found
        if causes:
            version = (stored(self._path) or {}).get(_VERSION)
            raise OSError(
                f"checkpoint must have a state that can be read, but of those in "
                f"{self._path / _STATES} none can: "
                + "; ".join(f"step {step}, {cause}" for step, cause in causes.items())
                + f". Nothing was deleted. If the disk was out of reach, call train again. The "
                f"run began with orbax {version}, this is {ocp.__version__}: if they differ, "
                "install that one. To begin anew, pass another folder."
            )
        return None

    def save(self, step: int, state: Any, history: Mapping[str, list]) -> None:
        """Saves a state, all of it or nothing, and appends the last row of the history."""
        self._set_aside()
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_by_number(state)),
                history=ocp.args.JsonSave(dict(history)),
            ),
        )
        if len(history["step"]) == 1:
            self._write_metrics(history)
        else:
            last = [values[-1] for values in history.values()]
            _files.append(self._path / _METRICS, _csv([last]))

    def _set_aside(self) -> None:
        """Moves states that cannot be read to where orbax neither counts nor deletes them."""
        for step in self._unreadable:
            aside = self._path / _UNREADABLE / f"{step}-{time.time_ns()}"
            aside.parent.mkdir(exist_ok=True)
            (self._path / _STATES / f"{step}").rename(aside)
        if self._unreadable:
            self._manager.reload()
            self._unreadable = []

    def _write_metrics(self, history: Mapping[str, list]) -> None:
        rows = [list(history), *zip(*history.values(), strict=True)]
        _files.replace(self._path / _METRICS, _csv(rows))


def evaluations_of(path: str | os.PathLike | None) -> int | None:
    """How many steps apart the run in a folder is evaluated, if there is one."""
    found = None if path is None else stored(path)
    return None if found is None else found.get("evaluate_every")


def _csv(rows) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _by_number(state: Any) -> dict[str, Any]:
    """The arrays of a tree, of which orbax need not know the types of nodes."""
    # JAX sorts keys: all have as many digits.
    return {f"{i:06}": _from_key(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _from_key(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _as_key(leaf: Any, like: Any) -> Any:
    return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like)) if _is_key(like) else leaf


def _on_host(leaf: jax.Array) -> np.ndarray:
    """What orbax takes for an array that it shall read into memory of the host."""
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
