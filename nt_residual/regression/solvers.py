"""Which solver to use, and its set-up."""

import numpy as np

from nt_residual import _checks, gram
from nt_residual.regression import inputs, products, training_kernel
from nt_residual.regression.eigh import Eigh
from nt_residual.regression.lanczos import Lanczos

# Up to this size an eigendecomposition takes about as long as compiling the other.
_LARGEST_EIGH = 2000


def choose(solver: str, kernel: training_kernel.Kernel) -> tuple[str, str]:
    """The name of the solver, and why.

    Raises:
      TypeError: if `solver` is not a string.
      ValueError: if the solver asked for is unknown.
    """
    _checks.choice(solver, "solver", ("auto", "eigh", "lanczos"))
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
    centered: bool,
    tol: float,
    max_iterations: int | None,
    progress: bool,
) -> tuple[Eigh | Lanczos, int]:
    """Return the solver of this name for K/2^e, and e. `GradientFlow.fit` has its arguments.

    K is normalized such that nothing a solver does leaves the range of its dtype, nor depends
    on the scale of K: powers of two change no digit.
    """
    dtype = inputs.float_dtype(kernel)
    if name == "eigh":
        matrix, unit = training_kernel.whole(kernel)
        ridge = _normalized(ridge, unit)
        return Eigh(matrix, y, ridge=ridge, dtype=dtype, exponent=unit, centered=centered), unit
    options = {"tol": tol, "max_iterations": max_iterations, "progress": progress}
    with products.precision(dtype):
        operator, unit = training_kernel.operator(kernel)
        ridge = _normalized(ridge, unit)
        return Lanczos(operator, y, ridge=ridge, exponent=unit, **options), unit


def _normalized(ridge: float, unit: int) -> float:
    # With a ridge so much larger than K nothing is learned.
    return min(float(inputs.scaled(ridge, -unit)), 1e300)
