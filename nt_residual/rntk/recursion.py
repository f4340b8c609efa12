"""The kernels of a residual network of finite depth, block by block.

For two inputs at angle θ, with ρ_0 = cos θ, s_ℓ = α_ℓ²/(1 + α_ℓ²), and κ0, κ1 of `arc_cosine`:

    ρ_ℓ = ρ_{ℓ−1} + s_ℓ (κ1(ρ_{ℓ−1}) − ρ_{ℓ−1})                 correlation of x_ℓ and x'_ℓ
    R_ℓ = R_{ℓ−1} (1 − s_ℓ θ_{ℓ−1}/π) + s_ℓ (κ1 + ρ κ0)(ρ_{ℓ−1})   NTK of the blocks so far
    P_ℓ = P_{ℓ−1} (1 − s_ℓ θ_{ℓ−1}/π)                           factor of the input layer's NTK

All are divided by the variance Π_{i≤ℓ}(1 + α_i²), so that nothing overflows.

The correlation is stored as sin²(θ/2) and cos²(θ/2). Each block subtracts s_ℓ (κ1 − ρ)/2
from the first and adds it to the second. The first is accurate near θ = 0, the second near
θ = π, and nothing cancels. In NumPy they may be complex, which `taylor` needs.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nt_residual import _checks, schedules
from nt_residual.rntk import arc_cosine
from nt_residual.rntk.angles import check_angles
from nt_residual.rntk.arc_cosine import Array


class BlockSums(NamedTuple):
    """The three functions of the angle that make up all kernels of a residual network.

    Each is 1 at θ = 0: ρ_L, the `correlation` of the last hidden layer; R_L/(2 Σ s_ℓ), the NTK of
    the `blocks`; and cos θ · P_L, the NTK of the `input_layer`.
    """

    correlation: Array
    blocks: Array
    input_layer: Array


def branch_share(alphas: Array) -> Array:
    """Return the share of the branch in a block's output variance, s = α²/(1 + α²)."""
    return _branch_norm(alphas) ** 2


def _branch_norm(alphas: Array) -> Array:
    """Return α/√(1 + α²), without overflow for large α."""
    xp = arc_cosine.namespace(alphas)
    return alphas / xp.hypot(xp.ones_like(alphas), alphas)


def check_options(kind: str, trained: str) -> None:
    """Raise an error if an option of a kernel is unknown."""
    _checks.choice(kind, "kind", ("ntk", "nngp"))
    _checks.choice(trained, "trained", ("blocks", "all"))


def combine(sums: BlockSums, kind: str, trained: str, total_share: Array) -> Array:
    """Return the normalized kernel, which is 1 at θ = 0; `total_share` is Σ s_ℓ ≤ ∞."""
    if kind == "nngp":
        return sums.correlation
    if trained == "blocks":
        return sums.blocks
    ends = (sums.correlation + sums.input_layer) / 2
    rest = 1 / (1 + total_share)
    return (1 - rest) * sums.blocks + rest * ends


def block_sums(theta: Array, schedule: schedules.Schedule, depth: int | None = None) -> BlockSums:
    """Return the sums over blocks from which all kernels of a network are computed.

    Args:
      theta: angles between inputs in radians, in [0, π], any shape. A NumPy array
        is computed with NumPy in float64; a JAX array with one `lax.scan`,
        which can be jitted and differentiated with respect to α.
      schedule: an array with one α per block, shape (depth,), or a callable of the depth.
        If all are zero, `blocks` of the result is zero, and not 1 at θ = 0. Values traced by
        JAX are not checked.
      depth: the number of blocks; may be left out if `schedule` is an array.

    Returns:
      The sums as arrays of the shape of `theta`.

    Raises:
      TypeError: if an argument does not hold real numbers.
      ValueError: if an angle is outside [0, π], or an α negative or not finite.

    Example:
      >>> import numpy as np
      >>> sums = block_sums(np.array([0.0, 1.0]), np.ones(10))
      >>> sums.blocks.round(8)
      array([1.       , 0.4028058])
    """
    if not isinstance(theta, jax.Array):
        theta = check_angles(theta)
    alphas = schedules.alphas_of(schedule, depth, traced=isinstance(theta, jax.Array))
    return sums_of_blocks(*half_angle(theta), alphas)


