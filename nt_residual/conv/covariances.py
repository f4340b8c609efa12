"""The covariances between the pixels of two batches of images, and their averages.

For pixel i of one image and pixel j of another, K and Θ are the NNGP and the NTK between them,
with r = √K_ii and r' = √K_jj. Layers pass on not K, but

    r r' − K = 2 r r' sin²(θ/2)     and     r r' + K = 2 r r' cos²(θ/2).

So angles near 0 and near π are as accurate as all others; from a rounded K they would not be.
Layers take averages, over a filter or over branch and shortcut. If K = Σ_k w_k K_k, then

    r r' ∓ K = Σ_k w_k (r_k r'_k ∓ K_k) + E,   E = r r' − Σ_k w_k r_k r'_k.

The excess E is computed as a sum of squares, without cancellation (see `_excess`).
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nt_residual.conv.network import Network


class State(NamedTuple):
    """The covariances between two batches of images after a layer.

    With `flatten` the first three fields have shape (height, width, n1, n2), with `gap`
    (height, height, width, width, n1, n2). Pairs of images come last, so that shifts of pixels
    move contiguous memory.

    Attributes:
      minus: r r' − K between two pixels.
      plus: r r' + K; `None` right after ReLU.
      ntk: the NTK; `None` if only the NNGP is computed.
      var1: the variances r² of the pixels of the first batch, shape (height, width, n1).
      var2: those of the second batch, shape (height, width, n2).
    """

    minus: jax.Array
    plus: Any  # An array or `None`.
    ntk: Any  # An array or `None`.
    var1: jax.Array
    var2: jax.Array


def covariance(state: State) -> jax.Array:
    """Return the covariance K of a state."""
    return (state.plus - state.minus) / 2


def deviations(var: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return r and 1/r from r². Both are zero for a zero patch."""
    # Smaller variances do not show in the kernel, and products of their inverses might overflow.
    some = var > jnp.finfo(var.dtype).eps ** 4
    # The unused branch of `where` must have a finite derivative too.
    inverse = jnp.where(some, lax.rsqrt(jnp.where(some, var, 1)), 0)
    return var * inverse, inverse


