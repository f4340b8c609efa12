"""The covariances of two batches of images, from layer to layer of a residual network.

All covariances are divided by Π(1 + α²), so that nothing overflows. They are also divided by the
share of variance that zero padding leaves (see `Network.kept`), so that nothing underflows.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from nt_residual.conv.covariances import (
    State,
    add_excess,
    average_over_filter,
    covariance,
    deviations,
    every_second_pixel,
    pairs,
    products,
    weighted_sum,
)
from nt_residual.conv.network import Network
from nt_residual.conv.relu import arc_cosines

# From this number of blocks on, sums over blocks are compensated for rounding.
_DEEP = 32


def first_state(network: Network, x1: jax.Array, x2: jax.Array, own: jax.Array) -> State:
    """Return the state after the first convolution of images (channels, height, width, n).

    `own` is the weight of a layer's own parameters in the NTK.
    """
    var1, var2 = (jnp.mean(x**2, axis=0) for x in (x1, x2))
    (r1, over1), (r2, over2) = map(deviations, (var1, var2))
    half_norms = products(network, r1, r2) / (2 * len(x1))

    def add(sums, channel):
        a, b = pairs(network, *channel)
        return (sums[0] + (a - b) ** 2, sums[1] + (a + b) ** 2), None

    # Zeros that vary over devices as the images do, which `jax.shard_map` requires.
    zero = 0 * half_norms
    (minus, plus), _ = lax.scan(add, (zero, zero), (x1 * over1[None], x2 * over2[None]), unroll=4)
    ntk = zero if network.ntk else None
    state = State(half_norms * minus, half_norms * plus, ntk, var1, var2)
    return _convolution(network, state, 1, own if network.trains_all else None)


def run(network: Network, state: State, shares: Sequence[jax.Array], own: jax.Array) -> State:
    """Return the state after all blocks; `shares` are the arrays per stage from `shares_of`."""
    for stage, of_blocks in enumerate(shares):
        if stage:
            state = _strided_block(network, state, of_blocks[0], own)
            of_blocks = of_blocks[1:]
        if len(of_blocks):
            state = _blocks(network, state, of_blocks, own, network.kept(stage))
    return state


def branch(network: Network, state: State, own: jax.Array, stride: int = 1) -> State:
    """Return the state after a branch. Its first convolution has the given stride."""
    if network.block == "two_layer":
        state = _convolution(network, state, stride, own)
        return _relu_and_convolution(network, state, 1, own)
    state = _relu_and_convolution(network, state, stride, own)
    if network.block == "preactivation":
        state = _relu_and_convolution(network, state, 1, own)
    return state


def pooled(network: Network, state: State, own: jax.Array) -> jax.Array:
    """Return the kernel between the images, shape (n1, n2), from the last state."""
    nngp = _mean_over_pixels(covariance(state))
    if state.ntk is None:
        return nngp
    ntk = _mean_over_pixels(state.ntk)
    return ntk + own * nngp if network.trains_all else ntk


def _mean_over_pixels(x: jax.Array) -> jax.Array:
    """Return the mean, axis by axis: adding thousands of numbers one by one loses digits."""
    while x.ndim > 2:
        x = lax.optimization_barrier(jnp.mean(x, axis=0))
    return x


def _blocks(
    network: Network, state: State, shares: jax.Array, own: jax.Array, kept: float
) -> State:
    """Return the state after blocks that keep the resolution, computed in one loop.

    A block with share s maps K to K + s (B − κ K), with B the branch and κ = `kept`. This is the
    weighted sum of K and B, with weights 1 − s κ and s. So its excess E must be added.
    """

    def change(state: State, share: jax.Array) -> State:
        target = branch(network, state, own)
        moved = jax.tree.map(lambda k, b: share * (b - kept * k), state, target)
        whole = jax.tree.map(jnp.add, state, moved)
        weights = (1 - share * kept, share)
        return add_excess(network, moved, weights, (state, target), whole)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step(state: State, share: jax.Array) -> tuple[State, None]:
        return jax.tree.map(jnp.add, state, change(state, share)), None

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def compensated_step(carry: tuple[State, State], share: jax.Array):
        # Kahan summation: `lost` is the rounding error of the last sum, computed minus exact.
        state, lost = carry
        moved = jax.tree.map(jnp.subtract, change(state, share), lost)
        new = jax.tree.map(jnp.add, state, moved)
        return (new, jax.tree.map(lambda n, s, m: (n - s) - m, new, state, moved)), None

    if len(shares) < _DEEP:
        return lax.scan(step, state, shares)[0]
    return lax.scan(compensated_step, (state, jax.tree.map(jnp.zeros_like, state)), shares)[0][0]


def _strided_block(network: Network, state: State, share: jax.Array, own: jax.Array) -> State:
    """Return the state after the first block of a stage, with a strided 1x1 shortcut."""
    shortcut = jax.tree.map(
        every_second_pixel, _with_own(state, own) if network.trains_all else state
    )
    target = branch(network, state, own, stride=2)
    return weighted_sum(network, (1 - share, share), (shortcut, target))


def _with_own(state: State, own: jax.Array | None) -> State:
    """Return the state with the NTK of a linear layer's own parameters added."""
    if state.ntk is None or own is None:
        return state
    return state._replace(ntk=state.ntk + own * covariance(state))


def _convolution(network: Network, state: State, stride: int, own: jax.Array | None) -> State:
    return average_over_filter(network, _with_own(state, own), stride)


def _relu_and_convolution(network: Network, state: State, stride: int, own: jax.Array) -> State:
    """Return the state after ReLU, with covariances doubled to keep variances, and convolution."""
    (r1, over1), (r2, over2) = map(deviations, (state.var1, state.var2))
    norms, half_over = products(network, r1, r2), products(network, over1, over2) / 2
    loss, kappa1, kappa0 = arc_cosines(state.minus * half_over, state.plus * half_over)
    ntk = None if state.ntk is None else own * norms * kappa1 + kappa0 * state.ntk
    state = state._replace(minus=norms * loss, plus=None, ntk=ntk)
    state = average_over_filter(network, state, stride)
    # After ReLU no covariance is negative, so this difference does not cancel.
    r1, r2 = (deviations(var)[0] for var in (state.var1, state.var2))
    return state._replace(plus=2 * products(network, r1, r2) - state.minus)
