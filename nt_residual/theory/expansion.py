"""The masses of the degrees from the power series of a kernel in u = cos θ.

In dimension d a power is a mixture of zonal polynomials, with shares that sum to 1,

    u^j = Σ_k p_k(j) P_k(u),   p_k(k) = Π_{i<k} (i + d − 2)/(2i + d − 2)
    p_k(j + 2)/p_k(j) = (j + 1)(j + 2)/((j − k + 2)(j + k + d))

and p_k(j) = 0 where j < k or j − k is odd. So N λ_k = Σ_j a_j p_k(j). Every term is positive, so
that nothing cancels, and masses far below the rounding of the kernel keep most of their digits.

p_k rises until j = k(k + d − 2)/(d − 1) and then falls, the faster the higher the dimension: few
coefficients are needed where quadrature fails.

Reference: Atkinson & Han 2012, Spherical Harmonics, section 2.7; the recurrence is that of
  the closed form in gamma functions there.
"""

import math

import numpy as np

from nt_residual.rntk.taylor import Series

_EPS = float(np.finfo(np.float64).eps)
# Shares that far below the largest of their degree are left out: the first, or the second
# where few terms will do.
_NEGLIGIBLE, _FEW = (1e-13, 1e-9), 2**13


def masses(series: Series, dim: int, max_degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Return N λ_k for all degrees up to one, and an estimate of its absolute error.

    The error is that of the coefficients, all of one sign, plus the bound on the further
    coefficients times the largest of their shares. Both arrays have shape (max_degree + 1,).
    """
    count = len(series.coefficients)
    value, error = np.zeros(max_degree + 1), np.zeros(max_degree + 1)
    for degree in range(max_degree + 1):
        share, beyond = _shares(dim, degree, count)
        parity = slice(degree, count, 2)
        value[degree] = share @ series.coefficients[parity]
        error[degree] = share @ series.error[parity] + beyond * series.rest[degree % 2]
    # The shares are products of up to count/2 factors.
    return value, error + 4 * _EPS * math.sqrt(count) * value


def _shares(dim: int, degree: int, count: int) -> tuple[np.ndarray, float]:
    """p_k(j) for j = k, k + 2, … < count, and the largest p_k(j) of j ≥ count."""
    if degree >= count:
        return np.zeros(0), 1.0
    ratio = _ratios(dim, degree, count + 2)
    top = min(_steps_to_peak(dim, degree), len(ratio))
    # From the peak outwards, so that nothing underflows that matters.
    i = np.arange(1.0, degree)
    log_peak = math.fsum(np.log(ratio[:top])) - math.fsum(np.log1p(i / (i + dim - 2)))
    below = np.cumprod(1 / ratio[:top][::-1])[::-1]
    relative = np.concatenate([below, [1.0], np.cumprod(ratio[top:])])
    share = math.exp(log_peak) * relative
    # Where the powers end before the peak nothing better than Σ_k p_k = 1 is known.
    beyond = float(share[-1]) if top < len(ratio) else 1.0
    return share[:-1], beyond


def count_needed(dim: int, degree: int, largest: int) -> int:
    """Return the number ≤ `largest` of powers that hold all but a negligible share of a degree."""
    top = _steps_to_peak(dim, degree)
    log_share = np.cumsum(np.log(_ratios(dim, degree, largest)[top:]))
    fine, coarse = (
        degree + 2 * (top + int(past)) + 3
        for past in np.searchsorted(-log_share, -np.log(_NEGLIGIBLE))
    )
    return min(largest, max(coarse, min(fine, _FEW)))


def _ratios(dim: int, degree: int, count: int) -> np.ndarray:
    """p_k(j + 2)/p_k(j) for j = k, k + 2, …, where j + 2 < count."""
    j = np.arange(degree, count - 2, 2, dtype=np.float64)
    return (j + 1) * (j + 2) / ((j - degree + 2) * (j + degree + dim))


def _steps_to_peak(dim: int, degree: int) -> int:
    """Return the number of steps of 2 from j = k to the largest p_k(j)."""
    peak = degree * (degree + dim - 2) // (dim - 1)
    return max(0, (peak - degree) // 2)
