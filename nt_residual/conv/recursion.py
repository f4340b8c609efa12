"""The covariances of two images, pixel by pixel, through a residual network.

For pixels i of an image and j of another, K and Θ are the NNGP and the NTK between them, and
r = √K_ii, r' = √K_jj. What is carried from layer to layer is not K, but

    r r' − K = 2 r r' sin²(θ/2)     and     r r' + K = 2 r r' cos²(θ/2),

with which angles near 0 and near π are as accurate as those between, where K would have
been rounded. Layers average: over a filter, over branch and shortcut. Where K = Σ_k w_k K_k,

    r r' ∓ K = Σ_k w_k (r_k r'_k ∓ K_k) + E,   E = ½ r r' Σ_k w_k (r_k/r − r'_k/r')²,

a sum without cancellation. The r are computed once per image, not once per pair. With `flatten`
i = j; with `gap` all pairs are needed.

All is divided by Π(1 + α²), so that nothing overflows; and by what padding with zeros loses at
the borders, so that nothing underflows. Pairs of images come on the last two axes: neighboring
pixels then lie apart by whole rows of them, and shifts move contiguous memory.
"""

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nt_residual.conv.relu import arc_cosines

# From here on rounding adds up over blocks, and sums are compensated for it.
_DEEP = 32


@dataclasses.dataclass(frozen=True)
class Network:
    """What distinguishes one network from another, besides its α.

    Attributes:
      stages: the number of blocks of each; `None` for none, before a continuum of them.
      image_shape: (height, width).
      filter_shape: of all convolutions but those of shortcuts.
      padding: 'SAME' or 'CIRCULAR'.
      pooling: 'flatten' or 'gap'.
      block: 'two_layer', 'one_layer' or 'preactivation'.
      trains_all: whether the first and last layers and the shortcuts are trained.
      ntk: whether the NTK is wanted, not the NNGP.
      continuum: whether infinitely many blocks of small α follow.
    """

    stages: tuple[int, ...]
    image_shape: tuple[int, int]
    filter_shape: tuple[int, int]
    padding: str
    pooling: str
    block: str
    trains_all: bool
    ntk: bool
    continuum: bool

    @property
    def positions(self) -> int:
        """The number of pairs of pixels of two images."""
        return math.prod(self.image_shape) ** (2 if self.pooling == "gap" else 1)

    @property
    def layers(self) -> int:
        """The number of convolutions in a branch."""
        return 1 if self.block == "one_layer" else 2

    def kept(self, stage: int) -> float:
        """What a branch keeps of the variance, at most: less than 1 if images lose at borders."""
        if self.padding == "CIRCULAR":
            return 1.0
        sizes = (size >> stage for size in self.image_shape)
        return math.prod(map(_largest_eigenvalue, sizes, self.filter_shape)) ** self.layers


