"""Gram matrices of any kernel function, tile by tile."""

import functools
from os import PathLike

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from tqdm import tqdm

from nt_residual import _checks
from nt_residual.gram import sharded
from nt_residual.gram import store as stores
from nt_residual.gram.stored import Stored, folder_of
from nt_residual.gram.tiles import Kernel, Tiles

_REMEDIES = (
    "Keep the matrix on disk (store=PATH), spread it over devices (mesh=), or use "
    "gram.MatrixFree, which recomputes tiles in every product."
)


@sharded.no_mesh()
def compute(
    kernel: Kernel,
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    tile_size: int | None = None,
    mesh: Mesh | None = None,
    store: str | PathLike | None = None,
    progress: bool = False,
) -> jax.Array | sharded.Sharded | Stored:
    """Compute the matrix k(x1, x2) of any kernel function, tile by tile.

    One program is compiled, for tiles of one size. With `x2=None` only tiles on and above the
    diagonal are computed, and mirrored: the matrix is exactly symmetric.

    Args:
      kernel: a pure JAX function of two batches that returns shape (m1, m2): one of `rntk`,
        `functools.partial(kernel_fn, get='ntk')` for a `kernel_fn` of neural-tangents, or any
        other. Later calls with the same function object reuse the compiled program.
      x1: shape (n1, …), floats.
      x2: shape (n2, …), or `None` for `x1`.
      tile_size: the largest number of rows and columns of a tile; `None` chooses one by the free
        memory. It changes entries in the last digits at most.
      mesh: spreads the rows over all devices of this mesh, in all processes, each of which passes
        the same inputs. Only the inputs are sent. `None` takes the mesh that an input is sharded
        over, if there is one.
      store: a folder for the matrix, which `gram.load` opens. If the process is killed, run the
        same call again: it resumes from the tiles already on disk.
      progress: whether to show a progress bar.

    Returns:
      Shape (n1, n2), in the dtype of the kernel's values: a `jax.Array`, sharded by rows over
      `mesh`; a `gram.Sharded` if the devices of the mesh do not divide n1; with `store`, a
      `gram.Stored`.

    Raises:
      MemoryError: if it does not fit, with the estimate, before anything is allocated.
      TypeError: if an input does not hold real floats, or the kernel is not a JAX function of two
        batches that returns one matrix.
      ValueError: if a shape or tile size is wrong, an input or an entry is NaN or infinite, or
        the store holds another matrix.
      OSError: if the disk is full, a file of the store is damaged, something else is at its path
        (`FileExistsError`), or another process is filling it (`BlockingIOError`).

    Example:
      >>> import jax.numpy as jnp
      >>> from nt_residual import rntk, schedules
      >>> kernel = rntk.ResidualKernel(100, schedules.PowerLaw(0.5))
      >>> compute(kernel, jnp.eye(3), tile_size=2).round(4)
      Array([[1.    , 0.1925, 0.1925],
             [0.1925, 1.    , 0.1925],
             [0.1925, 0.1925, 1.    ]], dtype=float32)
    """
    tile_size = _checks.optional_integer(tile_size, "tile_size", "None chooses one.")
    progress = _checks.boolean(progress, "progress")
    x1, x2 = _checks.finite_batches(x1, x2)
    dtype = _checks.kernel(kernel, x1, x1 if x2 is None else x2)
    mesh = sharded.mesh_of(mesh, x1=x1, x2=x2)
    if mesh is not None:
        if store is not None:
            raise ValueError(
                "store= cannot be combined with mesh=, or with inputs that are spread over "
                "devices: one process writes tiles from one device. Pass inputs of one device."
            )
        return sharded.compute_sharded(
            kernel, x1, x2, mesh, tile_size=tile_size, dtype=dtype, progress=progress
        )
    if store is not None:
        folder = folder_of(store)
        side = tile_size or stores.tile_size_of(folder)
        tiles = Tiles(kernel, x1, x2, dtype, side, held={}, remedies="Pass a smaller tile_size.")
        return stores.compute_stored(kernel, tiles, folder, progress=progress)
    held = {"the matrix": len(x1) * len(x1 if x2 is None else x2) * dtype.itemsize}
    tiles = Tiles(kernel, x1, x2, dtype, tile_size, held=held, remedies=_REMEDIES)
    return _in_memory(tiles, progress)


def _in_memory(tiles: Tiles, progress: bool) -> jax.Array:
    """Return the matrix on one device."""
    pairs = tiles.pairs()
    if len(pairs) == 1:
        return tiles(0, 0)
    matrix = jnp.zeros(tiles.shape, tiles.dtype, device=tiles.device)
    for i, j in tqdm(pairs, desc="Gram matrix", unit="tile", disable=not progress):
        start = np.int32(tiles.cuts[0].start(i)), np.int32(tiles.cuts[1].start(j))
        # Diagonal tiles are symmetric already, and the last one comes after all it overlaps.
        matrix = _put(matrix, tiles(i, j), start, mirror=tiles.symmetric and i != j)
    return matrix


@functools.partial(jax.jit, donate_argnums=0, static_argnames="mirror")
def _put(
    matrix: jax.Array, values: jax.Array, start: tuple[jax.Array, jax.Array], *, mirror: bool
) -> jax.Array:
    """Write a tile into the matrix, in place, and its transpose on the other side."""
    matrix = jax.lax.dynamic_update_slice(matrix, values, start)
    if mirror:
        matrix = jax.lax.dynamic_update_slice(matrix, values.T, start[::-1])
    return matrix
