"""The kernels of a residual network with equal blocks, by doubling the number of blocks.

For two inputs at angle θ, n blocks multiply sin²(θ/2) by e^(−q), multiply the NTK of the blocks
before them by 1 − d, and add n s (2 − g) to it, where q, d and g are functions of θ. If n1 blocks
with q1, d1, g1 take the angle to θ', and n2 blocks with q2, d2, g2 follow, all of them have

    q = q1(θ) + q2(θ')
    d = d1(θ) + d2(θ') − d1(θ) d2(θ')
    g = [n1 (g1(θ) + (2 − g1(θ)) d2(θ')) + n2 g2(θ')] / (n1 + n2)

All terms are positive, so nothing cancels. The functions are stored by their values at Chebyshev
nodes, in the variable that suits Σ s. L blocks take less than 2 log2(L) compositions, and the error
is about 1e-14.
"""

import functools
import math
from collections.abc import Callable

import numpy as np

from nt_residual.rntk import arc_cosine, recursion
from nt_residual.rntk.chebyshev import variable_for
from nt_residual.rntk.recursion import BlockSums

# Maps sin²(θ/2) and cos²(θ/2), shape (n,), to q, d and g, shape (3, n).
_Blocks = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Chebyshev nodes, enough for 1e12 blocks of any α.
_PHASE = (np.arange(192) + 0.5) * math.pi / 192
_NODES = -np.cos(_PHASE)
# The weights of barycentric interpolation.
_WEIGHTS = np.sin(_PHASE) * (-1.0) ** np.arange(192)


def sums_of_equal_blocks(sin2: np.ndarray, cos2: np.ndarray, alpha: float, depth: int) -> BlockSums:
    """Return `recursion.sums_of_blocks` for `depth` blocks of equal α, in float64."""
    share = float(recursion.branch_share(np.float64(alpha)))
    start = sin2.ravel(), cos2.ravel()
    fall, loss, gap = _equal_blocks(share, depth)(*start)
    sin2_end, cos2_end = _moved(*start, fall)
    return BlockSums(
        correlation=(cos2_end - sin2_end).reshape(sin2.shape),
        blocks=(1 - gap / 2).reshape(sin2.shape),
        input_layer=(cos2 - sin2) * (1 - loss).reshape(sin2.shape),
    )


@functools.lru_cache(maxsize=256)
def _equal_blocks(share: float, depth: int) -> _Blocks:
    if depth == 1:
        return functools.partial(_one_block, share)
    half = _equal_blocks(share, depth // 2)
    blocks = _composed(half, half, depth // 2, depth // 2)
    if depth % 2:
        blocks = _composed(blocks, _equal_blocks(share, 1), depth - 1, 1)
    return _interpolated(blocks, depth * share)


def _one_block(share: float, sin2: np.ndarray, cos2: np.ndarray) -> np.ndarray:
    gain, lost = arc_cosine.gain_and_loss(sin2, cos2)
    fall = -np.log1p(-share / 2 * gain / np.where(sin2 == 0, 1, sin2))
    # 2 − (κ1 + ρ κ0), without cancellation near θ = 0.
    gap = 4 * sin2 + (cos2 - sin2) * lost - gain
    return np.stack([fall, share * lost, gap])


def _moved(sin2: np.ndarray, cos2: np.ndarray, fall: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return sin2 * np.exp(-fall), cos2 - sin2 * np.expm1(-fall)


def _composed(first: _Blocks, second: _Blocks, n1: int, n2: int) -> _Blocks:
    def blocks(sin2: np.ndarray, cos2: np.ndarray) -> np.ndarray:
        q1, d1, g1 = first(sin2, cos2)
        q2, d2, g2 = second(*_moved(sin2, cos2, q1))
        gap = (n1 * (g1 + (2 - g1) * d2) + n2 * g2) / (n1 + n2)
        return np.stack([q1 + q2, d1 + d2 - d1 * d2, gap])

    return blocks


def _interpolated(blocks: _Blocks, time: float) -> _Blocks:
    """Return `blocks` as interpolated from its values at the nodes, for Σ s = `time`."""
    variable = variable_for(time)

    # Near θ = 0 all three functions are proportional to this one. Their ratio to it is
    # interpolated, which keeps their relative accuracy there.
    def scale(theta: np.ndarray) -> np.ndarray:
        return theta / (1 + time * theta)

    nodes = variable.to_angle(_NODES)
    values = blocks(*recursion.half_angle(nodes)) / scale(nodes)

    def interpolated(sin2: np.ndarray, cos2: np.ndarray) -> np.ndarray:
        theta = arc_cosine.half_angle_to_angle(sin2, cos2)
        # In parts, since the matrix of all differences z − node may not fit in memory.
        parts = np.array_split(variable.of_angle(theta), 1 + len(theta) // 4096)
        return np.concatenate([_interpolate(values, z) for z in parts], axis=1) * scale(theta)

    return interpolated


def _interpolate(values: np.ndarray, z: np.ndarray) -> np.ndarray:
    difference = z[:, None] - _NODES
    # At a node, the weight of its own value then exceeds all others.
    weights = _WEIGHTS / np.where(difference == 0, 1e-200, difference)
    return values @ weights.T / weights.sum(axis=1)