@functools.cache
def _largest_eigenvalue(size: int, width: int) -> float:
    """Of the average over `width` pixels of a row of `size`, with zeros around it."""
    apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    return float(np.linalg.eigvalsh((apart <= width // 2) / width)[-1])


class State(NamedTuple):
    """Two batches of images between two layers.

    With `flatten` the first three have shape (height, width, n1, n2), with `gap` (height,
    height, width, width, n1, n2).

    Attributes:
      minus: r r' − K between two pixels.
      plus: r r' + K; `None` right after ReLU.
      ntk: the NTK; `None` if it is not wanted.
      var1: the variances of the pixels of the first batch, shape (height, width, n1).
      var2: those of the second batch, shape (height, width, n2).
    """

    minus: jax.Array
    plus: jax.Array | None
    ntk: jax.Array | None
    var1: jax.Array
    var2: jax.Array


def first_state(network: Network, x1: jax.Array, x2: jax.Array, own: jax.Array) -> State:
    """The state after the first convolution.

    Args:
      network: its architecture.
      x1: shape (channels, height, width, n1).
      x2: shape (channels, height, width, n2).
      own: what a layer's own parameters count in the NTK.
    """
    var1, var2 = (jnp.mean(x**2, axis=0) for x in (x1, x2))
    (r1, over1), (r2, over2) = map(_deviations, (var1, var2))
    half_norms = operator.mul(*_pairs(network, r1, r2)) / (2 * len(x1))

    def add(sums, channel):
        a, b = _pairs(network, *channel)
        return (sums[0] + (a - b) ** 2, sums[1] + (a + b) ** 2), None

    # Zeros that vary over devices as the images do, as `jax.shard_map` wants them.
    zero = 0 * half_norms
    (minus, plus), _ = lax.scan(add, (zero, zero), (x1 * over1[None], x2 * over2[None]), unroll=4)
    ntk = zero if network.ntk else None
    state = State(half_norms * minus, half_norms * plus, ntk, var1, var2)
    return _linear(network, state, 1, own if network.trains_all else None)


def run(network: Network, state: State, shares: list[jax.Array], own: jax.Array) -> State:
    """The state after all blocks of all stages.

    Args:
      network: its architecture.
      state: before them.
      shares: of the blocks of each stage, see `shares_of`.
      own: what a layer's own parameters count in the NTK.
    """
    for stage, of_blocks in enumerate(shares):
        if stage:
            state = _strided_block(network, state, of_blocks[0], own)
            of_blocks = of_blocks[1:]
        if len(of_blocks):
            state = _blocks(network, state, of_blocks, own, network.kept(stage))
    return state


def shares_of(network: Network, shares: np.ndarray) -> tuple[list[np.ndarray], float]:
    """How far each block goes toward its branch, and the logarithm of what is lost in all.

    A block takes K to (1 − s) K + s B, B its branch, s = α²/(1 + α²). Of the variance there
    remains at most μ = 1 − s (1 − κ), where κ = `Network.kept`. Divided by it, that is
    K + (s/μ) (B − κ K).

    Args:
      network: its architecture.
      shares: s of all blocks, shape (sum(network.stages),).
    """
    stages = np.split(shares, np.cumsum(network.stages)[:-1]) if network.stages else []
    log_lost, out = 0.0, []
    for stage, of_blocks in enumerate(stages):
        remains = 1 - of_blocks * (1 - network.kept(stage))
        if stage:
            remains[0] = 1.0  # The first block of such a stage is not divided.
        log_lost += float(np.log(remains).sum())
        out.append(of_blocks / remains)
    return out, log_lost


def branch(network: Network, state: State, own: jax.Array, stride: int = 1) -> State:
    """The state after a branch, of which the first convolution has the stride."""
    if network.block == "two_layer":
        state = _linear(network, state, stride, own)
        return _relu_and_convolution(network, state, 1, own)
    state = _relu_and_convolution(network, state, stride, own)
    if network.block == "preactivation":
        state = _relu_and_convolution(network, state, 1, own)
    return state


def combined(network: Network, weights: Sequence[Any], states: Sequence[State]) -> State:
    """The state of which covariances are the weighted sums of those of others."""

    def total(*leaves):
        return functools.reduce(jnp.add, map(jnp.multiply, weights, leaves))

    return _with_excess(network, jax.tree.map(total, *states), weights, states)


def pooled(network: Network, state: State, own: jax.Array) -> jax.Array:
    """The kernel between the images, shape (n1, n2), of the last state."""
    nngp = _mean_over_pixels(_covariance(state))
    if state.ntk is None:
        return nngp
    ntk = _mean_over_pixels(state.ntk)
    return ntk + own * nngp if network.trains_all else ntk


def _mean_over_pixels(x):
    """Axis by axis, since adding up thousands of numbers one by one loses digits."""
    while x.ndim > 2:
        x = lax.optimization_barrier(jnp.mean(x, axis=0))
    return x


def _blocks(network, state, shares, own, kept):
    """Blocks that keep the resolution, in one loop."""
    compensated = len(shares) >= _DEEP

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step(carry, share):
        state, error = carry
        target = branch(network, state, own)
        moved = jax.tree.map(lambda k, b: share * (b - kept * k), state, target)
        weights, parts = (1 - share * kept, share), (state, target)
        new = jax.tree.map(jnp.add, state, moved)
        moved = _with_excess(network, moved, weights, parts, of=new)
        if not compensated:
            return (jax.tree.map(jnp.add, state, moved), None), None
        # Kahan's summation: what the last sum has lost.
        moved = jax.tree.map(jnp.subtract, moved, error)
        new = jax.tree.map(jnp.add, state, moved)
        return (new, jax.tree.map(lambda n, s, m: (n - s) - m, new, state, moved)), None

    error = jax.tree.map(jnp.zeros_like, state) if compensated else None
    return lax.scan(step, (state, error), shares)[0][0]


def _strided_block(network, state, share, own):
    """The first block of a stage, with a 1x1 convolution of stride 2 on its shortcut."""
    ntk = state.ntk
    if ntk is not None and network.trains_all:
        ntk = ntk + own * _covariance(state)
    strided = functools.partial(_strided, stride=2)
    shortcut = jax.tree.map(strided, state._replace(ntk=ntk))
    target = branch(network, state, own, stride=2)
    return combined(network, (1 - share, share), (shortcut, target))


def _linear(network, state, stride, own):
    """A convolution alone."""
    ntk = state.ntk
    if ntk is not None and own is not None:
        ntk = ntk + own * _covariance(state)
    return _convolution(network, state._replace(ntk=ntk), stride)


def _relu_and_convolution(network, state, stride, own):
    """ReLU, of which twice the covariances are taken, so that variances stay, and a convolution."""
    (r1, over1), (r2, over2) = map(_deviations, (state.var1, state.var2))
    norms = operator.mul(*_pairs(network, r1, r2))
    half_over = operator.mul(*_pairs(network, over1, over2)) / 2
    loss, kappa1, kappa0 = arc_cosines(state.minus * half_over, state.plus * half_over)
    ntk = None if state.ntk is None else own * norms * kappa1 + kappa0 * state.ntk
    state = _convolution(network, state._replace(minus=norms * loss, plus=None, ntk=ntk), stride)
    # No covariance is negative now, and `plus` is as accurate as the rest.
    r1, r2 = (_deviations(var)[0] for var in (state.var1, state.var2))
    return state._replace(plus=2 * operator.mul(*_pairs(network, r1, r2)) - state.minus)


def _deviations(var):
    """Standard deviations and their inverses, both zero where a patch is."""
    # What is smaller does not show in the kernel, and products of inverses might overflow.
    some = var > jnp.finfo(var.dtype).eps ** 4
    # The side of `where` that is not taken must have a derivative, too.
    inverse = jnp.where(some, lax.rsqrt(jnp.where(some, var, 1)), 0)
    return var * inverse, inverse


def _covariance(state):
    return (state.plus - state.minus) / 2


def _pairs(network, a, b):
    """Arrays of two batches, (…, height, width, n), such that they broadcast to all pairs."""
    a, b = a[..., :, None], b[..., None, :]
    if network.pooling == "gap":
        return a[..., :, None, :, None, :, :], b[..., None, :, None, :, :, :]
    return a, b


def _with_excess(network, sums, weights, parts, of=None):
    """Adds E to weighted sums of r r' ∓ K. The variances of the whole are those of `of`."""
    whole = sums if of is None else of
    vary = _vary(network, [var for part in parts for var in part[3:]])
    parts1 = [_deviations(part.var1)[0] for part in parts]
    parts2 = [_deviations(part.var2)[0] for part in parts]
    excess = _excess(network, whole[3:], weights, parts1, parts2, vary)
    return sums._replace(minus=sums.minus + excess, plus=sums.plus + excess)


def _excess(network, variances, weights, parts1, parts2, vary):
    """E, as ½ r'/r Σ_k w_k (r_k − r'_k r/r')².

    Args:
      network: its architecture.
      variances: r² and r'² of the whole.
      weights: of the parts, or one for all.
      parts1: r_k.
      parts2: r'_k.
      vary: if not, there is none.
    """
    (r1, over1), (r2, over2) = map(_deviations, variances)
    # Differences of this size are rounding, of which hundreds of blocks would make an angle.
    rounding = (2 * jnp.finfo(r1.dtype).eps * r1) ** 2

    def excess():
        ratio = operator.mul(*_pairs(network, r1, over2))
        half = operator.mul(*_pairs(network, over1 / 2, r2))
        squares = []
        for part in zip(parts1, parts2, strict=True):
            a, b = _pairs(network, *part)
            squares.append((a - b * ratio) ** 2)
        if isinstance(weights, float):
            total = weights * functools.reduce(jnp.add, squares)
        else:
            total = functools.reduce(jnp.add, map(jnp.multiply, weights, squares))
        return half * jnp.maximum(total - _pairs(network, rounding, r2)[0], 0)

    # Where no image varies there is none. It also keeps XLA from computing all this anew for
    # whatever needs it.
    return lax.cond(vary, excess, lambda: 0 * operator.mul(*_pairs(network, r1, r2)))


def _vary(network, variances):
    """Whether the variance of some image is not the same in all of its pixels, or around them."""
    largest = jnp.concatenate([v.max((0, 1)) for v in variances])
    if network.padding == "SAME":
        return lax.stop_gradient(jnp.any(largest > 0))
    smallest = jnp.concatenate([v.min((0, 1)) for v in variances])
    rounding = 4 * jnp.finfo(largest.dtype).eps
    return lax.stop_gradient(jnp.any(smallest < (1 - rounding) * largest))


def _convolution(network, state, stride):
    """Averages of everything over the filter."""
    average = functools.partial(_average, network=network, stride=stride)
    var1, var2 = average(state.var1), average(state.var2)
    # All deviations under the filter.
    parts1, parts2 = (_shifts(network, _deviations(var)[0], stride) for var in state[3:])
    weight, vary = 1 / len(parts1), _vary(network, state[3:])
    excess = _excess(network, (var1, var2), weight, parts1, parts2, vary)
    return State(
        minus=average(state.minus) + excess,
        plus=None if state.plus is None else average(state.plus) + excess,
        ntk=None if state.ntk is None else average(state.ntk),
        var1=var1,
        var2=var2,
    )


def _average(x, network, stride):
    """Averages over a filter: of variances (height, width, n), or of covariances."""
    shifts = _shifts(network, x, stride)
    total = _sum(shifts)
    # A division would cost as much as all else here, and 1/9 alone, rounded, would make all
    # covariances grow from block to block.
    inverse = np.asarray(1 / len(shifts), x.dtype)
    return total * inverse + total * np.asarray(1 / len(shifts) - float(inverse), x.dtype)


def _sum(terms):
    """In pairs, which is exact but for the odd one where all are alike, as after many blocks."""
    while len(terms) > 1:
        terms = [*map(jnp.add, terms[:-1:2], terms[1::2]), *terms[len(terms) // 2 * 2 :]]
    return terms[0]


def _shifts(network, x, stride):
    """What an array looks like from each point of the filter.

    Where all pairs of pixels are there, both pixels of a pair are shifted together.
    """
    spatial, repeat = (4, 2) if x.ndim == 6 else (2, 1)
    filters = [size for size in network.filter_shape for _ in range(repeat)]
    pads = lax.padtype_to_pads(x.shape[:spatial], filters, [stride] * spatial, "SAME")
    shape = [-(-size // stride) for size in x.shape[:spatial]]
    if any(map(any, pads)):
        mode = "wrap" if network.padding == "CIRCULAR" else "constant"
        # Without the barrier XLA would compute what is padded once for each shift.
        x = lax.optimization_barrier(jnp.pad(x, [*pads, *[(0, 0)] * (x.ndim - spatial)], mode))
    return [
        _strided(x, stride, [offset for offset in offsets for _ in range(repeat)], shape)
        for offsets in itertools.product(*map(range, network.filter_shape))
    ]


def _strided(x, stride, start=None, shape=None):
    """Every so many pixels in each direction, from `start`, `shape` of them."""
    spatial = 4 if x.ndim == 6 else 2
    start = [0] * spatial if start is None else start
    shape = [-(-size // stride) for size in x.shape[:spatial]] if shape is None else shape
    stop = [first + stride * (n - 1) + 1 for first, n in zip(start, shape, strict=True)]
    return x[tuple(map(slice, start, stop, [stride] * spatial))]