def pairs(network: Network, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Add axes to arrays (…, height, width, n) of two batches, to broadcast them to all pairs."""
    a, b = a[..., :, None], b[..., None, :]
    if network.pooling == "gap":
        return a[..., :, None, :, None, :, :], b[..., None, :, None, :, :, :]
    return a, b


def products(network: Network, a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the products of two batches (see `pairs`) for all pairs."""
    a, b = pairs(network, a, b)
    return a * b


def weighted_sum(
    network: Network, weights: Sequence[float | jax.Array], states: Sequence[State]
) -> State:
    """Return the state of K = Σ_k w_k K_k and Θ = Σ_k w_k Θ_k."""

    def total(*leaves: jax.Array) -> jax.Array:
        return functools.reduce(jnp.add, map(jnp.multiply, weights, leaves))

    sums = jax.tree.map(total, *states)
    return add_excess(network, sums, weights, states, whole=sums)


def add_excess(
    network: Network,
    sums: State,
    weights: Sequence[float | jax.Array],
    states: Sequence[State],
    whole: State,
) -> State:
    """Return `sums` with E added to r r' ∓ K; `whole` holds the variances of Σ_k w_k K_k."""
    variances = [var for state in states for var in (state.var1, state.var2)]
    parts = [(deviations(state.var1)[0], deviations(state.var2)[0]) for state in states]
    excess = _excess(network, (whole.var1, whole.var2), weights, parts, _vary(network, variances))
    return sums._replace(minus=sums.minus + excess, plus=sums.plus + excess)


def average_over_filter(network: Network, state: State, stride: int) -> State:
    """Return the state with K and Θ averaged over a filter."""
    average = functools.partial(_average, network=network, stride=stride)
    var1, var2 = average(state.var1), average(state.var2)
    # The standard deviations at each point of the filter.
    shifted = (_shifts(network, deviations(var)[0], stride) for var in (state.var1, state.var2))
    parts = list(zip(*shifted, strict=True))
    vary = _vary(network, [state.var1, state.var2])
    excess = _excess(network, (var1, var2), 1 / len(parts), parts, vary)
    return State(
        minus=average(state.minus) + excess,
        plus=None if state.plus is None else average(state.plus) + excess,
        ntk=None if state.ntk is None else average(state.ntk),
        var1=var1,
        var2=var2,
    )


def _excess(
    network: Network,
    variances: tuple[jax.Array, jax.Array],
    weights: Any,
    parts: Sequence[tuple[jax.Array, jax.Array]],
    vary: jax.Array,
) -> jax.Array:
    """Return E = r r' − Σ_k w_k r_k r'_k, where r² = Σ_k w_k r_k² and r'² = Σ_k w_k r'_k².

    Completing the squares gives

        E = (r'/2r) Σ_k w_k (r_k − r'_k r/r')².

    For example, with weights 1/2, r_k = 1, 3 and r'_k = 1, 1: r = √5, r' = 1, and E = √5 − 2, which
    is (1/2√5) [(1 − √5)² + (3 − √5)²]/2. `variances` are r² and r'², `parts` are pairs of r_k and
    r'_k, and `weights` may be one number for all parts. E is zero unless variances `vary`.
    """
    (r1, over1), (r2, over2) = map(deviations, variances)
    # Differences of this size are rounding errors, which would add up over hundreds of blocks.
    rounding = (2 * jnp.finfo(r1.dtype).eps * r1) ** 2

    def excess() -> jax.Array:
        ratio = products(network, r1, over2)
        squares = []
        for part1, part2 in parts:
            a, b = pairs(network, part1, part2)
            squares.append((a - b * ratio) ** 2)
        if isinstance(weights, float):
            total = weights * functools.reduce(jnp.add, squares)
        else:
            total = functools.reduce(jnp.add, map(jnp.multiply, weights, squares))
        half = products(network, over1 / 2, r2)
        return half * jnp.maximum(total - pairs(network, rounding, r2)[0], 0)

    # The condition also keeps XLA from computing E again in each operation that uses it.
    return lax.cond(vary, excess, lambda: 0 * products(network, r1, r2))


def _vary(network: Network, variances: Sequence[jax.Array]) -> jax.Array:
    """Return whether the variance of some image differs between pixels, padding included."""
    largest = jnp.concatenate([v.max((0, 1)) for v in variances])
    if network.padding == "SAME":
        return lax.stop_gradient(jnp.any(largest > 0))
    smallest = jnp.concatenate([v.min((0, 1)) for v in variances])
    rounding = 4 * jnp.finfo(largest.dtype).eps
    return lax.stop_gradient(jnp.any(smallest < (1 - rounding) * largest))


def _average(x: jax.Array, network: Network, stride: int) -> jax.Array:
    """Return averages over a filter, of variances (height, width, n) or of covariances."""
    shifts = _shifts(network, x, stride)
    count, total = len(shifts), _sum(shifts)
    # A division would cost as much as the rest of this function. The rounded 1/9 alone would make
    # all covariances grow from block to block.
    inverse = np.asarray(1 / count, x.dtype)
    return total * inverse + total * np.asarray(1 / count - float(inverse), x.dtype)


def _sum(terms: list[jax.Array]) -> jax.Array:
    """Add in pairs: this is nearly exact if all terms are equal, as they are after many blocks."""
    while len(terms) > 1:
        terms = [*map(jnp.add, terms[:-1:2], terms[1::2]), *terms[len(terms) // 2 * 2 :]]
    return terms[0]


def _shifts(network: Network, x: jax.Array, stride: int) -> list[jax.Array]:
    """Return the array shifted by each point of the filter.

    If the array holds all pairs of pixels ('gap'), both pixels of a pair are shifted together.
    """
    spatial, repeat = (4, 2) if x.ndim == 6 else (2, 1)
    filters = [size for size in network.filter_shape for _ in range(repeat)]
    pads = lax.padtype_to_pads(x.shape[:spatial], filters, [stride] * spatial, "SAME")
    shape = [-(-size // stride) for size in x.shape[:spatial]]
    if any(map(any, pads)):
        mode = "wrap" if network.padding == "CIRCULAR" else "constant"
        pad = functools.partial(
            jnp.pad, pad_width=[*pads, *[(0, 0)] * (x.ndim - spatial)], mode=mode
        )
        # Without the barrier, XLA would compute the argument again for each shift. Accelerators
        # test for the border while they read a shift, at no cost. A CPU reads a padded copy.
        x = lax.platform_dependent(
            x,
            cpu=lambda x: lax.optimization_barrier(pad(x)),
            default=lambda x: pad(lax.optimization_barrier(x)),
        )

    def shift(offsets: Sequence[int]) -> jax.Array:
        starts = [offset for offset in offsets for _ in range(repeat)]
        stops = [start + stride * (n - 1) + 1 for start, n in zip(starts, shape, strict=True)]
        return x[tuple(slice(*bounds, stride) for bounds in zip(starts, stops, strict=True))]

    return list(map(shift, itertools.product(*map(range, network.filter_shape))))


def every_second_pixel(x: jax.Array) -> jax.Array:
    """Return every second pixel in each direction, as a convolution of stride 2 does."""
    spatial = 4 if x.ndim == 6 else 2
    return x[(slice(None, None, 2),) * spatial]
