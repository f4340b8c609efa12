"""The kernels of a residual network of finite depth, block by block.

For two inputs at angle θ, with u = cos θ, s_ℓ = α_ℓ²/(1 + α_ℓ²) and ρ_0 = u:

    ρ_ℓ = ρ_{ℓ−1} + s_ℓ (κ1(ρ_{ℓ−1}) − ρ_{ℓ−1})                 correlation of x_ℓ and x'_ℓ
    R_ℓ = R_{ℓ−1} (1 − s_ℓ θ_{ℓ−1}/π) + s_ℓ (κ1 + ρ κ0)(ρ_{ℓ−1})   NTK of the blocks so far
    P_ℓ = P_{ℓ−1} (1 − s_ℓ θ_{ℓ−1}/π)                           what reaches the input layer

each divided by the variance Π_{i≤ℓ}(1 + α_i²), so that nothing overflows.

The correlation is carried as sin²(θ/2) and cos²(θ/2), both updated by adding
s_ℓ (κ1 − ρ)/2: the first is accurate near θ = 0, the second near θ = π, and
neither suffers from cancellation.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from nt_residual.rntk import arc_cosine

Array = Any  # A NumPy or a JAX array of real floats.


class BlockSums(NamedTuple):
    """What all kernels of a residual network are made of, as functions of the angle.

    Attributes:
      correlation: ρ_L, the correlation of the last hidden layer.
      blocks: r(θ) = R_L/(2 Σ s_ℓ), the NTK of the blocks, 1 at θ = 0.
      input_layer: cos θ · P_L, the NTK of the input layer, 1 at θ = 0.
    """

    correlation: Array
    blocks: Array
    input_layer: Array


def branch_share(alphas: Array) -> Array:
    """The share of the branch in a block's output variance, s = α²/(1 + α²)."""
    return _branch_norm(alphas) ** 2


def _branch_norm(alphas: Array) -> Array:
    """α/√(1 + α²), without overflow where α is huge."""
    xp = arc_cosine.namespace(alphas)
    return alphas / xp.hypot(xp.ones_like(alphas), alphas)


def block_sums(theta: Array, alphas: Array) -> BlockSums:
    """Runs the recursion over the blocks of a network.

    Args:
      theta: angles between inputs in radians, in [0, π], any shape. A NumPy array
        is computed with NumPy in its own dtype; a JAX array with one `lax.scan`,
        which can be jitted and differentiated with respect to `alphas`.
      alphas: residual scale of each block, shape (depth,). Where all are zero, the
        NTK of the blocks is zero, rather than 1 at θ = 0.

    Returns:
      The sums as arrays of the shape and dtype of `theta`.

    Example:
      >>> import numpy as np
      >>> sums = block_sums(np.array([0.0, 1.0]), np.ones(10))
      >>> sums.blocks.round(8)
      array([1.       , 0.4028058])
    """
    if isinstance(theta, jax.Array):
        shares, weights = _shares_and_weights(jax.numpy.asarray(alphas, theta.dtype))
        state, _ = jax.lax.scan(
            lambda state, block: (_block(state, *block), None), _start(theta), (shares, weights)
        )
    else:
        shares, weights = _shares_and_weights(np.asarray(alphas, theta.dtype))
        state = _start(theta)
        for share, weight in zip(shares, weights, strict=True):
            state = _block(state, share, weight)
    xp = arc_cosine.namespace(theta)
    total = xp.sum(weights)
    return BlockSums(
        correlation=state.cos2 - state.sin2,
        blocks=state.blocks / (2 * xp.where(total > 0, total, 1)),
        input_layer=xp.cos(theta) * state.remainder,
    )


def _shares_and_weights(alphas: Array) -> tuple[Array, Array]:
    """s_ℓ, and s_ℓ divided by the largest of them, which does not underflow for tiny α.

    r is a ratio in which only the second matters; both are zero where every α is.
    """
    xp = arc_cosine.namespace(alphas)
    norm = _branch_norm(alphas)
    largest = xp.max(norm)
    return norm**2, (norm / xp.where(largest > 0, largest, 1)) ** 2


class _State(NamedTuple):
    sin2: Array  # sin²(θ_ℓ/2)
    cos2: Array  # cos²(θ_ℓ/2)
    blocks: Array  # R_ℓ, divided by the largest s
    remainder: Array  # P_ℓ


def _start(theta: Array) -> _State:
    xp = arc_cosine.namespace(theta)
    sin2, cos2 = xp.square(xp.sin(theta / 2)), xp.square(xp.cos(theta / 2))
    return _State(sin2, cos2, xp.zeros_like(theta), xp.ones_like(theta))


def _block(state: _State, share: Array, weight: Array) -> _State:
    theta = half_angle_to_angle(state.sin2, state.cos2)
    gain = arc_cosine.kappa1_gain(theta)
    correlation = state.cos2 - state.sin2
    kept = 1 - share * (1 - arc_cosine.kappa0(theta))
    branch = correlation + gain + correlation * arc_cosine.kappa0(theta)
    return _State(
        sin2=state.sin2 - share * gain / 2,
        cos2=state.cos2 + share * gain / 2,
        blocks=state.blocks * kept + weight * branch,
        remainder=state.remainder * kept,
    )


def half_angle_to_angle(sin2: Array, cos2: Array) -> Array:
    """θ from sin²(θ/2) and cos²(θ/2), accurate at both ends of [0, π].

    The gradient at sin²(θ/2) = 0 is taken to be zero: the angle has a cusp there.
    """
    xp = arc_cosine.namespace(sin2)
    apart = sin2 > 0
    sine = xp.sqrt(xp.where(apart, sin2, xp.ones_like(sin2)))
    # Rounding may leave cos² a hair below zero where θ = π.
    opposite = cos2 <= 0
    cosine = xp.sqrt(xp.where(opposite, xp.ones_like(cos2), cos2))
    theta = 2 * xp.arctan2(sine, xp.where(opposite, xp.zeros_like(cos2), cosine))
    return xp.where(apart, theta, xp.zeros_like(theta))
