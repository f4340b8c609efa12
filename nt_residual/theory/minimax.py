"""The best possible rate on the sphere, and the stopping time that attains it."""

import math

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks
from nt_residual.theory.harmonics import DIM


def minimax_rate(dim: int) -> float:
    """Return the exponent of the least excess risk that n noisy samples allow.

        excess risk ~ n^(−β/(β+1)) = n^(−d/(2d−1)),   β = d/(d−1)

    for targets in the kernel's RKHS on the sphere S^(d−1). The sorted eigenvalues of a kernel
    with a cusp |θ| decay like i^(−β), and every limit with finite T has one. The exponent is
    between 1/2 for high dimensions and 2/3 on the circle, d = 2.

    Raises:
      TypeError: if `dim` is not an integer.
      ValueError: if it is less than 2.

    Example:
      >>> minimax_rate(3)
      0.6

    Reference: Caponnetto & De Vito 2007; arXiv 2403.04545.
    """
    dim = _checks.integer(dim, "dim", 2, DIM)
    return dim / (2 * dim - 1)


def stopping_time(n: ArrayLike, dim: int, *, scale: float = 1.0) -> float | np.ndarray:
    """Return the time at which to stop gradient flow for the minimax rate.

        t = scale · n^(β/(β+1)),   β = d/(d−1)

    is a time of the flow f_t(x) = k(x, X) K^{-1} (I − exp(−t K/n)) y of
    `regression.GradientFlow`. The constant depends on the noise, the target and the kernel's
    scale. Measure it on held-out data at one n (`regression.holdout`), or estimate it with
    `stopping_scale`. Ridge regression with K + δI, δ = n/t, behaves similarly.

    `n` is the number of training points, a scalar or an array; the result has its shape.

    Raises:
      TypeError: if an argument is not a number, or `dim` not an integer.
      ValueError: if `n` < 1, `dim` < 2 or `scale` is not positive.

    Example:
      >>> round(stopping_time(1000, dim=3), 1)
      63.1

    Reference: Yao, Rosasco & Caponnetto 2007; arXiv 2403.04545.
    """
    exponent = minimax_rate(dim)
    scale = _checks.number(scale, "scale", positive=True)
    times = scale * check_counts(n) ** exponent
    return times if times.ndim else float(times)


def stopping_scale(dim: int, *, noise: float, target_norm: float, prefactor: float) -> float:
    """Estimate the constant of `stopping_time`, by balancing bias and variance.

    With sorted eigenvalues λ_i = C i^(−β), the bias is at most ‖f‖²/(2e t), less for smooth
    targets. The variance is about σ²/n times the number of eigenvalues above 1/t, which is
    (C t)^(1/β). Their sum is least at t = scale · n^(β/(β+1)) with

        scale = (β ‖f‖² / (2e σ²))^(β/(β+1)) · C^(−1/(β+1))

    Args:
      dim: d, at least 2.
      noise: σ, the standard deviation of the noise, positive.
      target_norm: ‖f‖ in the RKHS, positive: ‖f‖² = Σ_k v_k²/λ_k for a target of power
        v_k² in degree k.
      prefactor: C, `sorted_prefactor` of `Spectrum.decay`.

    Raises:
      TypeError: if an argument is not a number.
      ValueError: if one is not positive, or `dim` < 2.

    Example:
      >>> round(stopping_scale(3, noise=1.0, target_norm=2.0, prefactor=0.1), 2)
      2.66
    """
    power = minimax_rate(dim)
    beta = dim / (dim - 1)
    noise = _checks.number(noise, "noise", positive=True)
    norm = _checks.number(target_norm, "target_norm", positive=True)
    prefactor = _checks.number(prefactor, "prefactor", positive=True)
    signal = beta * (norm / noise) ** 2 / (2 * math.e)
    return signal**power * prefactor ** (power - 1)


def check_counts(n: ArrayLike) -> np.ndarray:
    """Return the numbers of training points in float64, having checked that they are ≥ 1."""
    remedy = "Pass the number of training points."
    counts = _checks.real_array(n, "n", remedy)
    if not np.all(counts >= 1):
        raise ValueError(f"n must be at least 1, got {n!r}. {remedy}")
    return counts
