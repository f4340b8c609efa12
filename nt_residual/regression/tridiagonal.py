"""Functions of the tridiagonal matrices of Lanczos processes, on the host in float64.

With K Q = Q T + β q eᵀ, Q an orthonormal basis that begins with y/|y|, e the last
coordinate vector and q a unit vector orthogonal to Q, the coefficients of gradient flow are

    c_t = g_t(K) y ≈ |y| Q w,   w = g_t(T) e_1,

g_t as in `solution.learned`. Their predictions at the training points are
K c_t = |y| (Q T w + β w_m q), w_m the last entry of w.
"""

import dataclasses

import numpy as np
import scipy.linalg


@dataclasses.dataclass(frozen=True, eq=False)
class Tridiagonals:
    """One T for each output, in its eigenbasis.

    The methods take g_t at the Ritz values, shape (n_outputs, T, m).

    Attributes:
      values: eigenvalues, the Ritz values, shape (n_outputs, m). A process that was over earlier
        has fewer; then the last one is repeated, with eigenvectors that are zero.
      vectors: eigenvectors, shape (n_outputs, m, m).
      last: the last row of the eigenvectors of each T, shape (n_outputs, m).
      beta: the coupling β to the next vector, shape (n_outputs,); 0 where a process is over.
    """

    values: np.ndarray
    vectors: np.ndarray
    last: np.ndarray
    beta: np.ndarray

    @classmethod
    def of(
        cls, diagonal: np.ndarray, coupling: np.ndarray, lengths: np.ndarray, over: np.ndarray
    ) -> "Tridiagonals":
        """Return the matrices of α_1, …, α_m and β_1, …, β_m, as `Krylov` has them."""
        n_outputs, m = diagonal.shape
        values, vectors = np.empty((n_outputs, m)), np.zeros((n_outputs, m, m))
        for i, length in enumerate(lengths):
            found = scipy.linalg.eigh_tridiagonal(diagonal[i, :length], coupling[i, : length - 1])
            values[i] = np.pad(found[0], (0, m - length), mode="edge")
            vectors[i, :length, :length] = found[1]
        outputs = np.arange(n_outputs)
        beta = np.where(over, 0.0, coupling[:, -1])
        return cls(values, vectors, vectors[outputs, lengths - 1], beta)

    def weights(self, learned: np.ndarray) -> np.ndarray:
        """Return w = g_t(T) e_1, shape (n_outputs, T, m)."""
        return (learned * self.vectors[:, :1]) @ self.vectors.transpose(0, 2, 1)

    def fitted(self, learned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return T w, shape (n_outputs, T, m), and β w_m, shape (n_outputs, T)."""
        last = np.einsum("otj,oj->ot", learned, self.vectors[:, 0] * self.last)
        return self.weights(learned * self.values[:, None]), self.beta[:, None] * last

    def bound(self, learned: np.ndarray) -> np.ndarray:
        """Return |β w_m|, a bound on the error of the predictions relative to |y|.

        r_t = |y| Q exp(−tT/n) e_1 solves the equation of the residual y − K c_t,
        dr/dt = −K r/n, but for a term (β/n) |y| q (exp(−tT/n))_m1, and K does not amplify
        the effect of this term. The exponential's entry has one sign for all t, because all
        off-diagonals of T are positive, and so the integral over its size is β |w_m|.

        Reference: Saad 1992 (Krylov approximations to the exponential); Botchev, Grimm &
        Hochbruck 2013 (their residual).
        """
        return np.abs(self.fitted(learned)[1])
