"""What gradient flow does along an eigendirection of the kernel."""

import numpy as np


def learned(
    values: np.ndarray, times: np.ndarray, n: int, ridge: float, cutoff: float
) -> np.ndarray:
    """g_t(λ) = (1 − exp(−t (λ + δ)/n))/(λ + δ), and 0 where λ + δ cannot be told from 0.

    Args:
      values: eigenvalues λ, shape (r,).
      times: t, shape (T,), infinity included.
      n: the number of training points.
      ridge: δ.
      cutoff: eigenvalues λ + δ up to it are taken to be zero.

    Returns:
      Shape (T, r).
    """
    shifted = values + ridge
    kept = shifted > cutoff
    shifted = np.where(kept, shifted, 1.0)
    with np.errstate(over="ignore"):
        return np.where(kept, -np.expm1(-times[:, None] * shifted / n) / shifted, 0.0)
