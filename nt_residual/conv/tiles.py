"""The matrix between all pairs of images, in tiles that stay in cache."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nt_residual.conv import limit, recursion
from nt_residual.conv.inputs import root_mean_squares
from nt_residual.rntk.tiles import explicit_sharding, in_automatic_axes

# Covariances in a tile. On a CPU one array of them is 1 MB then, and the handful of arrays in
# use lies in its caches.
_ON_CPU = 2**18
_ON_ACCELERATOR = 2**24
# Rows of pairs that are shorter cannot be computed at the full width of the processor.
_LEAST_COLUMNS = 16
# With fewer pairs the loops over them are too short, if their neighbors are not in the same tile.
_LEAST_PAIRS = {"flatten": 128, "gap": 1}


def sides(network: recursion.Network, n1: int, n2: int) -> tuple[int, int]:
    """The rows and columns of the tiles of an (n1, n2) matrix."""
    on_cpu = jax.default_backend() == "cpu"
    pairs = (_ON_CPU if on_cpu else _ON_ACCELERATOR) // network.positions
    pairs = max(pairs, _LEAST_PAIRS[network.pooling])
    columns = _even(n2, max(_LEAST_COLUMNS, math.isqrt(pairs)))
    return _even(n1, max(1, pairs // columns)), columns


def least_memory(
    network: recursion.Network, x1: jax.Array, x2: jax.Array | None, tile: tuple[int, int]
) -> dict[str, int]:
    """What a call cannot do without, in bytes, by name; the compiler's plan is about as much."""
    batches, size = ([x1] if x2 is None else [x1, x2]), x1.dtype.itemsize
    return {
        "copies of the images": sum(x.size for x in batches) * size,
        "the matrix": 2 * len(x1) * len(batches[-1]) * size,
        f"tiles of {tile[0]} × {tile[1]}": 8 * network.positions * math.prod(tile) * size,
    }


def working_memory(network, shares, time, own, x1, x2, tile) -> int:
    """The bytes that the compiled program takes, its result included; arguments as `evaluate`."""
    compiled = _evaluate.lower(network, shares, time, own, x1, x2, tile).compile()
    analysis = compiled.memory_analysis()
    if analysis is None:  # Not every backend tells.
        return sum(least_memory(network, x1, x2, tile).values())
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def _even(n: int, largest: int) -> int:
    """The size of as few equal pieces of n as `largest` allows."""
    return -(-n // -(-n // largest))


def evaluate(network, shares, time, own, x1, x2, tile):
    """The normalized kernel between two batches of images, each of mean square 1.

    Args:
      network: its architecture.
      shares: of the blocks of each stage, see `recursion.shares_of`.
      time: T of the continuum of blocks after them, if there is one.
      own: what a layer's own parameters count in the NTK.
      x1: shape (n1, height, width, channels), float32 or float64.
      x2: shape (n2, height, width, channels), or `None` for `x1`.
      tile: the rows and columns of a tile.

    Returns:
      Shape (n1, n2), exactly symmetric if `x2` is `None`. Rows of images that are zero are zero.
    """
    # JAX 0.10 takes a float64 constant for float32 once a program without float64 has held it.
    shares, time, own = jax.tree.map(lambda a: np.asarray(a, x1.dtype), (shares, time, own))
    out = explicit_sharding(x1, x2)
    if out is None:
        return _evaluate(network, shares, time, own, x1, x2, tile)
    inputs = (x1,) if x2 is None else (x1, x2)
    return in_automatic_axes(out, _with_options, (network, tile), (shares, time, own), *inputs)


def _with_options(options, operands, x1, x2):
    network, tile = options
    return _evaluate(network, *operands, x1, x2, tile)


@functools.partial(jax.jit, static_argnums=(0, 6))
def _evaluate(network, shares, time, own, x1, x2, tile):
    same = x2 is None
    images1, sizes1 = _layout(x1)
    images2, sizes2 = (images1, sizes1) if same else _layout(x2)
    shares, time, own = jax.tree.map(lambda a: jnp.asarray(a, x1.dtype), (shares, time, own))
    (rows, columns), n1, n2 = tile, len(sizes1), len(sizes2)
    starts = [
        (i, j)
        for i in _starts(n1, rows)
        for j in _starts(n2, columns)
        # Those below the diagonal are mirrored.
        if not same or i < j + columns
    ]

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def values(start):
        a, b = (
            lax.dynamic_slice_in_dim(images, first, size, images.ndim - 1)
            for images, first, size in zip((images1, images2), start, tile, strict=True)
        )
        state = recursion.first_state(network, a, b, own)
        state = recursion.run(network, state, shares, own)
        if network.continuum:
            state = limit.integrate(network, state, time, own)
        return recursion.pooled(network, state, own)

    def step(out, start):
        return lax.dynamic_update_slice(out, values(start), (start[0], start[1])), None

    factors = sizes1[:, None] * sizes2[None, :]
    out, _ = lax.scan(step, 0 * factors, jnp.asarray(starts, jnp.int32))
    out = factors * out
    return jnp.triu(out) + jnp.triu(out, 1).T if same else out


def _starts(n, size):
    """Where pieces of n begin; the last may overlap the one before it."""
    return [min(k, n - size) for k in range(0, n, size)]


def _layout(x):
    """Images of mean square 1 as (channels, height, width, n), and their root mean squares."""
    sizes = root_mean_squares(x)
    unit = x / jnp.where(sizes > 0, sizes, 1)[:, None, None, None]
    # Without the barrier JAX 0.7.2 mistakes the order of the axes in a loop, if `x` is a constant.
    return lax.optimization_barrier(jnp.moveaxis(unit, (3, 0), (0, 3))), sizes
