"""Training runs on disk: they go on where they were, whenever the process ends."""

import contextlib
import csv
import hashlib
import io
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nt_residual.finite_width.folder import claimed, stored
from nt_residual.gram import durable

_STATES, _METRICS = "states", "metrics.csv"
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
    """The folder of one run: `states` of orbax, and `metrics.csv`."""

    def __init__(self, path: pathlib.Path):
        self._path = path
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
        with claimed(path, config, "checkpoint") as found:
            folder = cls(found)
            try:
                yield folder
            finally:
                folder._manager.close()

    def restore(self, state: Any) -> tuple[Any, dict[str, list]] | None:
        """The last state, on the host, and the history until then; `None` if there is none yet.

        Args:
          state: one of the same structure, shapes and dtypes.
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
        """The last state that can be read; one that cannot is computed once more."""
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(like), history=ocp.args.JsonRestore()
        )
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._manager.restore(step, args=items)
            except (OSError, ValueError, KeyError) as error:
                warnings.warn(
                    f"the state of step {step} in {self._path} cannot be read and is left out: "
                    f"{error}",
                    stacklevel=2,
                )
                self._manager.delete(step)
        return None

    def save(self, step: int, state: Any, history: Mapping[str, list]) -> None:
        """Saves a state, all of it or nothing, and appends the last row of the history."""
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
            durable.append(self._path / _METRICS, _csv([last]))

    def _write_metrics(self, history: Mapping[str, list]) -> None:
        rows = [list(history), *zip(*history.values(), strict=True)]
        durable.replace(self._path / _METRICS, _csv(rows))


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
