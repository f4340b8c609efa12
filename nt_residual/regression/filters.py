"""The spectral filter of gradient flow: the factor of each eigendirection of the kernel."""

import numpy as np


def learned(
    values: np.ndarray, times: np.ndarray, n: int, ridge: float, cutoff: float = 0.0
) -> np.ndarray:
    """Return g_t(λ) = (1 − exp(−t (λ + δ)/n))/(λ + δ), or 0 where λ + δ ≤ `cutoff`.

    For eigenvalues of shape (…, r), times (T,) and the ridge δ the shape is (…, T, r).
    """
    shifted = values[..., None, :] + ridge
    kept = shifted > cutoff
    shifted = np.where(kept, shifted, 1.0)
    with np.errstate(over="ignore"):
        return np.where(kept, -np.expm1(-times[:, None] * shifted / n) / shifted, 0.0)
