"""How large tiles are, and the program that makes them."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from nt_residual import memory
from nt_residual.gram import blocks, owned
from nt_residual.gram.blocks import Cut

# Large enough for matrix products at full speed, small enough for progress to be seen.
_ON_CPU = 2048
_ON_ACCELERATOR = 4096
# The share of what memory is left that one tile may take while it is made.
_SHARE = 4


class Program(NamedTuple):
    """The tiles of k(x1, x2), compiled.

    Attributes:
      cut1: of the rows.
      cut2: of the columns.
      run: (x1, x2, i, j) ↦ tile (i, j) and whether it is finite.
      working: bytes that it takes while it runs, its result included.
    """

    cut1: Cut
    cut2: Cut
    run: Any
    working: int


def program(
    kernel: blocks.Kernel,
    x1: jax.Array,
    x2: jax.Array,
    *,
    tile_size: int | None,
    dtype: np.dtype,
    same: bool,
    spare: int,
) -> Program:
    """The program for the tile size asked for, or for one that fits.

    Args:
      kernel: what `owned.own` made of one.
      x1: shape (n1, …).
      x2: shape (n2, …), as many features.
      tile_size: the largest number of rows and columns of a tile; `None` picks one such that
        making a tile takes a quarter of `spare` at most, or the kernel's `preferred_tile_size`.
      dtype: of the entries.
      same: whether both batches are the same, and only the upper triangle is wanted.
      spare: bytes that tiles may take.
    """
    largest = max(len(x1), len(x2))
    if tile_size is not None:
        return _program(kernel, x1, x2, min(tile_size, largest), dtype, same)
    on_cpu = jax.default_backend() == "cpu"
    side = min(_ON_CPU if on_cpu else _ON_ACCELERATOR, largest)
    # Kernels that are slow ask for smaller ones.
    side = min(side, getattr(kernel, "preferred_tile_size", side))
    while True:
        made = _program(kernel, x1, x2, side, dtype, same)
        if made.working <= spare / _SHARE or side == 1:
            return made
        # Working memory grows with the number of entries, or more slowly.
        side = max(1, min(side // 2, int(side * math.sqrt(spare / _SHARE / made.working))))


def _program(kernel, x1, x2, side, dtype, same) -> Program:
    device = next(iter(x1.devices()))
    cut1, cut2 = (blocks.even_cut(len(x), side) for x in (x1, x2))
    at = jax.sharding.SingleDeviceSharding(device)
    x1, x2 = (jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at) for x in (x1, x2))
    index = jax.ShapeDtypeStruct((), np.int32)
    static = ("kernel", "cut1", "cut2", "dtype", "same")
    tile = owned.jit(kernel, blocks.tile, static_argnames=static)
    options = {"cut1": cut1, "cut2": cut2, "dtype": dtype, "same": same}
    run = tile.lower(owned.static(kernel), x1, x2, index, index, **options).compile()
    working = _working_memory(run, cut1.size * cut2.size * np.dtype(dtype).itemsize)
    return Program(cut1, cut2, run, working)


def _working_memory(run: Any, result: int) -> int:
    analysis = run.memory_analysis()
    if analysis is None:  # Not every backend tells.
        return 4 * result
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def check_fits(made: Program, matrix: int, limit: int, where: str, remedies: str) -> None:
    """Refuses a matrix that does not fit together with the making of its tiles."""
    parts = {"the matrix": matrix, f"tiles of {made.cut1.size} × {made.cut2.size}": made.working}
    memory.check(parts, limit, where, remedies)
