"""The power series of the kernel in the cosine of the angle.

As a function of u = cos θ the kernel of every network is

    r = Σ_j a_j u^j,   a_j ≥ 0

because it is positive definite on the spheres of all dimensions. The a_j do not depend on the
dimension, and their contributions to the eigenvalues are positive. So they give eigenvalues
that are far below the rounding error of r itself.

The a_j are Fourier coefficients of r on a circle |u| < 1, computed by the recursion in complex
numbers. A power series whose coefficients are not negative and sum to 1 maps the unit disc
into itself, so every ρ_ℓ stays inside. The arc-cosine functions are analytic there, with
branch points only at u = ±1.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import scipy.fft

from nt_residual import _checks
from nt_residual.rntk import recursion
from nt_residual.rntk.kernel import ResidualKernel
from nt_residual.rntk.recursion import BlockSums

_EPS = float(np.finfo(np.float64).eps)
# Points on the circle per coefficient. With more points the circle is closer to |u| = 1, and
# rounding is amplified less. With two points it is amplified 1e7 times in the last coefficient.
_POINTS_PER_COEFFICIENT = 2
_LEAST_POINTS = 4096
# The relative error by aliasing, which is the radius to the power of the number of points.
_ALIASING = 1e-14
# Errors that do not show as noise: relative ones of coefficients, absolute ones of r(π).
_BLOCK_ERROR, _CONTINUUM_ERROR = 1e-14, 1e-11


class Series(NamedTuple):
    """The first terms of the power series of a normalized kernel."""

    coefficients: np.ndarray  # a_j ≥ 0, shape (count,)
    error: np.ndarray  # An estimate of their absolute error, shape (count,).
    rest: tuple[float, float]  # Bounds on the sums of all further a_j, of even and of odd j.


def power_series(kernel: ResidualKernel, count: int) -> np.ndarray:
    """Return the coefficients of the kernel as a power series in the cosine of the angle.

        r(θ) = Σ_j a_j cos^j θ,   a_j ≥ 0,   Σ_j a_j = 1

    where r is the normalized kernel, whatever `kernel.normalize` is. In the limit of infinite T
    the a_j sum to 1/4, since r jumps to 1 at θ = 0. If the dimension d is much larger than k²,
    harmonics of degree k have the share a_k of the kernel.

    Rounding adds about 1e-17 to the first coefficients, and 1e-14 to the last. The cost is the
    same as for `at_angle` with 2·count angles, at least 2000.

    Args:
      kernel: a kernel of any depth.
      count: the number of coefficients, a_0 to a_(count−1), at least 1.

    Returns:
      a_j, float64, shape (count,).

    Raises:
      TypeError: if `kernel` is no `ResidualKernel`, or `count` no integer.
      ValueError: if `count` < 1.

    Example:
      >>> from nt_residual import rntk, schedules
      >>> limit = rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma=1.0))
      >>> power_series(limit, 5).round(6) + 0.0
      array([0.159155, 0.5     , 0.238732, 0.      , 0.033157])

    Reference: Schoenberg 1942, Positive definite functions on spheres; Bornemann 2011,
      Accuracy and stability of computing high-order derivatives of analytic functions by
      Cauchy integrals.
    """
    if not isinstance(kernel, ResidualKernel):
        raise TypeError(
            f"kernel must be a ResidualKernel, got {type(kernel).__name__}. Values at real angles "
            "do not determine a power series accurately."
        )
    count = _checks.integer(count, "count", 1, "Pass the number of terms.")
    # Compute twice as many, since rounding spoils most of the second half.
    return expand(kernel, 2 * count).coefficients[:count].copy()


@functools.lru_cache(maxsize=8)
def expand(kernel: ResidualKernel, count: int) -> Series:
    """Return the first `count` terms of a kernel's power series, with their errors.

    The arrays are shared between calls: do not modify them.
    """
    head, time = kernel._head_and_rest
    if time == math.inf:
        # r is constant for θ > 0.
        coefficients = np.append(kernel._at_angle(np.array([1.0])), np.zeros(count - 1))
        return Series(coefficients, np.zeros(count), (0.0, 0.0))
    # Relative error of coefficients, absolute error of r(π).
    smooth = _CONTINUUM_ERROR if kernel.depth == math.inf else _BLOCK_ERROR
    if head is None and time == 0:
        sums = _vanishing_time(count)
        coefficients = recursion.combine(sums, kernel.kind, kernel.trained, kernel._total_share)
        error = 4 * _EPS * coefficients
    else:
        coefficients, noise = _on_circle(kernel, count)
        error = noise + smooth * coefficients
    opposite = float(kernel._at_angle(np.array([math.pi]))[0])
    return Series(coefficients, error, rest(coefficients, opposite, smooth))


def _vanishing_time(count: int) -> BlockSums:
    """Return the series in the limit T → 0, where r = (κ1 + u κ0)/2.

    From the series of arcsin u and √(1 − u²), with p_n = C(2n, n)/4^n,

        r = u/2 + (1/2π) Σ_n p_n (2n + 1)/(2n − 1)² u^(2n)
    """
    n = np.arange((count + 1) // 2, dtype=np.float64)
    central = np.cumprod(np.concatenate([[1.0], 1 - 1 / (2 * n[1:])]))
    blocks, linear = np.zeros(count), np.zeros(count)
    blocks[0::2] = central * (2 * n + 1) / (2 * math.pi * (2 * n - 1) ** 2)
    blocks[1:2], linear[1:2] = 0.5, 1.0
    return BlockSums(correlation=linear, blocks=blocks, input_layer=linear)


def rest(coefficients: np.ndarray, opposite: float, error: float) -> tuple[float, float]:
    """Return bounds on the sums of all further a_j, those with even j and those with odd j.

    The even and the odd part of r at u = 1 are (r(1) ± r(−1))/2, where r(1) = 1 and r(−1) is
    `opposite`, with an error of at most `error`.
    """
    even = (1 + opposite) / 2 - math.fsum(coefficients[0::2])
    odd = (1 - opposite) / 2 - math.fsum(coefficients[1::2])
    return max(even, 0.0) + error, max(odd, 0.0) + error


def _on_circle(kernel: ResidualKernel, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients by Cauchy's integral, and the noise in them.

    The trapezoidal rule on a circle of radius ϱ with N points is a Fourier transform,

        a_j ϱ^j = (1/N) Σ_n r(ϱ e^(2πin/N)) e^(−2πijn/N).
    """
    points = max(_LEAST_POINTS, _POINTS_PER_COEFFICIENT * count)
    points = 2 * int(scipy.fft.next_fast_len(points // 2))  # type: ignore[arg-type]
    log_radius = math.log(_ALIASING) / points
    # r at conjugate points is conjugate, so half of the circle is enough. sin²(θ/2) = (1 − u)/2 is
    # computed without cancellation near u = 1.
    phase = 2 * math.pi * np.arange(points // 2 + 1) / points
    sin2 = -np.expm1(log_radius + 1j * phase) / 2
    scaled = np.fft.hfft(kernel._of_half_angle(sin2, 1 - sin2), points) / points
    # The last coefficients are far below rounding error, so they show the noise. At indices that
    # are simple fractions of N, the noise is up to 16 times the typical one.
    noise = 20 * float(np.sqrt(np.mean(scaled[-points // 16 :] ** 2)))
    growth = np.exp(-log_radius * np.arange(count))
    return np.maximum(scaled[:count] * growth, 0.0), noise * growth
