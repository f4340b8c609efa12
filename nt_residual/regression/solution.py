"""The dual coefficients of gradient flow, c_t = g_t(K) y, and how well they are known."""

import dataclasses
from typing import Literal

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """The dual coefficients of gradient flow, with their status and an estimate of their error.

    The predictions at time t are k(x, X) c_t + `GradientFlow.offset`.

    Attributes:
      value: c_t, shape (n, n_outputs), or (T, n, n_outputs) for a vector of times, without
        the last axis where `y` had one dimension.
      times: the times, a scalar or shape (T,).
      status: 'converged' if `residual` is at most the `tol` of the fit at every time.
      message: what to do if the solution has not converged, else empty.
      iterations: the number of products of the kernel matrix with the targets; 0 for 'eigh'.
      residual: an estimate of the error of the predictions at the training points: root mean
        square, relative to that of the targets, for the worst output. A scalar or shape (T,).
        0 for 'eigh', which has rounding in float64 only.
    """

    value: np.ndarray
    times: np.ndarray
    status: Literal["converged", "not converged"]
    message: str
    iterations: int
    residual: np.ndarray

    def __repr__(self) -> str:
        return (
            f"Solution(status={self.status!r}, residual≤{np.max(self.residual):.1e}, "
            f"iterations={self.iterations}, value of shape {self.value.shape})"
        )


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
