"""The kernels of residual networks of infinite depth, one per regime.

With α = c·L^(−γ) the effective time T = Σ log(1 + α²) decides (arXiv 2403.04545):

* T → 0 (γ > 1/2): the network stays linear and its blocks act on the input
  alone, so r is the NTK of one hidden layer, (κ1 + u κ0)/2;
* T finite (γ = 1/2): the recursion over blocks becomes a differential equation;
* T → ∞ (γ < 1/2): r is 1/4 for every θ > 0, and 1 at θ = 0.

Where the first blocks keep their α as more are added, as with α_ℓ = 1/ℓ, they stay
blocks, and only the rest becomes one of these.
"""

import math

import numpy as np
import scipy.integrate

from nt_residual import schedules
from nt_residual.rntk import arc_cosine, recursion
from nt_residual.rntk.recursion import BlockSums

# How many blocks are computed one by one, where they keep their α as blocks are added.
_HEAD = 16384


def split(schedule: schedules.Schedule, effective_time: float) -> tuple[np.ndarray | None, float]:
    """Splits infinitely many blocks into first ones and a continuum.

    Args:
      schedule: α as a function of depth.
      effective_time: the limit of T = Σ log(1 + α²), in [0, ∞].

    Returns:
      α of the blocks that stay as they are when more are added, or `None`; and T of all
      others, whose α are small.

    Raises:
      ValueError: if the first blocks alone have a larger T, or some α neither stay nor fall.
    """
    if effective_time == math.inf:
        return None, math.inf
    head, more = (schedules.alphas_of(schedule, depth) for depth in (_HEAD, 2 * _HEAD))
    if not np.array_equal(head, more[:_HEAD]):
        if effective_time > 0 and more.max() > 0.99 * head.max():
            raise ValueError(
                f"α must fall in all blocks as depth grows, or each must stay as it is, got {more} "
                f"at depth {2 * _HEAD} after {head} at depth {_HEAD}. What single blocks of large "
                "α do is not in effective_time: pass a large finite depth."
            )
        return None, effective_time
    if not head.any():
        return None, effective_time
    rest = effective_time - schedules.effective_time(head)
    if rest < -1e-9 * effective_time:
        raise ValueError(
            f"effective_time={effective_time} is less than Σ log(1 + α²) of the first {len(head)} "
            f"blocks alone, {effective_time - rest}. Pass the sum over all blocks, or math.inf if "
            "it diverges."
        )
    return head, max(rest, 0.0)


def block_sums(
    theta: np.ndarray, effective_time: float, head: np.ndarray | None = None
) -> BlockSums:
    """The sums of `recursion.block_sums` for infinitely many blocks.

    Args:
      theta: angles between inputs in radians, in [0, π], float64, any shape.
      effective_time: T of the blocks whose α tend to zero uniformly, in [0, ∞].
      head: α of the blocks that come before them and stay as they are, if any.

    Returns:
      The sums as float64 arrays of the shape of `theta`.

    Example:
      >>> import numpy as np
      >>> block_sums(np.arccos([0.5]), 1.0).blocks.round(4)
      array([0.4399])
    """
    if effective_time == math.inf:
        return _infinite_time(theta)
    if head is not None:
        return _finite_time(theta, effective_time, head)
    return _vanishing_time(theta) if effective_time == 0 else _finite_time(theta, effective_time)


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


def _finite_time(
    theta: np.ndarray, effective_time: float, head: np.ndarray | None = None
) -> BlockSums:
    """Integrates the recursion's continuous form over the effective time t in [0, T].

    With s_ℓ = dt the recursion becomes

        d sin²(θ/2)/dt = −(κ1 − ρ)/2,   dR/dt = κ1 + ρ κ0 − R θ/π,   d log P/dt = −θ/π.

    The state holds q = −log(sin²(θ_t/2)/sin²(θ_0/2)) rather than an angle, which keeps
    relative accuracy for the smallest angles and the longest times. Near θ = π the
    angle moves like √t, which is not smooth at t = 0: in τ with t = T τ² everything is.
    """
    head = np.zeros(0) if head is None else head
    total = float(recursion.branch_share(head).sum()) + effective_time
    first = recursion.run(theta.ravel(), head, recursion.weights(head, effective_time))
    sin2, cos2 = first.sin2, first.cos2
    n = theta.size

    def half_angle(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return sin2 * np.exp(-q), cos2 - sin2 * np.expm1(-q)

    def derivative(tau: float, state: np.ndarray) -> np.ndarray:
        q, blocks, _ = state.reshape(3, n)
        # Steps that will be rejected may leave the solution's range.
        sin2_t, cos2_t = half_angle(np.maximum(q, 0))
        angle = recursion.half_angle_to_angle(sin2_t, cos2_t)
        gain, lost = arc_cosine.kappa1_gain(angle), angle / math.pi
        branch = recursion.branch_kernel(cos2_t - sin2_t, gain, lost)
        fall = gain / (2 * np.where(sin2_t > 0, sin2_t, 1.0))
        speed = 2 * effective_time * tau  # dt/dτ
        return speed * np.concatenate([fall, branch / (total or 1) - blocks * lost, -lost])

    start = np.concatenate([np.zeros(n), first.blocks, np.zeros(n)])
    solution = scipy.integrate.solve_ivp(
        derivative, (0.0, 1.0), start, method="DOP853", rtol=1e-12, atol=1e-13
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
        blocks=blocks / 2,
        input_layer=np.cos(theta.ravel()) * first.remainder * np.exp(log_remainder),
    )
    return BlockSums(*(values.reshape(theta.shape) for values in sums))
