"""Gram matrices of any kernel function, tile by tile."""

import functools
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from tqdm import tqdm

from nt_residual import memory
from nt_residual.gram import blocks, fingerprint, inputs, operators, owned, sharded, tiling
from nt_residual.gram import store as stores

_REMEDIES = (
    "Keep the matrix on disk (store=PATH), spread it over devices (mesh=), or let "
    "gram.MatrixFree compute tiles when they are needed."
)


@sharded.no_mesh()
def compute(
    kernel: blocks.Kernel,
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    tile_size: int | None = None,
    mesh: Mesh | None = None,
    store: str | PathLike | None = None,
    progress: bool = False,
    dtype: Any = None,
) -> "jax.Array | operators.Sharded | stores.Stored":
    """The matrix k(x1, x2) of any kernel function, made tile by tile.

    One program is compiled, for tiles of one size, whatever n1 and n2 are. Between a batch
    and itself only tiles on and above the diagonal are computed, and mirrored: the matrix is
    exactly symmetric. What does not fit into memory is refused before it is allocated.

    Args:
      kernel: a JAX function of two batches that returns shape (m1, m2): one of `rntk`, a
        `kernel_fn` of neural-tangents with its `get` bound
        (`functools.partial(kernel_fn, get='ntk')`), or any other. It is called with both
        batches, between equal ones too, and inside of `jax.jit`.
      x1: shape (n1, …), floats.
      x2: shape (n2, …), or `None` for `x1`.
      tile_size: the largest number of rows and of columns of a tile; `None` picks one from
        the memory there is. Entries depend on it in the last digits at most.
      mesh: the rows are spread over all devices of this mesh, in all processes. Each computes
        its own rows, entries on both sides of the diagonal; nothing but the inputs is sent. In
        a run of several processes each passes the same inputs. `None` for the mesh that `x1` is
        sharded over, if it is.
      store: a folder on disk for the matrix, which `gram.load` opens. An interrupted
        computation of the same matrix is resumed.
      progress: whether to show a progress bar.
      dtype: of the entries; `None` for that of the kernel's.

    Returns:
      Shape (n1, n2). A `jax.Array`, sharded by rows over `mesh`, or a `gram.Sharded` if the
      devices of the mesh do not divide n1; or, with `store`, a `gram.Stored`.

    Raises:
      MemoryError: if it does not fit, with the estimate and what can be done.
      TypeError: if an input does not hold real floats, or the kernel is not a JAX function of
        two batches that returns one matrix.
      ValueError: if a shape or tile size is wrong, an input or an entry is NaN or infinite,
        or the store holds something else.
      OSError: if the disk is full, a file of the store cannot be read, something else is at
        its path (`FileExistsError`), or another process is filling it (`BlockingIOError`).

    Example:
      >>> import jax.numpy as jnp
      >>> from nt_residual import rntk, schedules
      >>> kernel = rntk.ResidualKernel(100, schedules.PowerLaw(0.5))
      >>> compute(kernel, jnp.eye(3), tile_size=2).round(4)
      Array([[1.    , 0.1925, 0.1925],
             [0.1925, 1.    , 0.1925],
             [0.1925, 0.1925, 1.    ]], dtype=float32)
    """
    x1, x2, same = inputs.check_batches(x1, x2)
    entry = inputs.check_dtype(dtype, inputs.check_kernel(kernel, x1, x2))
    kernel = owned.own(kernel)
    options = {
        "tile_size": inputs.check_tile_size(tile_size),
        "dtype": entry,
        "same": same,
    }
    if mesh is None:
        mesh = sharded.mesh_of(x1, "x1") or sharded.mesh_of(x2, "x2")
    if mesh is not None and store is not None:
        raise ValueError(
            "store= cannot be combined with mesh=, or with inputs that are spread over devices: "
            "tiles are written by one process from one device. Pass inputs of one device."
        )
    if mesh is not None:
        mesh = sharded.check_mesh(mesh)
        matrix = sharded.compute(kernel, x1, x2, mesh, progress=progress, **options)
        if len(matrix) > len(x1):
            return operators.Sharded(matrix, sharded.automatic_mesh(mesh), len(x1))
        by_rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        return sharded.relabeled(matrix, by_rows)
    x1 = jnp.asarray(x1)
    x2 = x1 if same else jax.device_put(x2, next(iter(x1.devices())))
    if store is not None:
        return _on_disk(kernel, x1, x2, store, progress=progress, **options)
    return _in_memory(kernel, x1, x2, progress=progress, **options)


