"""The names neural-tangents 0.6.5 expects of JAX, and where they are today.

Each function says what became of a name, and in which release of JAX. A name of
`_MISSING` is replaced only where the installed JAX lacks or deprecates it.
"""

import importlib
import types
from collections.abc import Callable, Mapping
from typing import Any


class Overlay(types.ModuleType):
    """A module as neural-tangents sees it: a few names of ours, the rest from `base`, if any."""

    def __init__(self, name: str, base: types.ModuleType | None, names: Mapping[str, Any]):
        super().__init__(name)
        self.__dict__.update(names)
        if base is not None:
            # A package's path lets `import jax.numpy` find submodules through the overlay.
            self.__path__ = getattr(base, "__path__", [])
        self.__dict__["_base"] = base

    def __getattr__(self, attribute: str) -> Any:
        base = self.__dict__.get("_base")
        if base is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {attribute!r}")
        return getattr(base, attribute)


def _extend_core(name: str) -> Any:
    """`jax.core` gave its jaxpr types to `jax.extend.core` (removed there in JAX 0.6)."""
    return getattr(importlib.import_module("jax.extend.core"), name)


def _typeof(name: str) -> Any:
    """`jax.core.get_aval` became the public `jax.typeof` (removed there in JAX 0.10)."""
    del name
    return importlib.import_module("jax").typeof


def _private_util(name: str) -> Any:
    """`jax.util` was made private (emptied in JAX 0.6, gone in JAX 0.8)."""
    return getattr(importlib.import_module("jax._src.util"), name)


def _compile_time(name: str) -> Any:
    """`jax.core.eval_context` has refused tracers of outer transformations since JAX 0.4.36.

    What it did before, computing at once what needs no tracer, is now done by the public
    `jax.ensure_compile_time_eval`.
    """
    del name
    return importlib.import_module("jax").ensure_compile_time_eval


def _source_info(name: str) -> Any:
    """`ad.source_info_util` moved to `jax.extend` (removed from `ad` in JAX 0.4.26)."""
    return importlib.import_module(f"jax.extend.{name}")


def _retired_primitive(name: str) -> Any:
    """`ad.zeros_like_p` is unused since JAX 0.4.24, and gone since JAX 0.9.

    neural-tangents only uses it as a key of its tables of rules. A primitive that
    no jaxpr contains keeps those entries, and none of them is ever looked up.
    """
    return _extend_core("Primitive")(f"retired_{name}")


# Names that the installed JAX may lack or deprecate.
_MISSING: dict[str, dict[str, Callable[[str], Any]]] = {
    "jax.core": {
        "Jaxpr": _extend_core,
        "JaxprEqn": _extend_core,
        "Literal": _extend_core,
        "Primitive": _extend_core,
        "Var": _extend_core,
        "get_aval": _typeof,
    },
    "jax.util": {"safe_map": _private_util, "safe_zip": _private_util},
    "jax.interpreters.ad": {
        "source_info_util": _source_info,
        "zeros_like_p": _retired_primitive,
    },
}

# Names that are there, with another meaning.
_CHANGED = {"jax.core": {"eval_context": _compile_time}}


def _import_or_none(name: str) -> types.ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def _has(module: types.ModuleType | None, name: str) -> bool:
    # Not `hasattr`: JAX warns when a deprecated name is looked up, and answers for
    # removed ones with an error that explains the removal.
    return module is not None and name in vars(module)


def build_overlays() -> dict[str, types.ModuleType]:
    """Returns the overlay of every JAX module that lacks a name, and of its parents."""
    overlays: dict[str, types.ModuleType] = {}
    for module_name, names in _MISSING.items():
        base = _import_or_none(module_name)
        found = {name: find(name) for name, find in names.items() if not _has(base, name)}
        found |= {name: find(name) for name, find in _CHANGED.get(module_name, {}).items()}
        if found:
            overlays[module_name] = Overlay(module_name, base, found)

    # `jax.interpreters.ad` is also reached as an attribute of its parents.
    for name in list(overlays):
        while "." in name:
            parent, _, child = name.rpartition(".")
            if parent not in overlays:
                overlays[parent] = Overlay(parent, importlib.import_module(parent), {})
            setattr(overlays[parent], child, overlays[name])
            name = parent
    return overlays
