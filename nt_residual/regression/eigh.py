"""Gradient flow from one dense eigendecomposition, in float64 on the host."""

import numpy as np
import scipy.linalg

from nt_residual.regression.kernel_matrix import check_definite, check_symmetric, rounding
from nt_residual.regression.leave_one_out_predictions import leave_one_out_predictions
from nt_residual.regression.solution import learned


class Eigh:
    """The dual coefficients c_t = V g_t(Λ) Vᵀ y at any time.

    `kernel`, shape (n, n), whose entries were computed in `dtype`, and the targets `y`, shape
    (n, n_outputs), are float64. `centered` tells that `y` is centered, and its mean is fitted too.

    Attributes:
      eigenvalues: Λ, those λ for which λ + δ exceeds rounding, descending, shape (r,).
      eigenvectors: V, shape (n, r).
      targets: Vᵀ y, shape (r, n_outputs).
      ones: Vᵀ 1, shape (r,).
    """

    dtype, iterations = np.dtype(np.float64), 0
    # The eigenvalue of K + δI, if it is not rounding, of all directions that are not kept.
    _beyond = 0.0

    def __init__(
        self, kernel: np.ndarray, y: np.ndarray, *, ridge: float, dtype: np.dtype, centered: bool
    ):
        self.n_train, self._ridge, self._y, self._centered = len(y), ridge, y, centered
        diagonal = np.diagonal(kernel)
        check_symmetric(float(np.max(np.abs(kernel - kernel.T))), dtype, diagonal)
        # In float64: in float32 the error of a small eigenvalue exceeds the eigenvalue.
        # Divide and conquer is the fastest driver where all eigenvectors are wanted.
        values, vectors = scipy.linalg.eigh(kernel, driver="evd")
        check_definite(values[0], values[-1], dtype)
        own = len(values) * np.finfo(np.float64).eps * values[-1]
        cutoff = max(rounding(dtype, diagonal), own)
        kept = slice(None, -1 - int(np.sum(values + ridge > cutoff)), -1)
        self.eigenvalues, self.eigenvectors = values[kept], vectors[:, kept]
        self.targets = self.eigenvectors.T @ y
        self.ones = self.eigenvectors.sum(axis=0)

    def errors(self, times: np.ndarray) -> tuple[np.ndarray, str]:
        """Return `Solution.residual` and `Solution.message`."""
        return np.zeros(len(times)), ""

    def coefficients(self, times: np.ndarray) -> np.ndarray:
        """Return c_t, shape (T, n, n_outputs), float64."""
        return self.eigenvectors @ (self.learned(times)[:, :, None] * self.targets)

    def training_error(self, times: np.ndarray) -> np.ndarray:
        """Return the mean squared residual on the training points, shape (T,)."""
        left = 1 - self.eigenvalues * self.learned(times)
        learnable = np.sum(self.targets**2, axis=1)
        complete = len(self.eigenvalues) == self.n_train
        beyond = 0.0 if complete else max(0.0, np.sum(self._y**2) - np.sum(learnable))
        return (left**2 @ learnable + beyond) / self._y.size

    def degrees_of_freedom(self, times: np.ndarray) -> np.ndarray:
        """Return the trace of the smoother S = K g_t(K), or of J + S(I − J), J = 11ᵀ/n."""
        shares = self.learned(times) * np.maximum(self.eigenvalues, 0)
        if not self._centered:
            return shares.sum(axis=1)
        return 1 + shares @ (1 - self.ones**2 / self.n_train)

    def leave_one_out(self, times: np.ndarray) -> np.ndarray:
        """Return the prediction of each point from the others, shape (T, n, n_outputs)."""
        return self._leave_rows_out(self.eigenvectors, self._y, times)

    def _leave_rows_out(self, vectors: np.ndarray, y: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Return `leave_one_out` of some points: rows of the eigenvectors and of the targets."""
        values, targets = self.eigenvalues + self._ridge, self.targets
        options = {"n": self.n_train, "beyond": self._beyond}
        if not self._centered:
            return leave_one_out_predictions(values, vectors, targets, y, times, **options)
        if self.n_train == 1:
            raise ValueError(
                "leave_one_out with center_targets=True needs at least 2 points, got 1. Pass "
                "center_targets=False to fit."
            )
        # Without point i the mean, and so the centered targets of all others, moves by a constant,
        # `shift`. The flow is linear: its prediction moves by what it learns of that constant.
        shift = -y / (self.n_train - 1)
        targets = np.append(targets, self.ones[:, None], axis=1)
        y = np.append(y, np.ones((len(y), 1)), axis=1)
        found = leave_one_out_predictions(values, vectors, targets, y, times, **options)
        return found[..., :-1] + shift * (1 - found[..., -1:])

    def spectral_range(self) -> tuple[float, float]:
        """Return the smallest eigenvalue of K + δI that is kept, and the largest."""
        return self.eigenvalues[-1] + self._ridge, self.eigenvalues[0] + self._ridge

    def learned(self, times: np.ndarray) -> np.ndarray:
        """Return g_t(λ), shape (T, r)."""
        return learned(self.eigenvalues, times, self.n_train, self._ridge)
