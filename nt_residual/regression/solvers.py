"""The choice of the solver, and its set-up."""

from typing import Any, Literal, cast

import jax
import numpy as np

from nt_residual import _checks
from nt_residual.regression import kernel_matrix
from nt_residual.regression.eigh import Eigh
from nt_residual.regression.lanczos import Lanczos
from nt_residual.regression.predictions import precision

# Up to this size an eigendecomposition takes about as long as compiling 'lanczos'.
_LARGEST_EIGH = 2000


def choose(solver: str, kernel: kernel_matrix.Matrix) -> Literal["eigh", "lanczos"]:
    """Return the name of the solver.

    Raises:
      TypeError, ValueError: if `solver` is not 'auto', 'eigh' or 'lanczos'.
    """
    _checks.choice(solver, "solver", ("auto", "eigh", "lanczos"))
    if solver != "auto":
        return cast(Any, solver)
    in_memory = isinstance(kernel, np.ndarray | jax.Array) and not kernel_matrix.is_sharded(kernel)
    return "eigh" if in_memory and kernel.shape[0] <= _LARGEST_EIGH else "lanczos"


def fit(
    name: Literal["eigh", "lanczos"],
    kernel: kernel_matrix.Matrix,
    y: np.ndarray,
    *,
    ridge: float,
    centered: bool,
    tol: float,
    max_iterations: int | None,
    progress: bool,
) -> Eigh | Lanczos:
    """Return the solver of this name. `GradientFlow.fit` has its arguments."""
    dtype = kernel_matrix.float_dtype(kernel)
    if name == "eigh":
        matrix = kernel_matrix.on_host(kernel)
        return Eigh(matrix, y, ridge=ridge, dtype=dtype, centered=centered)
    options = {"tol": tol, "max_iterations": max_iterations, "progress": progress}
    with precision(dtype):
        return Lanczos(kernel_matrix.operator(kernel), y, ridge=ridge, **options)
