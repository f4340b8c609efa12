"""Functions of the tridiagonal matrix of a Lanczos process, on the host in float64.

With K Q = Q T + β q eᵀ, Q an orthonormal basis that begins with y/|y|, e the last
coordinate vector and q a unit vector orthogonal to Q, the coefficients of gradient flow are

    c_t = g_t(K) y ≈ |y| Q g_t(T) e_1

(`filters.learned` has g_t). Their predictions at the training points are
|y| (Q T g_t(T) e_1 + β q w_m), w_m the last entry of w = g_t(T) e_1.
"""

import dataclasses

import numpy as np
import scipy.linalg


@dataclasses.dataclass(frozen=True, eq=False)
class Tridiagonal:
    """T in its eigenbasis.

    Attributes:
      values: eigenvalues, the Ritz values, ascending, shape (m,).
      vectors: eigenvectors, shape (m, m).
      beta: the coupling to what lies beyond; 0 if there is nothing.
    """

    values: np.ndarray
    vectors: np.ndarray
    beta: float

    @classmethod
    def of(cls, diagonal: np.ndarray, coupling: np.ndarray, over: bool) -> "Tridiagonal":
        """From α_1, …, α_m and β_1, …, β_m, of which the last one leads out, or to nothing."""
        values, vectors = scipy.linalg.eigh_tridiagonal(diagonal, coupling[:-1])
        return cls(values, vectors, 0.0 if over else float(coupling[-1]))

    def weights(self, learned: np.ndarray) -> np.ndarray:
        """From g_t at the Ritz values: w = g_t(T) e_1 at each time; both of shape (T, m)."""
        return (learned * self.vectors[0]) @ self.vectors.T

    def fitted(self, learned: np.ndarray) -> np.ndarray:
        """T w and β w_m: the predictions in the basis and its next vector, shape (T, m + 1)."""
        inside = self.weights(learned * self.values)
        return np.append(inside, self.beta * self.last(learned)[:, None], axis=1)

    def last(self, learned: np.ndarray) -> np.ndarray:
        """w_m at each time, shape (T,)."""
        return learned @ (self.vectors[0] * self.vectors[-1])

    def bound(self, learned: np.ndarray) -> np.ndarray:
        """A bound on the error of the predictions, relative to |y|, at each time: |β w_m|.

        r_t = |y| Q exp(−tT/n) e_1 solves the equation of the residual y − K c_t,
        dr/dt = −K r/n, but for a term (β/n) |y| q (exp(−tT/n))_m1, and K does not amplify
        what that does. The exponential's entry has one sign for all t, because all
        off-diagonals of T are positive, and so the integral over its size is β |w_m|.
        At t = ∞ it is the residual of conjugate gradients itself. With a ridge the
        same holds for K + δI.

        Reference: Saad 1992 (Krylov approximations to the exponential); Botchev, Grimm &
        Hochbruck 2013 (their residual).
        """
        return np.abs(self.beta * self.last(learned))
