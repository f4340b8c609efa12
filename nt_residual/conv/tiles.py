"""The kernel matrix of all pairs of images, computed in tiles that stay in cache."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nt_residual.conv import limit, recursion
from nt_residual.conv.images import root_mean_squares
from nt_residual.conv.network import Network
from nt_residual.rntk.tiles import explicit_sharding, in_automatic_axes

# The number of covariances in a tile. On a CPU an array of them takes 1 MB, and stays in cache. On
# accelerators it takes 4 MB, and the arrays in use fit into a GPU's cache or a TPU's own memory.
_ON_CPU = 2**18
_ON_ACCELERATOR = 2**20
# The least number of columns in a tile. Shorter rows do not fill the vector units of a CPU, and on
# a TPU their memory is padded to 128.
_LEAST_COLUMNS, _LEAST_COLUMNS_ON_ACCELERATOR = 16, 128
# The least number of pairs of images in a tile. Without 'gap', fewer make inner loops too short.
_LEAST_PAIRS = {"flatten": 128, "gap": 1}


class Plan(NamedTuple):
    """A network, the numbers that its recursion needs, and the logarithm of the result's scale.

    The operands are the shares of the blocks of each stage; T of the continuum of blocks after
    them; and the weight of a layer's own parameters in the NTK.
    """

    network: Network
    operands: tuple[list[np.ndarray], float, float]
    log_scale: float


def sides(network: Network, x1: Any, x2: Any, platform: str) -> tuple[int, int]:
    """Return the number of rows and columns of the tiles for a platform."""
    n1, n2 = x1.shape[0], (x1 if x2 is None else x2).shape[0]
    cpu = platform == "cpu"
    pairs = (_ON_CPU if cpu else _ON_ACCELERATOR) // network.positions
    pairs = max(pairs, _LEAST_PAIRS[network.pooling])
    least = _LEAST_COLUMNS if cpu else _LEAST_COLUMNS_ON_ACCELERATOR
    columns = _even(n2, max(least, math.isqrt(pairs)))
    return _even(n1, max(1, pairs // columns)), columns


def least_memory(
    network: Network, x1: jax.Array, x2: jax.Array | None, tile: tuple[int, int]
) -> dict[str, int]:
    """Return the least memory of a call, bytes by name. The compiler reserves about as much."""
    batches, size = ([x1] if x2 is None else [x1, x2]), x1.dtype.itemsize
    return {
        "copies of the images": sum(x.size for x in batches) * size,
        "the matrix": 2 * len(x1) * len(batches[-1]) * size,
        f"tiles of {tile[0]} × {tile[1]}": 8 * network.positions * math.prod(tile) * size,
    }


def working_memory(plan: Plan, x1: Any, x2: Any, tile: tuple[int, int]) -> int:
    """Return the memory that the compiled program needs, with its result, in bytes."""
    compiled = _evaluate.lower((plan.network, tile), plan.operands, x1, x2).compile()
    analysis = compiled.memory_analysis()
    if analysis is None:  # Some backends do not report it.
        return sum(least_memory(plan.network, x1, x2, tile).values())
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def _even(n: int, largest: int) -> int:
    """Return the size of equal pieces of n, as few as a size of at most `largest` allows."""
    return -(-n // -(-n // largest))


def evaluate(plan: Plan, x1: jax.Array, x2: jax.Array | None, tile: tuple[int, int]) -> jax.Array:
    """Return the normalized kernel, shape (n1, n2), between two batches of images.

    `tile` is the rows and columns of a tile. If `x2` is `None`, the result is exactly symmetric.
    """
    # JAX 0.10 treats a float64 constant as float32 after a program without float64 has used it.
    operands = jax.tree.map(lambda a: np.asarray(a, x1.dtype), plan.operands)
    out = explicit_sharding(x1, x2)
    if out is None:
        return _evaluate((plan.network, tile), operands, x1, x2)
    inputs = (x1,) if x2 is None else (x1, x2)
    return in_automatic_axes(out, _evaluate, (plan.network, tile), operands, *inputs)


def evaluate_anywhere(plan: Plan, x1: jax.Array, x2: jax.Array | None) -> jax.Array:
    """Return the result of `evaluate` for traced images, with tiles of the target platform."""
    for_cpu, otherwise = (sides(plan.network, x1, x2, name) for name in ("cpu", "accelerator"))
    if for_cpu == otherwise:
        return evaluate(plan, x1, x2, for_cpu)
    given = (x1,) if x2 is None else (x1, x2)

    def with_tile(tile: tuple[int, int], x1: jax.Array, x2: jax.Array | None = None) -> jax.Array:
        return evaluate(plan, x1, x2, tile)

    return lax.platform_dependent(
        *given,
        cpu=functools.partial(with_tile, for_cpu),
        default=functools.partial(with_tile, otherwise),
    )


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(
    options: tuple[Network, tuple[int, int]], operands: Any, x1: jax.Array, x2: jax.Array | None
) -> jax.Array:
    network, tile = options
    same = x2 is None
    images1, sizes1 = _layout(x1)
    images2, sizes2 = (images1, sizes1) if same else _layout(x2)
    shares, time, own = jax.tree.map(lambda a: jnp.asarray(a, x1.dtype), operands)
    (rows, columns), n1, n2 = tile, len(sizes1), len(sizes2)
    starts = [
        (i, j)
        for i in _starts(n1, rows)
        for j in _starts(n2, columns)
        # Tiles below the diagonal are not computed, but mirrored.
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


def _starts(n: int, size: int) -> list[int]:
    """Return the first indices of pieces of n; the last piece may overlap the one before it."""
    return [min(k, n - size) for k in range(0, n, size)]


def _layout(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return images of mean square 1, (channels, height, width, n), and their root mean squares."""
    sizes = root_mean_squares(x)
    unit = x / jnp.where(sizes > 0, sizes, 1)[:, None, None, None]
    # Without the barrier JAX 0.7.2 mistakes the order of the axes in a loop, if `x` is a constant.
    return lax.optimization_barrier(jnp.moveaxis(unit, (3, 0), (0, 3))), sizes
