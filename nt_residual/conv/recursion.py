"""The covariances of two images, pixel by pixel, through a residual network.

For pixels i of an image and j of another, K and Θ are the NNGP and the NTK between them. What
is carried from layer to layer is not K, but half the mean square of differences and sums,

    (K_ii + K_jj)/2 − K_ij     and     (K_ii + K_jj)/2 + K_ij,

with which angles near 0 and near π are as accurate as those between, where K_ij would have
been rounded. Every layer acts on both as it does on K, and the variances K_ii are computed once
per image, not once per pair. With `flatten` i = j; with `gap` all pairs are needed.

All is divided by Π(1 + α²), so that nothing overflows; and by what padding with zeros loses at
the borders, so that nothing underflows. Pairs of images come on the last two
axes: neighbouring pixels then lie apart by whole rows of them, and the shifts that an
average over a filter needs move contiguous memory.
"""

import dataclasses
import functools
import itertools
import math
import operator
from typing import NamedTuple

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
      minus: half the mean square of the difference of two pixels.
      plus: that of their sum; `None` right after ReLU.
      ntk: the NTK between them; `None` if it is not wanted.
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

    def add(sums, channel):
        a, b = _pairs(network, *channel)
        return jax.tree.map(jnp.add, sums, ((a - b) ** 2, (a + b) ** 2)), None

    # Zeros that vary over devices as the images do, as `jax.shard_map` wants them.
    zero = 0 * operator.add(*_pairs(network, x1[0], x2[0]))
    (minus, plus), _ = lax.scan(add, (zero, zero), (x1, x2), unroll=4)
    minus, plus = (sums / (2 * len(x1)) for sums in (minus, plus))
    var1, var2 = (jnp.mean(x**2, axis=0) for x in (x1, x2))
    state = State(minus, plus, zero if network.ntk else None, var1, var2)
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
    """How far each block goes towards its branch, and the logarithm of what is lost in all.

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


def speed(network: Network, state: State, own: jax.Array, kept: float) -> State:
    """How a block moves the state, per unit of its share: B − κ K of `shares_of`."""
    return jax.tree.map(lambda b, k: b - kept * k, _branch(network, state, 1, own), state)


def pooled(network: Network, state: State, own: jax.Array) -> jax.Array:
    """The kernel between the images, shape (n1, n2), of the last state."""
    axes = tuple(range(state.minus.ndim - 2))
    nngp = jnp.mean(_covariance(state), axes)
    if state.ntk is None:
        return nngp
    ntk = jnp.mean(state.ntk, axes)
    return ntk + own * nngp if network.trains_all else ntk


def _blocks(network, state, shares, own, kept):
    """Blocks that keep the resolution, in one loop."""
    compensated = len(shares) >= _DEEP

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step(carry, share):
        state, error = carry
        moved = jax.tree.map(lambda v: share * v, speed(network, state, own, kept))
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
    strided = functools.partial(_average, filter_shape=(1, 1), padding="SAME", stride=2)
    shortcut = jax.tree.map(strided, state._replace(ntk=ntk))
    branch = _branch(network, state, 2, own)
    return jax.tree.map(lambda k, b: k + share * (b - k), shortcut, branch)


def _branch(network, state, stride, own):
    """The state after a branch, of which the first convolution has the stride."""
    if network.block == "two_layer":
        state = _linear(network, state, stride, own)
        return _relu_and_convolution(network, state, 1, own)
    state = _relu_and_convolution(network, state, stride, own)
    if network.block == "preactivation":
        state = _relu_and_convolution(network, state, 1, own)
    return state


def _linear(network, state, stride, own):
    """A convolution alone."""
    ntk = state.ntk
    if ntk is not None and own is not None:
        ntk = ntk + own * _covariance(state)
    return _convolution(network, state._replace(ntk=ntk), stride)


def _relu_and_convolution(network, state, stride, own):
    """After ReLU no covariance is negative, and `plus` is as accurate as what it is the rest of."""
    state = _relu(network, state, own)
    state = _convolution(network, state, stride)
    return state._replace(plus=operator.add(*_pairs(network, state.var1, state.var2)) - state.minus)


def _relu(network, state, own):
    """All but `plus`, of twice the covariances, so that variances stay as they are."""
    (r1, over1), (r2, over2) = map(_deviations, (state.var1, state.var2))
    r1, r2 = _pairs(network, r1, r2)
    over1, over2 = _pairs(network, over1, over2)
    # The part of the difference of two images that is in their deviations.
    radial = (r1 - r2) ** 2 / 2
    half_over = over1 * over2 / 2
    norms = r1 * r2
    loss, kappa1, kappa0 = arc_cosines(
        (state.minus - radial) * half_over, (state.plus - radial) * half_over
    )
    ntk = None if state.ntk is None else own * norms * kappa1 + kappa0 * state.ntk
    return state._replace(minus=radial + norms * loss, plus=None, ntk=ntk)


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


def _convolution(network, state, stride):
    """Averages of everything over the filter."""
    average = functools.partial(
        _average, filter_shape=network.filter_shape, padding=network.padding, stride=stride
    )
    outside = None
    if network.pooling == "gap" and network.padding == "SAME":
        # Where a pixel is shifted out of its image, and the other is not.
        padded = (_padded(v, network.filter_shape, "SAME", stride) for v in state[3:])
        outside = sum(_pairs(network, *padded)) / 2
    return State(
        minus=average(state.minus, outside=outside),
        plus=None if state.plus is None else average(state.plus, outside=outside),
        ntk=None if state.ntk is None else average(state.ntk),
        var1=average(state.var1),
        var2=average(state.var2),
    )


def _average(x, filter_shape, padding, stride, outside=None):
    """Averages over a filter: of variances (height, width, n), or of covariances.

    Where all pairs of pixels are there, both pixels of a pair are shifted together.
    """
    spatial, repeat = _spatial(x)
    shape = [-(-size // stride) for size in x.shape[:spatial]]
    # Without the barrier XLA would compute what was padded once for each shift.
    x = lax.optimization_barrier(_padded(x, filter_shape, padding, stride, outside))
    shifts = []
    for offsets in itertools.product(*map(range, filter_shape)):
        start = [offset for offset in offsets for _ in range(repeat)]
        stop = [first + stride * (n - 1) + 1 for first, n in zip(start, shape, strict=True)]
        shifts.append(x[tuple(map(slice, start, stop, [stride] * spatial))])
    total = functools.reduce(jnp.add, shifts)
    # A division would cost as much as all else here, and 1/9 alone, rounded, would make all
    # covariances grow from block to block.
    inverse = np.asarray(1 / len(shifts), x.dtype)
    return total * inverse + total * np.asarray(1 / len(shifts) - float(inverse), x.dtype)


def _spatial(x):
    """The number of spatial axes, and of those for one direction of an image."""
    return (4, 2) if x.ndim == 6 else (2, 1)


def _padded(x, filter_shape, padding, stride, outside=None):
    """Zeros around, or what is there on the other side, or the values of `outside`."""
    spatial, repeat = _spatial(x)
    filters = [size for size in filter_shape for _ in range(repeat)]
    pads = lax.padtype_to_pads(x.shape[:spatial], filters, [stride] * spatial, "SAME")
    if not any(map(any, pads)):
        return x
    pads = [*pads, *[(0, 0)] * (x.ndim - spatial)]
    padded = jnp.pad(x, pads, "wrap" if padding == "CIRCULAR" else "constant")
    if outside is None:
        return padded
    within = np.pad(np.ones(x.shape[:spatial], bool), pads[:spatial])
    return jnp.where(within[..., None, None], padded, outside)
