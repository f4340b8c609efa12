"""Gradient flow with a kernel that is projected onto landmarks: in as many dimensions."""

import numpy as np
import scipy.linalg

from nt_residual import gram
from nt_residual.regression.eigh import Eigh
from nt_residual.regression.kernel_matrix import rounding


class Projected(Eigh):
    r"""The eigendirections of ΦΦᵀ, from those of ΦᵀΦ = V Λ Vᵀ: U = Φ V Λ^{−1/2}.

    `eigenvectors`, shape (M, r), has the coefficients of k(x, Z) that give k̂(x, X) U: dual
    coefficients belong to the landmarks, and not to the training inputs.

    Args:
      kernel: the projected kernel.
      y: targets, float64, shape (n, n_outputs).
      ridge: δ ≥ 0.
      centered: whether `y` is centered, and its mean is fitted too.
    """

    def __init__(self, kernel: gram.LowRank, y: np.ndarray, *, ridge: float, centered: bool):
        self.n_train, self._ridge, self._y, self._centered = len(y), ridge, y, centered
        self._kernel = kernel
        second, first = kernel.moments(np.append(y, np.ones((len(y), 1)), axis=1))
        values, vectors = scipy.linalg.eigh(second, driver="evd", overwrite_a=True)
        largest = np.max(kernel.landmark_diagonal)
        cutoff = rounding(kernel.dtype, np.broadcast_to(largest, len(y)))
        kept = slice(None, -1 - int(np.sum(values + ridge > cutoff)), -1)
        self.eigenvalues, self._vectors = values[kept], vectors[:, kept]
        self._beyond = ridge if ridge > cutoff else 0.0
        roots = np.sqrt(self.eigenvalues)
        projected = self._vectors.T @ first / roots[:, None]
        self.targets, self.ones = projected[:, :-1], projected[:, -1]
        self.eigenvectors = kernel.basis @ (self._vectors * roots)

    def leave_one_out(self, times: np.ndarray) -> np.ndarray:
        """Return the prediction of each point from the others, shape (T, n, n_outputs)."""
        found = np.empty((len(times), *self._y.shape))
        for part, features in self._kernel.feature_tiles():
            rows = self._eigenvectors_of(features)
            found[:, part] = self._leave_rows_out(rows, self._y[part], times)
        return found

    @property
    def landmarks(self) -> np.ndarray:
        """The landmarks, shape (M, …)."""
        return self._kernel.landmarks

    def cross_moments(self, other: gram.LowRank) -> np.ndarray:
        """Return Ψᵀ U, with the features Ψ of another kernel of the same inputs."""
        found = np.zeros((other.rank, len(self.eigenvalues)))
        for part, features in self._kernel.feature_tiles():
            theirs = other.features(self._kernel.x[part]).astype(np.float64)
            found += theirs.T @ self._eigenvectors_of(features)
        return found

    def _eigenvectors_of(self, features: np.ndarray) -> np.ndarray:
        """Return rows of U from rows of Φ."""
        return features.astype(np.float64) @ (self._vectors / np.sqrt(self.eigenvalues))
