"""Training runs on disk, with orbax's `CheckpointManager`."""

import contextlib
import dataclasses
import importlib.metadata
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nt_residual._files import claimed, digest
from nt_residual.finite_width.training_programs import Program


@contextlib.contextmanager
def opened(
    out: str | os.PathLike | None, config: dict[str, Any]
) -> Iterator[ocp.CheckpointManager | None]:
    """Open the folder of a run, or make it, with the checks and the lock of `claimed`."""
    if out is None:
        yield None
        return
    options = ocp.CheckpointManagerOptions(
        max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True, create=True
    )
    with (
        claimed(out, config, "out") as folder,
        ocp.CheckpointManager(folder / "states", options=options) as manager,
    ):
        yield manager


def configuration(program: Program, start: Any, rest: Any, sets: dict[str, Any]) -> dict:
    """Return what the result of a run depends on, by name; arrays and programs as digests."""
    shapes = [
        jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)
        for tree in (start, rest, sets[""])
    ]
    rows = None if program.batch_size is None else np.zeros((1, program.batch_size), np.int32)
    anywhere = dataclasses.replace(program, mesh=None)  # A run may move to other devices.
    lowered = Program.advance.lower(anywhere, *shapes, rows, np.int32(1))
    return {
        "network, loss and optimizer": digest(lowered.as_text()),
        "initial state": digest(*_leaves((start, rest))),
        "training data": digest(*sets[""]),
        "validation data": digest(*sets.get("validation_", ())),
        "batch_size": program.batch_size,
        "version of jax": jax.__version__,
        "version of optax": importlib.metadata.version("optax"),
    }


def save(manager: ocp.CheckpointManager, step: int, state: Any, history: list) -> None:
    """Write a state and its history, both or nothing."""
    manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(_leaves(state)),
            history=ocp.args.JsonSave({"rows": history}),
        ),
    )


def restore(manager: ocp.CheckpointManager, like: Any) -> tuple[Any, list] | None:
    """Return the last state, on the devices of `like`, and its history; `None` without one."""
    if manager.latest_step() is None:
        return None
    leaves, structure = jax.tree.flatten(like)
    items = ocp.args.Composite(
        state=ocp.args.StandardRestore(_leaves(like)), history=ocp.args.JsonRestore()
    )
    found = manager.restore(manager.latest_step(), args=items)
    restored = [
        jax.random.wrap_key_data(new, impl=jax.random.key_impl(old)) if _is_key(old) else new
        for old, new in zip(leaves, found["state"], strict=True)
    ]
    return jax.tree.unflatten(structure, restored), found["history"]["rows"]


def _leaves(tree: Any) -> list:
    """The arrays of a tree: orbax need not know the types of its nodes, nor random keys."""
    leaves = jax.tree.leaves(tree)
    return [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in leaves]


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
