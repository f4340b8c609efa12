"""Compiled programs, found again by what they compute."""

import collections
import hashlib
import threading
from collections.abc import Callable
from typing import Any

import jax

# What was compiled last, by the text of the program and the devices.
_KEPT = 32
_executables: collections.OrderedDict[tuple, Any] = collections.OrderedDict()
_lock = threading.Lock()


def compiled(function: Callable, *arguments: Any, donate: tuple[int, ...] = ()) -> Any:
    """The function compiled for arguments of these shapes, and where they are.

    It is traced anew in each call, and only what is done with the trace is remembered:
    a function may depend on variables and settings that have changed since.

    Args:
      function: of arrays, not compiled.
      *arguments: arrays, or `jax.ShapeDtypeStruct` with shardings.
      donate: which of them the program may write its result over.
    """
    # A new function each time, which JAX does not know a trace of.
    lowered = jax.jit(lambda *inputs: function(*inputs), donate_argnums=donate).lower(*arguments)
    if getattr(jax.config, "jax_use_simplified_jaxpr_constants", False):
        return lowered.compile()  # The text has no values of the arrays that it closes over.
    devices = {d.id for a in jax.tree.leaves(arguments) for d in _devices(a)}
    key = hashlib.sha256(lowered.as_text().encode()).digest(), tuple(sorted(devices))
    with _lock:
        if key in _executables:
            _executables.move_to_end(key)
            return _executables[key]
    executable = lowered.compile()
    with _lock:
        _executables[key] = executable
        while len(_executables) > _KEPT:
            _executables.popitem(last=False)
    return executable


def _devices(argument: Any) -> set:
    sharding = getattr(argument, "sharding", None)
    return set() if sharding is None else sharding.device_set
