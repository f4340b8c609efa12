"""Which solver to use, and its set-up."""

import numpy as np

from nt_residual import gram
from nt_residual.regression import inputs, products, training_kernel
from nt_residual.regression.eigh import Eigh
from nt_residual.regression.lanczos import Lanczos

# Up to this size an eigendecomposition takes about as long as compiling the other.
_LARGEST_EIGH = 2000


def choose(solver: str, kernel: training_kernel.Kernel) -> tuple[str, str]:
    """The name of the solver, and why.

    Raises:
      ValueError: if the solver asked for is unknown.
    """
    if solver not in ("auto", "eigh", "lanczos"):
        raise ValueError(f"solver must be 'auto', 'eigh' or 'lanczos', got {solver!r}.")
    if solver != "auto":
        return solver, "It was asked for."
    n = kernel.shape[0]
    if isinstance(kernel, gram.MatrixFree):
        return "lanczos", "The kernel matrix is never stored."
    if isinstance(kernel, gram.Stored):
        return "lanczos", "The kernel matrix is on disk."
    if training_kernel.is_sharded(kernel):
        return "lanczos", "The kernel matrix is spread over devices."
    if n <= _LARGEST_EIGH:
        return "eigh", f"One eigendecomposition is fast for n = {n} ≤ {_LARGEST_EIGH}."
    return "lanczos", f"An eigendecomposition is slow for n = {n} > {_LARGEST_EIGH}."


def fit(
    name: str,
    kernel: training_kernel.Kernel,
    y: np.ndarray,
    *,
    ridge: float,
    tol: float,
    max_iterations: int | None,
    progress: bool,
) -> Eigh | Lanczos:
    """The solver of this name, ready to be asked. `GradientFlow.fit` has its arguments."""
    dtype = inputs.float_dtype(kernel)
    if name == "eigh":
        return Eigh(training_kernel.whole(kernel), y, ridge=ridge, dtype=dtype)
    options = {"tol": tol, "max_iterations": max_iterations, "progress": progress}
    with products.precision(dtype):
        return Lanczos(training_kernel.operator(kernel), y, ridge=ridge, **options)
