"""The architecture of a convolutional residual network, and what its blocks keep of variances."""

import dataclasses
import functools
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Network:
    """The architecture of a network: all of it but its α.

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
