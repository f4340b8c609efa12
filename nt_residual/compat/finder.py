"""The import hook through which `import neural_tangents` works on today's JAX."""

import builtins
import functools
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import pathlib
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from nt_residual.compat import jax_names, replacements

PACKAGE = "neural_tangents"
NEURAL_TANGENTS_VERSION = "0.6.5"
KNOWN_JAX = ("0.7.2", "0.12.0.1")  # The oldest and the newest JAX that are tested.

_INSTALL = f"pip install --no-deps neural-tangents=={NEURAL_TANGENTS_VERSION}"
_STAND_IN = pathlib.Path(__file__).with_name("experimental.py")


def install() -> None:
    """Make `import neural_tangents` work from here on. A second call changes nothing.

    Example:
      >>> from nt_residual import compat
      >>> compat.install()
      >>> import neural_tangents as nt
      >>> nt.__version__
      '0.6.5'
    """
    if not any(isinstance(finder, NeuralTangentsFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, NeuralTangentsFinder())


class NeuralTangentsFinder(importlib.abc.MetaPathFinder):
    """Finds `neural_tangents` and its modules where Python does, and loads them our way."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder.find_spec`."""
        if fullname != PACKAGE and not fullname.startswith(PACKAGE + "."):
            return None
        if fullname == PACKAGE:
            _forget_failed_import()
        if fullname == f"{PACKAGE}.experimental":
            return importlib.util.spec_from_file_location(fullname, _STAND_IN)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if fullname == PACKAGE:
            _check_installed(spec)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module of neural-tangents with an `import` that sees JAX through overlays."""

    def exec_module(self, module: types.ModuleType) -> None:
        # Code looks `__import__` up in its own globals: this reaches this one module.
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
        try:
            super().exec_module(module)
            replacements.apply(module)
        except (ImportError, AttributeError) as error:
            raise _explain(error) from error


@functools.cache
def _overlays() -> Mapping[str, types.ModuleType]:
    return jax_names.build_overlays()


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> types.ModuleType:
    """`builtins.__import__`, except that JAX's modules come as their overlays."""
    overlays = _overlays()
    if level == 0 and fromlist and name in overlays:
        return overlays[name]
    module = builtins.__import__(name, globals, locals, fromlist, level)
    # `import jax.numpy as jnp` asks for the top module and walks down from it.
    return overlays.get(module.__name__, module)


def _forget_failed_import() -> None:
    """Forgets modules left by an import of neural-tangents that failed, without `install`."""
    for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
        del sys.modules[name]


def _check_installed(spec: importlib.machinery.ModuleSpec | None) -> None:
    if spec is None:
        raise ModuleNotFoundError(
            f"neural-tangents is not installed, and nt_residual.stax needs it. Install it "
            f"without TensorFlow, which is never used: {_INSTALL} frozendict",
            name=PACKAGE,
        )
    try:
        version = importlib.metadata.version("neural-tangents")
    except importlib.metadata.PackageNotFoundError:
        return  # A source tree on the path has no version to check.
    if version != NEURAL_TANGENTS_VERSION:
        raise ImportError(
            f"neural-tangents {version} is installed, and nt_residual needs version "
            f"{NEURAL_TANGENTS_VERSION}. Install that one: {_INSTALL}",
            name=PACKAGE,
        )


def _explain(error: ImportError | AttributeError) -> ImportError:
    """Says on which JAX an import of neural-tangents failed, once, at the innermost module."""
    if getattr(error, "explained", False):
        return error  # type: ignore[return-value]
    if isinstance(error, ModuleNotFoundError) and error.name == "frozendict":
        message = "neural-tangents needs frozendict: pip install frozendict"
    else:
        jax_version = importlib.metadata.version("jax")
        message = (
            f"neural-tangents {NEURAL_TANGENTS_VERSION} could not be imported on JAX "
            f"{jax_version}: {error}. JAX {KNOWN_JAX[0]} to {KNOWN_JAX[1]} are known to "
            f"work: pip install 'jax<={KNOWN_JAX[1]}'"
        )
    explained = ImportError(message, name=error.name)
    explained.explained = True  # type: ignore[attr-defined]
    return explained
