"""The architecture of a convolutional residual network, and what its blocks keep of variances."""

import dataclasses
import functools
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Network:
    """The architecture of a network, without its α. For the options see `conv.ResidualKernel`."""

    stages: tuple[int, ...]  # The number of blocks of each; none before a mere continuum.
    image_shape: tuple[int, int]
    filter_shape: tuple[int, int]
    padding: str
    pooling: str
    block: str
    trains_all: bool
    ntk: bool  # Not the NNGP.
    continuum: bool  # Infinitely many blocks of small α follow.

    @property
    def positions(self) -> int:
        """The number of pairs of pixels of two images."""
        return math.prod(self.image_shape) ** (2 if self.pooling == "gap" else 1)

    @property
    def layers(self) -> int:
        """The number of convolutions in a branch."""
        return 1 if self.block == "one_layer" else 2

    def kept(self, stage: int) -> float:
        """Return what a branch keeps of the variance, at most: less than 1 if borders lose some."""
        if self.padding == "CIRCULAR":
            return 1.0
        sizes = (size >> stage for size in self.image_shape)
        return math.prod(map(_largest_eigenvalue, sizes, self.filter_shape)) ** self.layers


@functools.cache
def _largest_eigenvalue(size: int, width: int) -> float:
    """Of the average over `width` pixels of a row of `size`, with zeros around it."""
    apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    return float(np.linalg.eigvalsh((apart <= width // 2) / width)[-1])


def shares_of(network: Network, shares: np.ndarray) -> tuple[list[np.ndarray], float]:
    """Return how far each block goes toward its branch, and the logarithm of what is lost in all.

    A block takes K to (1 − s) K + s B, B its branch, s = α²/(1 + α²). Of the variance there
    remains at most μ = 1 − s (1 − κ), where κ = `Network.kept`. Divided by it, that is
    K + (s/μ) (B − κ K). `shares` has s of all blocks.
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
