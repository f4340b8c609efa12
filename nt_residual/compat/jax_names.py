"""The names neural-tangents 0.6.5 expects of JAX, and where they are today."""

import importlib
import pkgutil
import types
from collections.abc import Mapping
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


# Where to find a name that the installed JAX may lack or deprecate.
_MISSING = {
    "jax.core": {  # Its jaxpr types were removed in JAX 0.6.
        name: f"jax.extend.core:{name}"
        for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
    },
    "jax.util": {  # Made private: emptied in JAX 0.6, gone in JAX 0.8.
        "safe_map": "jax._src.util:safe_map",
        "safe_zip": "jax._src.util:safe_zip",
    },
    "jax.interpreters.ad": {
        "source_info_util": "jax.extend.source_info_util",  # Moved in JAX 0.4.26.
        # Unused since JAX 0.4.24, gone since JAX 0.9. neural-tangents only uses it as a key of
        # its tables of rules, which any object is.
        "zeros_like_p": "builtins:object",
    },
}

# Names that are there, with another meaning. `jax.core.eval_context` has refused tracers of outer
# transformations since JAX 0.4.36: what it did before, computing at once what needs no tracer, is
# now done by `jax.ensure_compile_time_eval`.
_CHANGED = {"jax.core": {"eval_context": "jax:ensure_compile_time_eval"}}


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
        missing = {name: where for name, where in names.items() if not _has(base, name)}
        missing |= _CHANGED.get(module_name, {})
        found = {name: pkgutil.resolve_name(where) for name, where in missing.items()}
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
