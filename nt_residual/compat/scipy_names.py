"""What neural-tangents 0.6.5 expects of SciPy, and today's SciPy calls otherwise."""

import inspect
import types
from typing import Any

import scipy.linalg

from nt_residual.compat.jax_names import Overlay


def overlay(scipy_module: types.ModuleType) -> types.ModuleType:
    """Returns SciPy as neural-tangents expects it; SciPy itself where nothing is missing."""
    if "eigvals" in inspect.signature(scipy.linalg.eigvalsh).parameters:
        return scipy_module
    linalg = Overlay("scipy.linalg", scipy.linalg, {"eigvalsh": _eigvalsh})
    return Overlay("scipy", scipy_module, {"linalg": linalg})


def _eigvalsh(a: Any, *args: Any, eigvals: tuple[int, int] | None = None, **kwargs: Any) -> Any:
    """`eigvalsh` with `eigvals`, which became `subset_by_index` (removed in SciPy 1.14)."""
    return scipy.linalg.eigvalsh(a, *args, subset_by_index=eigvals, **kwargs)
