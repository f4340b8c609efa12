"""Gradient flow from one dense eigendecomposition, in float64 on the host."""

import numpy as np
import scipy.linalg

from nt_residual.regression import filters, loo
from nt_residual.regression.inputs import check_definite, check_symmetric, rounding
from nt_residual.regression.solution import Report


class Eigh:
    """Dual coefficients c_t = V g_t(Λ) Vᵀ y at any time.

    Args:
      kernel: K, float64, shape (n, n).
      y: targets, float64, shape (n, n_outputs).
      ridge: δ ≥ 0.
      dtype: that in which the entries of K were computed.

    Attributes:
      eigenvalues: Λ, those of K for which λ + δ is more than rounding, of the entries or of
        the decomposition, descending, shape (r,).
      eigenvectors: V, shape (n, r).
      targets: Vᵀ y, shape (r, n_outputs).

    Raises:
      ValueError: if K is not symmetric or has a clearly negative eigenvalue.
    """

    def __init__(self, kernel: np.ndarray, y: np.ndarray, *, ridge: float, dtype: np.dtype):
        self.n_train, self._ridge, self._y = len(y), ridge, y
        diagonal = np.diagonal(kernel)
        check_symmetric(float(np.max(np.abs(kernel - kernel.T))), dtype, diagonal)
        # float64: at float32 the error of a small eigenvalue exceeds the eigenvalue.
        # Divide and conquer is the fastest driver where all eigenvectors are wanted.
        values, vectors = scipy.linalg.eigh(kernel, driver="evd")
        check_definite(values[0], values[-1], dtype)
        # The latter is what numpy.linalg.matrix_rank takes to be zero.
        own = len(values) * np.finfo(np.float64).eps * values[-1]
        cutoff = max(rounding(dtype, diagonal), own)
        kept = slice(None, -1 - int(np.sum(values + ridge > cutoff)), -1)
        self.eigenvalues, self.eigenvectors = values[kept], vectors[:, kept]
        self.targets = self.eigenvectors.T @ y

    def report(self, times: np.ndarray) -> Report:
        """All times are known as well as the eigendecomposition is."""
        return Report(np.zeros(len(times)), 0, True, "One eigendecomposition in float64.")

    def coefficients(self, times: np.ndarray) -> np.ndarray:
        """c_t, shape (T, n, n_outputs), float64."""
        return self.eigenvectors @ (self._learned(times)[:, :, None] * self.targets)

    def training_error(self, times: np.ndarray) -> np.ndarray:
        """The mean squared residual on the training points, shape (T,)."""
        left = 1 - self.eigenvalues * self._learned(times)
        learnable = np.sum(self.targets**2, axis=1)
        beyond = 0.0 if self._complete else max(0.0, np.sum(self._y**2) - np.sum(learnable))
        return (left**2 @ learnable + beyond) / self._y.size

    def degrees_of_freedom(self, times: np.ndarray) -> np.ndarray:
        """The trace of the smoother K g_t(K), shape (T,)."""
        return self._learned(times) @ np.maximum(self.eigenvalues, 0)

    def leave_one_out(self, times: np.ndarray) -> np.ndarray:
        """What the other points predict of each, shape (T, n, n_outputs)."""
        return loo.predictions(self.eigenvalues + self._ridge, self.eigenvectors, self._y, times)

    def spectral_range(self) -> tuple[float, float]:
        """The smallest eigenvalue of K + δI that is kept, and the largest."""
        return self.eigenvalues[-1] + self._ridge, self.eigenvalues[0] + self._ridge

    @property
    def _complete(self) -> bool:
        """Whether no eigenvalue was taken to be zero."""
        return len(self.eigenvalues) == self.n_train

    def _learned(self, times: np.ndarray) -> np.ndarray:
        """g_t(λ), shape (T, r)."""
        # Those up to the cut-off are not among the eigenvalues any more.
        return filters.learned(self.eigenvalues, times, self.n_train, self._ridge, 0.0)
