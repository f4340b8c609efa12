"""The power series of the kernel in the cosine of the angle.

As a function of u = cos θ the kernel of every network is

    r = Σ_j a_j u^j,   a_j ≥ 0

since it is positive definite on the spheres of all dimensions. The a_j do not depend on the
dimension, and what they contribute to the eigenvalues is positive, so that eigenvalues far
below the rounding of r itself follow from them.

They are Fourier coefficients of r on a circle |u| < 1: there the recursion runs in complex
numbers. Power series without negative coefficients that sum to 1 map the unit disc into
itself, so that every ρ_ℓ stays inside, where the arc-cosine functions are analytic; their
branch points are met at u = ±1 only.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
import scipy.integrate

from nt_residual import _checks
from nt_residual.rntk import arc_cosine, recursion
from nt_residual.rntk.kernel import ResidualKernel
from nt_residual.rntk.recursion import BlockSums

_EPS = float(np.finfo(np.float64).eps)
# Points on the circle for every coefficient: the more, the nearer the circle is to |u| = 1,
# and the less rounding is amplified, 1e7 times for the last coefficient if they are two.
_POINTS_PER_COEFFICIENT = 2
_LEAST_POINTS = 4096
# The radius to the power of the number of points, the relative error by aliasing.
_ALIASING = 1e-14
# Points whose state fits in the cache.
_CHUNK = 4096
_TOLERANCE = 1e-12
# |1 − ρ|/2 below which κ1 − ρ is a series in θ, of at most 1/2.
_SMALL = 0.06
# Relative errors of coefficients that do not show as noise, and absolute ones of r(π).
_BLOCK_ERROR, _CONTINUUM_ERROR = 1e-14, 1e-11


class Series(NamedTuple):
    """The first terms of the power series of a normalized kernel.

    Attributes:
      coefficients: a_j, shape (count,), not negative.
      error: an estimate of their absolute error, shape (count,).
      rest: a bound on the sums of all further a_j, those with even j and those with odd j.
    """

    coefficients: np.ndarray
    error: np.ndarray
    rest: tuple[float, float]


def power_series(kernel: ResidualKernel, count: int) -> np.ndarray:
    """The coefficients of the kernel as a power series in the cosine of the angle.

        r(θ) = Σ_j a_j cos^j θ,   a_j ≥ 0,   Σ_j a_j = 1

    of the normalized kernel r, whatever `kernel.normalize` is. The kernel of unit inputs in
    dimension d has the share a_k (1 + O(k²/d)) in harmonics of degree k. From an input
    dimension much larger than k² on, the a_k are all that matters of the kernel.

    In the limit of infinite T r jumps from 1/4 to 1 at θ = 0. The jump is in no
    coefficient: they sum to 1/4.

    Rounding adds about 1e-17 to the first coefficients, and 1e-14 to the last of them. Where
    that would leave one that is zero slightly negative, it is zero. The cost is that of
    `at_angle` for 2·count angles, at least 2000: 0.2 s for 1000 coefficients at a depth of 1000.

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
            f"kernel must be a ResidualKernel, got {type(kernel).__name__}. A function of real "
            "angles does not tell its power series accurately."
        )
    count = _checks.integer(count, "count", 1, "Pass the number of terms.")
    # Twice as many, the latter half of which rounding takes most of.
    return expand(kernel, 2 * count).coefficients[:count].copy()


@functools.lru_cache(maxsize=8)
def expand(kernel: ResidualKernel, count: int) -> Series:
    """The power series of a kernel, with what is known about its error.

    Args:
      kernel: a kernel of any depth.
      count: the number of coefficients, at least 1.

    Returns:
      The series of the normalized kernel. Its arrays are shared: leave them as they are.

    Example:
      >>> from nt_residual import rntk, schedules
      >>> block = rntk.ResidualKernel(1, schedules.Constant(1.0), kind="nngp")
      >>> series = expand(block, 100)
      >>> [round(part, 5) for part in series.rest]
      [4e-05, 0.0]
    """
    head, time = _blocks(kernel)
    if time == math.inf:
        return _constant(kernel, count)
    if head is None and time == 0:
        coefficients = _combined(kernel, _vanishing_time(count))
        error = 4 * _EPS * coefficients
    else:
        coefficients, error = _on_circle(kernel, count)
    opposite = float(kernel._at_angle(np.array([math.pi]))[0])
    return Series(coefficients, error, rest(coefficients, opposite, _smooth_error(kernel)))


