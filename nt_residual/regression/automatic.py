"""Lanczos' method, until something needs all eigenvalues; then an eigendecomposition."""

import functools

import numpy as np

from nt_residual.gram.operators import Operator
from nt_residual.regression import kernel_matrix
from nt_residual.regression.eigh import Eigh
from nt_residual.regression.kernel_matrix import Matrix
from nt_residual.regression.lanczos import Lanczos
from nt_residual.regression.predictions import precision

# Lanczos' method needs at most about √(15 t λ_max/n) products to converge to 1e-4 at the time t
# (Hochbruck & Lubich 1997), and λ_max is at most the trace. For later times, an eigendecomposition
# in float64 is worth its cost.
_LATEST_LANCZOS = 1e4


class Automatic:
    """The dual coefficients c_t, by the cheaper of two solvers.

    It uses 'lanczos' until it is asked for a time later than 10⁴/mean(K_ii), for one at which
    'lanczos' does not converge, or for `eigh`. From then on it uses 'eigh'. A solver is made when
    it is first used. The arguments are those of `Eigh` and of `Lanczos`.
    """

    def __init__(
        self,
        kernel: Matrix,
        operator: Operator,
        y: np.ndarray,
        *,
        ridge: float,
        centered: bool,
        **options,
    ):
        self.n_train = len(y)
        self._kernel, self._operator, self._y = kernel, operator, y
        self._ridge, self._centered, self._options = ridge, centered, options

    @functools.cached_property
    def eigh(self) -> Eigh:
        """The eigendecomposition. Once it is made, it serves everything."""
        options = {"ridge": self._ridge, "dtype": kernel_matrix.float_dtype(self._kernel)}
        matrix = kernel_matrix.on_host(self._kernel)
        return Eigh(matrix, self._y, centered=self._centered, **options)

    @functools.cached_property
    def _lanczos(self) -> Lanczos:
        return Lanczos(self._operator, self._y, ridge=self._ridge, **self._options)

    @property
    def decomposed(self) -> bool:
        """True if the eigendecomposition is made."""
        return "eigh" in vars(self)

    @property
    def _used(self) -> Eigh | Lanczos:
        return self.eigh if self.decomposed else self._lanczos

    def errors(self, times: np.ndarray) -> tuple[np.ndarray, str]:
        """Choose the solver for these times; return residual and message."""
        if not self.decomposed and not self._is_late(times[-1]):
            residual, advice = self._lanczos.errors(times)
            if not advice:
                return residual, advice
        return self.eigh.errors(times)

    def coefficients(self, times: np.ndarray) -> np.ndarray:
        """Return c_t, shape (T, n, n_outputs), at times that `errors` was called with."""
        return self._used.coefficients(times)

    def training_error(self, times: np.ndarray) -> np.ndarray:
        """Return the mean squared residual on the training points, shape (T,), likewise."""
        return self._used.training_error(times)

    def spectral_range(self) -> tuple[float, float]:
        """Return the smallest and the largest eigenvalue, or Ritz value, of K + δI."""
        return self._used.spectral_range()

    @property
    def iterations(self) -> int:
        """The number of products with K; 0 for an eigendecomposition."""
        return self._used.iterations

    @property
    def dtype(self) -> np.dtype:
        """The dtype to compute predictions in."""
        return self._used.dtype

    def _is_late(self, time: float) -> bool:
        if self._ridge > 0:
            time = min(time, self.n_train / self._ridge)
        with precision(self._operator.dtype):
            diagonal = self._operator.diagonal()
        return time * float(np.mean(diagonal)) > _LATEST_LANCZOS
