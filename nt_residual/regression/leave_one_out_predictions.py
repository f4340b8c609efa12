"""The prediction of each training point from all others, in closed form.

With K_− the kernel of the other points and k_i the kernel between them and point i, the inverse of
a block matrix gives for every z, complex too,

    k_iᵀ (K_− + z)^{-1} y_− = y_i − c_i(z)/G_ii(z),   G(z) = (K + z)^{-1}, c(z) = G(z) y

and gradient flow is a sum of resolvents, by Cauchy's formula on a curve around 0 and the
negative axis:

    (1 − exp(−τ λ))/λ = (1/2πi) ∫ (e^s/s) (λ + s/τ)^{-1} ds

so that the sum of the right hand sides of the former is gradient flow on the other points.
"""

import math

import numpy as np

# Points on the curve: the error falls like 3.89^(−points), to rounding.
_POINTS = 20
# Of a squared entry of an eigenvector, in float64.
_ROUNDING = 1e-12
# Times are taken together, so that the arrays between have about this many entries.
_ENTRIES = 2**22


def leave_one_out_predictions(
    values: np.ndarray,
    vectors: np.ndarray,
    targets: np.ndarray,
    y: np.ndarray,
    times: np.ndarray,
    *,
    n: int,
    beyond: float = 0.0,
) -> np.ndarray:
    """Return k_iᵀ g_t(K_−) y_− for m of the n points, shape (T, m, n_outputs).

    With g_t(λ) = (1 − exp(−tλ/n))/λ, at t = ∞ the pseudo-inverse. `values`, shape (r,), are the
    eigenvalues of K (with a ridge δ, of K + δI) but for those equal to `beyond`, and `targets` is
    Vᵀ y of all points; `vectors` has the rows of V that belong to the m points, `y` their targets.
    """
    resolvent = _Resolvent(values, vectors, targets, y, beyond, complete=len(values) == n)
    s, weights = _curve()
    found = np.zeros((len(times), *y.shape))
    found[times == math.inf] = y - resolvent.deviation_at_zero()
    finite = np.flatnonzero((times > 0) & (times < math.inf))
    together = max(1, _ENTRIES // (y.size * len(s)))
    for start in range(0, len(finite), together):
        part = finite[start : start + together]
        z = s * n / times[part, None]
        deviation = resolvent.deviation(z.ravel()).reshape(len(y), *z.shape, -1)
        terms = y[:, None, None] - deviation
        found[part] = np.einsum("ntpo,p->tno", terms, weights / s).real
    return found


def _curve() -> tuple[np.ndarray, np.ndarray]:
    """Return points s and weights w: (1/2πi) ∫ e^s F(s) ds ≈ Re Σ w F(s) for a real F.

    Talbot's curve, as modified by Weideman; of two conjugate points one is enough.

    Reference: Trefethen, Weideman & Schmelzer 2006, equation 3.2.
    """
    angle = (2 * np.arange(_POINTS // 2) + 1) * np.pi / _POINTS
    cot = 1 / np.tan(0.6407 * angle)
    s = _POINTS * (0.5017 * angle * cot - 0.6122 + 0.2645j * angle)
    slope = 0.5017 * (cot - 0.6407 * angle * (1 + cot**2)) + 0.2645j
    return s, -2j * np.exp(s) * slope


class _Resolvent:
    """Rows of (K + z)^{-1}, from the eigenvectors of K."""

    def __init__(
        self,
        values: np.ndarray,
        vectors: np.ndarray,
        targets: np.ndarray,
        y: np.ndarray,
        beyond: float,
        *,
        complete: bool,
    ):
        self._values, self._vectors, self._squares = values, vectors, vectors**2
        self._beyond = beyond
        self._targets = targets
        self._rest = y - vectors @ self._targets
        self._rest_share = 1 - self._squares.sum(axis=1)
        # With all eigenvectors there nothing is left but rounding.
        if complete:
            self._rest, self._rest_share = np.zeros_like(y), np.zeros(len(y))

    def deviation(self, z: np.ndarray) -> np.ndarray:
        """Return c_i(z)/G_ii(z) for z of shape (p,), shape (n, p, n_outputs)."""
        inverse, beyond = 1 / (self._values[:, None] + z), 1 / (z + self._beyond)
        learned = inverse[:, :, None] * self._targets[:, None, :]
        flat = _real_times_complex(self._vectors, learned.reshape(len(learned), -1))
        c = flat.reshape(-1, *learned.shape[1:]) + self._rest[:, None, :] * beyond[:, None]
        g = _real_times_complex(self._squares, inverse) + self._rest_share[:, None] / (
            z + self._beyond
        )
        return c / g[:, :, None]

    def deviation_at_zero(self) -> np.ndarray:
        """Return its limit: the residual of least squares, but for points that it fits exactly."""
        if self._beyond > 0:
            return np.real(self.deviation(np.zeros(1)))[:, 0]
        inverse = 1 / self._values
        c = self._vectors @ (inverse[:, None] * self._targets)
        g = self._squares @ inverse
        fitted = self._rest_share <= _ROUNDING
        c = np.where(fitted[:, None], c, self._rest)
        return c / np.where(fitted, g, self._rest_share)[:, None]


def _real_times_complex(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiply without a complex copy of a."""
    return a @ np.real(b) + 1j * (a @ np.imag(b))