def _in_memory(kernel, x1, x2, *, tile_size, dtype, same, progress):
    """The matrix on one device."""
    device = next(iter(x1.devices()))
    size = len(x1) * len(x2) * dtype.itemsize
    limit, where = memory.share([device])
    memory.check({"the matrix": size}, limit, where, _REMEDIES)
    options = {"tile_size": tile_size, "dtype": dtype, "same": same, "spare": limit - size}
    made = tiling.program(kernel, x1, x2, **options)
    tiling.check_fits(made, size, limit, where, _REMEDIES)
    if made.cut1.count == made.cut2.count == 1:
        return values_of(made, x1, x2, 0, 0)
    matrix = jnp.zeros((len(x1), len(x2)), dtype, device=device)
    pairs = tqdm(pairs_of(made, same), desc="Gram matrix", unit="tile", disable=not progress)
    for i, j in pairs:
        values = values_of(made, x1, x2, i, j)
        start = np.int32(made.cut1.start(i)), np.int32(made.cut2.start(j))
        # Diagonal tiles come symmetric, and the last of them after all that it overlaps.
        matrix = _put(matrix, values, start, mirror=same and i != j)
    return matrix


def _on_disk(kernel, x1, x2, path, *, tile_size, dtype, same, progress):
    """The matrix in a folder."""
    # What is there already goes on in tiles of its size, however much memory there is now.
    tile_size = tile_size or stores.tile_size_of(path)
    spare = memory.available()
    options = {"tile_size": tile_size, "dtype": dtype, "same": same, "spare": spare}
    made = tiling.program(kernel, x1, x2, **options)
    memory.check({"a tile": made.working}, spare, "this machine", "Pass a smaller tile_size.")

    def tile(i: int, j: int) -> np.ndarray:
        values = np.asarray(values_of(made, x1, x2, i, j))
        # Where the last tile begins earlier it repeats what is not its own.
        rows, columns = i * made.cut1.size, j * made.cut2.size
        return values[rows - made.cut1.start(i) :, columns - made.cut2.start(j) :]

    sides, shape = (made.cut1.size, made.cut2.size), (len(x1), len(x2))
    found = fingerprint.of(kernel, x1, None if same else x2, tile_size=sides, dtype=dtype)
    return stores.fill(path, tile, shape, dtype, sides, found, symmetric=same, progress=progress)


def pairs_of(made: tiling.Program, same: bool) -> list[tuple[int, int]]:
    """The tiles to be computed, in order."""
    if same:
        return blocks.upper_pairs(made.cut1.count)
    return [(i, j) for i in range(made.cut1.count) for j in range(made.cut2.count)]


def values_of(made: tiling.Program, x1, x2, i: int, j: int) -> jax.Array:
    """Tile (i, j), refused if it has an entry that is NaN or infinite."""
    with jax.disable_jit(False):  # It is compiled already.
        values, finite = made.run(x1, x2, np.int32(i), np.int32(j))
    if not finite:
        bad = np.argwhere(~np.isfinite(np.asarray(values, np.float32)))[0]
        row, column = made.cut1.start(i) + bad[0], made.cut2.start(j) + bad[1]
        raise ValueError(
            f"the kernel must be finite, got NaN or infinity at row {row}, column {column}. Look "
            f"at x1[{row}] and x2[{column}]: {blocks.WHY_NOT_FINITE}"
        )
    return values


@functools.partial(jax.jit, donate_argnums=0, static_argnames="mirror")
def _put(matrix, values, start, *, mirror):
    """Writes a tile into the matrix, in place, and its transpose on the other side."""
    matrix = jax.lax.dynamic_update_slice(matrix, values, start)
    if mirror:
        matrix = jax.lax.dynamic_update_slice(matrix, values.T, start[::-1])
    return matrix
