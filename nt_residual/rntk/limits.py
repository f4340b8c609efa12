"""The kernels of residual networks of infinite depth, one per regime.

With α = c·L^(−γ) the effective time T = Σ log(1 + α²) decides (arXiv 2403.04545):

* T → 0 (γ > 1/2): the network stays linear and its blocks act on the input
  alone, so r is the NTK of one hidden layer, (κ1 + u κ0)/2;
* T finite (γ = 1/2): the recursion over blocks becomes a differential equation;
* T → ∞ (γ < 1/2): r is 1/4 for every θ > 0, and 1 at θ = 0.
"""

import math

import numpy as np
import scipy.integrate

from nt_residual.rntk import arc_cosine
from nt_residual.rntk.recursion import BlockSums, half_angle_to_angle


def block_sums(theta: np.ndarray, effective_time: float) -> BlockSums:
    """The sums of `recursion.block_sums` for infinitely many blocks.

    Args:
      theta: angles between inputs in radians, in [0, π], float64, any shape.
      effective_time: the limit of T, in [0, ∞].

    Returns:
      The sums as float64 arrays of the shape of `theta`.

    Example:
      >>> import numpy as np
      >>> block_sums(np.arccos([0.5]), 1.0).blocks.round(4)
      array([0.4399])
    """
    if effective_time == 0:
        return _vanishing_time(theta)
    if effective_time == math.inf:
        return _infinite_time(theta)
    return _finite_time(theta, effective_time)


def _vanishing_time(theta: np.ndarray) -> BlockSums:
    correlation = np.cos(theta)
    branch = arc_cosine.kappa1(theta) + correlation * arc_cosine.kappa0(theta)
    return BlockSums(correlation=correlation, blocks=branch / 2, input_layer=correlation)


def _infinite_time(theta: np.ndarray) -> BlockSums:
    same = theta == 0
    return BlockSums(
        correlation=np.ones_like(theta),
        blocks=np.where(same, 1.0, 0.25),
        input_layer=np.where(same, 1.0, 0.0),
    )


def _finite_time(theta: np.ndarray, effective_time: float) -> BlockSums:
    """Integrates the recursion's continuous form over the effective time t in [0, T].

    With s_ℓ = dt the recursion becomes

        d sin²(θ/2)/dt = −(κ1 − ρ)/2,   dR/dt = κ1 + ρ κ0 − R θ/π,   d log P/dt = −θ/π.

    The state holds q = −log(sin²(θ_t/2)/sin²(θ_0/2)) rather than an angle, which keeps
    relative accuracy for the smallest angles and the longest times. Near θ = π the
    angle moves like √t, which is not smooth at t = 0: in τ with t = T τ² everything is.
    """
    start = theta.ravel()
    n = start.size
    sin2, cos2 = np.sin(start / 2) ** 2, np.cos(start / 2) ** 2

    def half_angle(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return sin2 * np.exp(-q), cos2 - sin2 * np.expm1(-q)

    def derivative(tau: float, state: np.ndarray) -> np.ndarray:
        q, blocks, _ = state.reshape(3, n)
        sin2_t, cos2_t = half_angle(q)
        angle = half_angle_to_angle(sin2_t, cos2_t)
        correlation = cos2_t - sin2_t
        gain = arc_cosine.kappa1_gain(angle)
        branch = correlation + gain + correlation * arc_cosine.kappa0(angle)
        fall = gain / (2 * np.where(sin2_t > 0, sin2_t, 1.0))
        lost = angle / math.pi
        speed = 2 * effective_time * tau  # dt/dτ
        return speed * np.concatenate([fall, branch - blocks * lost, -lost])

    solution = scipy.integrate.solve_ivp(
        derivative, (0.0, 1.0), np.zeros(3 * n), method="DOP853", rtol=1e-12, atol=1e-13
    )
    if not solution.success:
        raise RuntimeError(
            f"the integration over the effective time {effective_time} stopped early: "
            f"{solution.message} Try a smaller c, or a finite depth."
        )
    q, blocks, log_remainder = solution.y[:, -1].reshape(3, n)
    sin2_end, cos2_end = half_angle(q)
    sums = BlockSums(
        correlation=cos2_end - sin2_end,
        blocks=blocks / (2 * effective_time),
        input_layer=np.cos(start) * np.exp(log_remainder),
    )
    return BlockSums(*(values.reshape(theta.shape) for values in sums))