def half_angle(theta: Array) -> tuple[Array, Array]:
    """Return sin²(θ/2) and cos²(θ/2)."""
    xp = arc_cosine.namespace(theta)
    return xp.square(xp.sin(theta / 2)), xp.square(xp.cos(theta / 2))


def sums_of_blocks(sin2: Array, cos2: Array, alphas: Array) -> BlockSums:
    """Return the result of `block_sums` from sin²(θ/2) and cos²(θ/2), for known or traced α."""
    xp = arc_cosine.namespace(sin2)
    state = run(sin2, cos2, alphas, weights(xp.asarray(alphas, sin2.real.dtype)))
    return BlockSums(
        correlation=state.cos2 - state.sin2,
        blocks=state.blocks / 2,
        input_layer=(cos2 - sin2) * state.remainder,
    )


class State(NamedTuple):
    """The state of the recursion after a block."""

    sin2: Array  # sin²(θ_ℓ/2)
    cos2: Array  # cos²(θ_ℓ/2)
    blocks: Array  # R_ℓ/Σ s, with the sum over all blocks
    remainder: Array  # P_ℓ


def weights(alphas: Array, effective_time: float = 0.0) -> Array:
    """Return the weight of each branch in r, s_ℓ/(Σ s + T), or zeros if every α is zero.

    T is the `effective_time` of blocks that follow in the continuum limit.
    """
    xp = arc_cosine.namespace(alphas)
    norm = _branch_norm(alphas)
    if effective_time > 0:
        return norm**2 / (xp.sum(norm**2) + effective_time)
    # Divide by the largest first, since s itself underflows for tiny α.
    largest = xp.max(norm, initial=0)
    squares = (norm / xp.where(largest > 0, largest, 1)) ** 2
    total = xp.sum(squares)
    return squares / xp.where(total > 0, total, 1)


def run(sin2: Array, cos2: Array, alphas: Array, counts: Array) -> State:
    """Return the state after all blocks; `counts` are their `weights`."""
    xp = arc_cosine.namespace(sin2)
    shares = branch_share(xp.asarray(alphas, sin2.real.dtype))
    state = State(sin2, cos2, xp.zeros_like(sin2), xp.ones_like(sin2))
    if xp is np:
        for share, weight in zip(shares, counts, strict=True):
            state = State(*map(np.add, state, _change(state, share, weight)))
        return state

    def step(carry, block):
        # Kahan summation: without it, float32 loses one and a half digits in 1000 blocks.
        state, error = carry
        change = jax.tree.map(jnp.subtract, _change(state, *block), error)
        new = jax.tree.map(jnp.add, state, change)
        return (new, jax.tree.map(lambda n, s, c: (n - s) - c, new, state, change)), None

    # Blocks are grouped in three nested levels of segments, with a checkpoint at each. So reverse
    # mode stores the states before 4 L^(1/4) of the blocks, and computes the others again. The last
    # segment is filled with blocks of α = 0, which change nothing.
    length = max(int(len(shares) ** (1 / 4)), 1)
    padding = (0, -len(shares) % length**3)
    blocks = [jnp.pad(a, padding).reshape(-1, length, length, length) for a in (shares, counts)]
    body: Callable = jax.checkpoint(step, prevent_cse=False)
    for _ in range(3):
        body = jax.checkpoint(functools.partial(jax.lax.scan, body), prevent_cse=False)
    start = (state, jax.tree.map(jnp.zeros_like, state))
    return jax.lax.scan(body, start, blocks)[0][0]


def _change(state: State, share: Array, weight: Array) -> State:
    """Return the change of the state in one block."""
    gain, lost = arc_cosine.gain_and_loss(state.sin2, state.cos2)
    moved = share / 2 * gain
    branch = arc_cosine.branch_kernel(state.cos2 - state.sin2, gain, lost)
    fall = share * lost
    return State(
        sin2=-moved,
        cos2=moved,
        blocks=weight * branch - fall * state.blocks,
        remainder=-fall * state.remainder,
    )
