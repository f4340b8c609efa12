"""The kernels of residual networks of infinite depth, one per regime.

With α = c·L^(−γ), the limit of T = Σ log(1 + α²) determines it (arXiv 2403.04545):

* T → 0 (γ > 1/2): the blocks hardly change the input, and each acts on the input
  itself, so r is the NTK of one hidden layer, (κ1 + u κ0)/2;
* T finite (γ = 1/2): the recursion over blocks becomes a differential equation;
* T → ∞ (γ < 1/2): r is 1/4 for every θ > 0, and 1 at θ = 0.

If the α of each block do not depend on depth, as with α_ℓ = 1/ℓ, the first blocks are
computed one by one, and only the blocks after them are replaced by a limit.
"""

import math

import numpy as np
import scipy.integrate

from nt_residual.rntk import arc_cosine, recursion
from nt_residual.rntk.recursion import BlockSums


def sums_of_blocks(
    sin2: np.ndarray, cos2: np.ndarray, effective_time: float, head: np.ndarray | None = None
) -> BlockSums:
    """Return the sums of `recursion.sums_of_blocks` for infinitely many blocks.

    `effective_time` is T ≤ ∞ of the blocks whose α tend to zero uniformly. `head` holds the α of
    the blocks before them, if any. `sin2` is sin²(θ/2), `cos2` cos²(θ/2), float64 or complex.
    """
    if effective_time == math.inf:
        same = sin2 == 0
        quarter, none = np.where(same, 1.0, 0.25), np.where(same, 1.0, 0.0)
        return BlockSums(np.ones_like(sin2), blocks=quarter, input_layer=none)
    if effective_time == 0 and head is None:
        gain, lost = arc_cosine.gain_and_loss(sin2, cos2)
        branch = arc_cosine.branch_kernel(cos2 - sin2, gain, lost)
        return BlockSums(cos2 - sin2, blocks=branch / 2, input_layer=cos2 - sin2)
    return _integrate(sin2, cos2, effective_time, np.zeros(0) if head is None else head)


def _integrate(
    sin2: np.ndarray, cos2: np.ndarray, effective_time: float, head: np.ndarray
) -> BlockSums:
    """Integrate the recursion's continuous form over the effective time t in [0, T].

    With s_ℓ = dt the recursion for ρ, R and P (see `recursion`) becomes

        d sin²(θ/2)/dt = −(κ1 − ρ)/2,   dR/dt = κ1 + ρ κ0 − R θ/π,   d log P/dt = −θ/π.

    The state holds q = −log(sin²(θ_t/2)/sin²(θ_0/2)) instead of the angle, which keeps
    relative accuracy for the smallest angles and the longest times. Near θ = π the angle
    changes like √t, which is not smooth at t = 0. With t = T τ² the solution is smooth in τ.
    All angles take the same steps. So the error at complex angles is an analytic function, as r
    is, and it is as small in high coefficients of the power series as in low ones.
    """
    n, shape = sin2.size, sin2.shape
    total = float(recursion.branch_share(head).sum()) + effective_time
    counts = recursion.weights(head, effective_time)
    first = recursion.run(sin2.ravel(), cos2.ravel(), head, counts)

    def half_angle(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return first.sin2 * np.exp(-q), first.cos2 - first.sin2 * np.expm1(-q)

    def derivative(tau: float, state: np.ndarray) -> np.ndarray:
        q, blocks, _ = state.reshape(3, n)
        # In steps that will be rejected, q may be negative, outside the range of real solutions.
        sin2_t, cos2_t = half_angle(q if np.iscomplexobj(q) else np.maximum(q, 0))
        gain, lost = arc_cosine.gain_and_loss(sin2_t, cos2_t)
        branch = arc_cosine.branch_kernel(cos2_t - sin2_t, gain, lost)
        fall = gain / (2 * np.where(sin2_t == 0, 1.0, sin2_t))
        speed = 2 * effective_time * tau  # dt/dτ
        return speed * np.concatenate([fall, branch / (total or 1) - blocks * lost, -lost])

    start = np.concatenate([np.zeros(n), first.blocks, np.zeros(n)])
    solution = scipy.integrate.solve_ivp(
        derivative, (0.0, 1.0), start, method="DOP853", rtol=1e-12, atol=1e-14
    )
    if not solution.success:
        raise RuntimeError(
            f"the integration over the effective time {effective_time} stopped early: "
            f"{solution.message} Try a smaller c, or a finite depth."
        )
    q, blocks, log_remainder = solution.y[:, -1].reshape(3, n)
    sin2_end, cos2_end = half_angle(q)
    return BlockSums(
        correlation=(cos2_end - sin2_end).reshape(shape),
        blocks=blocks.reshape(shape) / 2,
        input_layer=(cos2 - sin2) * (first.remainder * np.exp(log_remainder)).reshape(shape),
    )