def _blocks(kernel: ResidualKernel) -> tuple[np.ndarray | None, float]:
    """α of the blocks computed one by one, if any, and T of all others."""
    return kernel._head_and_rest if kernel.depth == math.inf else (kernel._alphas, 0.0)


def _constant(kernel: ResidualKernel, count: int) -> Series:
    """The limit of infinite T, the same at every θ > 0."""
    coefficients = np.zeros(count)
    coefficients[0] = kernel._at_angle(np.array([1.0]))[0]
    return Series(coefficients, np.zeros(count), (0.0, 0.0))


def _vanishing_time(count: int) -> BlockSums:
    """The series of the limit T → 0, where r = (κ1 + u κ0)/2.

    From those of arcsin u and √(1 − u²), with p_n = C(2n, n)/4^n,

        r = u/2 + (1/2π) Σ_n p_n (2n + 1)/(2n − 1)² u^(2n)
    """
    n = np.arange((count + 1) // 2, dtype=np.float64)
    central = np.cumprod(np.concatenate([[1.0], 1 - 1 / (2 * n[1:])]))
    blocks, linear = np.zeros(count), np.zeros(count)
    blocks[0::2] = central * (2 * n + 1) / (2 * math.pi * (2 * n - 1) ** 2)
    blocks[1:2], linear[1:2] = 0.5, 1.0
    return BlockSums(correlation=linear, blocks=blocks, input_layer=linear)


def _combined(kernel: ResidualKernel, sums: BlockSums) -> Any:
    return recursion.combine(sums, kernel.kind, kernel.trained, kernel._total_share)


def rest(coefficients: np.ndarray, opposite: float, error: float) -> tuple[float, float]:
    """What remains of the even and of the odd part of r at u = 1, (r(1) ± r(−1))/2.

    Args:
      coefficients: a_j, shape (count,).
      opposite: r(−1), the kernel at θ = π, where r(1) = 1.
      error: how far it may be off.

    Returns:
      Upper bounds on the sums of all further a_j, those with even j and those with odd j.

    Example:
      >>> rest(np.array([0.25, 0.5]), opposite=0.0, error=0.0)
      (0.25, 0.0)
    """
    even = (1 + opposite) / 2 - math.fsum(coefficients[0::2])
    odd = (1 - opposite) / 2 - math.fsum(coefficients[1::2])
    return max(even, 0.0) + error, max(odd, 0.0) + error


def _on_circle(kernel: ResidualKernel, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and their error by Cauchy's integral, the trapezoidal rule on a circle."""
    points = max(_LEAST_POINTS, _POINTS_PER_COEFFICIENT * count)
    points = 2 * int(scipy.fft.next_fast_len(points // 2))  # type: ignore[arg-type]
    log_radius = math.log(_ALIASING) / points
    # r at conjugate points is conjugate, so half of the circle will do. 1 − u without
    # cancellation near u = 1.
    phase = 2 * math.pi * np.arange(points // 2 + 1) / points
    apart = -np.expm1(log_radius + 1j * phase)
    scaled = np.fft.hfft(_combined(kernel, _sums(kernel, apart)), points) / points
    # The last are far below rounding: what is found there is noise.
    noise = 10 * float(np.sqrt(np.mean(scaled[-points // 16 :] ** 2)))
    growth = np.exp(-log_radius * np.arange(count))
    coefficients = np.maximum(scaled[:count] * growth, 0.0)
    return coefficients, noise * growth + _smooth_error(kernel) * coefficients


def _smooth_error(kernel: ResidualKernel) -> float:
    return _CONTINUUM_ERROR if kernel.depth == math.inf else _BLOCK_ERROR


class _State(NamedTuple):
    """What the recursion carries from block to block, for complex u."""

    apart: Any  # 1 − ρ_ℓ
    blocks: Any  # R_ℓ, in the units of the weights
    remainder: Any  # P_ℓ


def _sums(kernel: ResidualKernel, apart: np.ndarray) -> BlockSums:
    """`recursion.block_sums` or `limits.block_sums` at complex u, from 1 − u."""
    head, time = _blocks(kernel)
    alphas = np.zeros(0) if head is None else head
    shares, weights = recursion.branch_share(alphas), recursion.weights(alphas, time)
    parts = np.array_split(apart, math.ceil(len(apart) / _CHUNK))
    states = [_run(part, shares, weights) for part in parts]
    state = _State(*(np.concatenate(values) for values in zip(*states, strict=True)))
    if time > 0:
        state = _continue(state, time, float(shares.sum()) + time)
    return BlockSums(
        correlation=1 - state.apart,
        blocks=state.blocks / 2,
        input_layer=(1 - apart) * state.remainder,
    )


def _run(apart: np.ndarray, shares: np.ndarray, weights: np.ndarray) -> _State:
    """The recursion over blocks, as in `recursion.run`."""
    blocks, remainder = np.zeros_like(apart), np.ones_like(apart)
    for share, weight in zip(shares, weights, strict=True):
        gain, lost, branch = _arc_cosine(apart)
        fall = share * lost
        apart = apart - share * gain
        blocks = blocks + weight * branch - fall * blocks
        remainder = remainder - fall * remainder
    return _State(apart, blocks, remainder)


def _continue(state: _State, effective_time: float, total: float) -> _State:
    """The recursion of infinitely many blocks, as in `limits`, in τ with t = T τ².

    All points take the same steps. What is left out by them is then analytic in u, as r
    is, and as small in high coefficients as in low ones.
    """
    n = state.apart.size

    def derivative(tau: float, values: np.ndarray) -> np.ndarray:
        apart, blocks, _ = values.reshape(3, n)
        gain, lost, branch = _arc_cosine(apart)
        speed = 2 * effective_time * tau  # dt/dτ
        return speed * np.concatenate([-gain, branch / total - blocks * lost, -lost])

    start = np.concatenate([state.apart, state.blocks, np.zeros(n)])
    # 1 − ρ falls like 1/T², and what is small of it counts.
    least = np.repeat([np.finfo(np.float64).tiny, _TOLERANCE / 100, _TOLERANCE / 100], n)
    solution = scipy.integrate.solve_ivp(
        derivative, (0.0, 1.0), start, method="DOP853", rtol=_TOLERANCE, atol=least
    )
    if not solution.success:
        raise RuntimeError(
            f"the integration over the effective time {effective_time} stopped early: "
            f"{solution.message} Try a smaller c, or a finite depth."
        )
    apart, blocks, log_remainder = solution.y[:, -1].reshape(3, n)
    return _State(apart, blocks, state.remainder * np.exp(log_remainder))


def _arc_cosine(apart: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """κ1 − ρ, 1 − κ0 and κ1 + ρ κ0 of a complex ρ inside the unit disc, from 1 − ρ.

    With z² = (1 − ρ)/2, θ = 2 arcsin z and sin θ = 2z √(1 − z²) are the principal branches.
    """
    square = apart / 2
    z = np.sqrt(square)
    theta = 2 * np.arcsin(z)
    sine = 2 * z * np.sqrt(1 - square)
    correlation = 1 - apart
    gain = (sine - theta * correlation) / math.pi
    # Near ρ = 1, where T is large, the difference would cancel.
    small = np.abs(square) < _SMALL
    if small.any():
        gain[small] = arc_cosine.gain_series(theta[small])
    lost = theta / math.pi
    return gain, lost, recursion.branch_kernel(correlation, gain, lost)
