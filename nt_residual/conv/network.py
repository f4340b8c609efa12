"""The architecture of a convolutional residual network, and the variance that its blocks keep."""

import dataclasses
import functools
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Network:
    """The architecture of a network, without its α. For the options see `conv.ResidualKernel`."""

    stages: tuple[int, ...]  # The number of blocks of each stage; empty for a continuum alone.
    image_shape: tuple[int, int]
    filter_shape: tuple[int, int]
    padding: str
    pooling: str
    block: str
    trains_all: bool
    ntk: bool  # Whether to compute the NTK, not only the NNGP.
    continuum: bool  # Whether infinitely many blocks of small α follow.

    @property
    def positions(self) -> int:
        """The number of pairs of pixels of two images."""
        return math.prod(self.image_shape) ** (2 if self.pooling == "gap" else 1)

    @property
    def layers(self) -> int:
        """The number of convolutions in a branch."""
        return 1 if self.block == "one_layer" else 2

    def kept(self, stage: int) -> float:
        """Return the largest share of variance that a branch keeps: 1, or less if zero-padded."""
        if self.padding == "CIRCULAR":
            return 1.0
        sizes = (size >> stage for size in self.image_shape)
        return math.prod(map(_largest_eigenvalue, sizes, self.filter_shape)) ** self.layers


@functools.cache
def _largest_eigenvalue(size: int, width: int) -> float:
    """Return the largest eigenvalue of averaging `width` pixels in a zero-padded row of `size`."""
    apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    return float(np.linalg.eigvalsh((apart <= width // 2) / width)[-1])


def shares_of(network: Network, shares: np.ndarray) -> tuple[list[np.ndarray], float]:
    """Return s/μ of all blocks, an array per stage, and log Π μ, the total loss of variance.

    A block maps K to (1 − s) K + s B, where B is its branch and s = α²/(1 + α²). At most the
    share μ = 1 − s (1 − κ) of the variance remains, where κ = `Network.kept`. Divided by μ, the
    result is K + (s/μ) (B − κ K). `shares` holds s of all blocks.
    """
    stages = np.split(shares, np.cumsum(network.stages)[:-1]) if network.stages else []
    log_lost, out = 0.0, []
    for stage, of_blocks in enumerate(stages):
        remains = 1 - of_blocks * (1 - network.kept(stage))
        if stage:
            remains[0] = 1.0  # The first block of a later stage is not divided by μ.
        log_lost += float(np.log(remains).sum())
        out.append(of_blocks / remains)
    return out, log_lost
