"""Gram matrices with several tile sizes, and products with a matrix that is never stored.

The kernel has 100 blocks. Work is counted as for `fc_kernel`. A product with ten vectors adds
20 n² operations, and reads and writes the vectors instead of the matrix.
"""

import functools

import jax.numpy as jnp
import numpy as np

from benchmarks import networks
from benchmarks.suite.case import Case, Counts, distance, sampled
from nt_residual import gram

# n, and the tile sizes; for `None`, `gram.compute` picks one.
SIZES = {
    "quick": (1500, (None, 256)),
    "standard": (6000, (None, 500, 1000, 3000)),
    "large": (40_000, (None, 1000, 8000)),
}
DEPTH = 100
VECTORS = 10
TOLERANCE = 1e-5


def cases(size: str) -> list[Case]:
    """Return the matrix in tiles of each size, and a product."""
    n, tile_sizes = SIZES[size]
    return [*(matrix(n, tile_size) for tile_size in tile_sizes), matrix_free(n)]


def matrix(n: int, tile_size: int | None) -> Case:
    """Return the case of a matrix in memory."""
    counts = Counts(n * n, networks.matrix_bytes(n, 4), networks.product_flops(n))

    def build():
        return functools.partial(gram.compute, tile_size=tile_size), _arguments(n)

    def tile(_):
        kernel, x = _arguments(n)
        return kernel, (x[:tile_size], x[:tile_size])

    return Case(
        family="gram",
        who="gram.compute",
        sizes={"n": n, "tile": tile_size or "picked", "dtype": "float32"},
        build=build,
        check=lambda matrix: networks.error(matrix, n, DEPTH),
        tolerance=TOLERANCE,
        counts=lambda _: counts,
        jit=False,
        # A picked size depends on the free memory.
        program=tile if tile_size else None,
    )


def matrix_free(n: int) -> Case:
    """Return the case of a product with a matrix that is not stored."""
    v = vectors(n)
    moved = 4 * (n * networks.FEATURES + 2 * v.size)
    counts = Counts(n * n, moved, networks.product_flops(n) + 2 * n * v.size)

    def build():
        return lambda k, v: k.product(v), (gram.MatrixFree(*_arguments(n)), jnp.asarray(v))

    return Case(
        family="gram",
        who="gram.MatrixFree",
        sizes={"n": n, "vectors": VECTORS, "dtype": "float32"},
        build=build,
        check=lambda product: product_error(product, n),
        tolerance=TOLERANCE,
        counts=lambda _: counts,
    )


def vectors(n: int) -> np.ndarray:
    """Return vectors of shape (n, VECTORS): positive, so that nothing cancels."""
    return np.random.default_rng(1).uniform(size=(n, VECTORS)).astype(np.float32)


def product_error(product, n: int) -> float:
    """Compute the error of some rows of K v against the reference."""
    chosen = sampled(n, count=5)
    x = networks.inputs(n)
    return distance(product[chosen], networks.exact(x[chosen], x, DEPTH) @ vectors(n))


def _arguments(n):
    return networks.kernel(DEPTH), jnp.asarray(networks.inputs(n))
