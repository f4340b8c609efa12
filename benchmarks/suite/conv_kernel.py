"""The NTK of convolutional residual networks against neural-tangents, by pooling and image size.

Both are checked against neural-tangents in float64 on three of the images. Work is counted per
block, per pair of images (n(n + 1)/2) and per pair of pixels (H·W for 'flatten', (H·W)² for 'gap'):
three numbers read and written, 20 operations for averages and about 20 for the ReLU.
"""

import functools

import jax
import numpy as np

from benchmarks.networks import conv_kernels, images
from benchmarks.suite.case import Case, Counts, distance, exactly

# Pooling, pixels on a side, images, blocks.
SIZES = {
    "quick": (("flatten", 8, 32, 4),),
    "standard": (("flatten", 8, 128, 8), ("flatten", 32, 32, 8), ("gap", 8, 32, 8)),
    "large": (("flatten", 8, 512, 8), ("flatten", 32, 128, 8), ("gap", 8, 128, 8)),
}
TOLERANCE = {"nt_residual": 2e-5, "neural-tangents": 1e-2}
_CHECKED = 3


def cases(size: str) -> list[Case]:
    """Return our kernel and neural-tangents' for each pooling and image size, in float32."""
    return [case(who, *sizes) for sizes in SIZES[size] for who in TOLERANCE]


def case(who: str, pooling: str, side: int, n: int, blocks: int) -> Case:
    """Return one implementation of one network."""
    work = blocks * side ** (4 if pooling == "gap" else 2) * n * (n + 1) // 2
    counts = Counts(n * n, work * 3 * 2 * 4, work * 40)
    return Case(
        family="conv_kernel",
        who=who,
        sizes={
            "n": n,
            "pixels": f"{side}×{side}",
            "pooling": pooling,
            "depth": blocks,
            "dtype": "float32",
        },
        build=functools.partial(_build, who, pooling, side, n, blocks),
        check=lambda matrix: distance(
            matrix[-_CHECKED:, -_CHECKED:], _reference(pooling, side, n, blocks)
        ),
        tolerance=TOLERANCE[who],
        counts=lambda _: counts,
    )


def _build(who, pooling, side, n, blocks):
    ours, theirs = conv_kernels(pooling, side, blocks)
    kernel = ours if who == "nt_residual" else theirs
    return lambda x: kernel(x), (images(n, side),)


@functools.cache
def _reference(pooling, side, n, blocks):
    x = np.asarray(images(n, side)[-_CHECKED:])
    with exactly():
        kernel = jax.jit(conv_kernels(pooling, side, blocks)[1])
        return np.asarray(kernel(x.astype(np.float64)))
