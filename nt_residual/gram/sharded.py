"""Gram matrices whose rows are spread over the devices of a mesh, in one process or many.

Every device computes its own rows, tile by tile. An entry below the diagonal of a
symmetric matrix is computed in the order of the inputs in which its mirror image, which
another device may hold, is: both are the same number, and no entry is ever sent.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from nt_residual import memory
from nt_residual.gram import blocks, owned, tiling
from nt_residual.gram.blocks import Cut

_REMEDIES = "Use more devices, or gram.MatrixFree, which computes tiles when they are needed."


def check_mesh(mesh: Any) -> Mesh:
    """Returns the mesh.

    Raises:
      TypeError: if it is not a `jax.sharding.Mesh`.
    """
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}. Make one with "
            "jax.make_mesh((jax.device_count(),), ('rows',))."
        )
    return mesh


@contextlib.contextmanager
def no_mesh() -> Iterator[None]:
    """Leave the context of `jax.set_mesh`, where compiled functions take arrays of its mesh only.

    Inside a function that JAX traces the context stays as it is.
    """
    context = contextlib.nullcontext()
    if not jax.sharding.get_abstract_mesh().empty:
        with contextlib.suppress(ValueError):  # As it is raised inside a trace.
            context = jax.set_mesh(Mesh(np.empty((), object), ()))
    with context:
        yield


def mesh_of(x: Any, name: str) -> Mesh | None:
    """The mesh that an input is spread over, if it is.

    Raises:
      ValueError: if it is, but over no mesh.
    """
    if not isinstance(x, jax.Array) or len(x.sharding.device_set) == 1:
        return None
    if not isinstance(x.sharding, NamedSharding):
        raise ValueError(f"{name} is spread over devices by {x.sharding}. Pass mesh=.")
    return cast(Mesh, x.sharding.mesh)


def compute(kernel, x1, x2, mesh, *, tile_size, dtype, same, progress):
    """The matrix k(x1, x2), sharded by rows over all axes of the mesh.

    Args:
      kernel: what `owned.own` made of one.
      x1: shape (n1, …).
      x2: shape (n2, …), or `x1`.
      mesh: the devices.
      tile_size: the largest side of a tile, or `None`.
      dtype: of the entries.
      same: whether both batches are the same.
      progress: whether to show a progress bar, in the first process.

    Returns:
      Shape (n, n2), n the next multiple of the number of devices: rows beyond n1 repeat the last.
    """
    mesh = automatic_mesh(mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    local = -(-len(x1) // mesh.size)
    n1, n2 = local * mesh.size, len(x2)
    size = local * n2 * dtype.itemsize
    limit, where = memory.share(mesh.local_devices)
    memory.check({"its rows of the matrix": size}, limit, where, _REMEDIES)
    x2 = place(x2, everywhere, n1 if same else n2)
    x1 = x2 if same else place(x1, by_rows, n1)
    sample = x2.addressable_data(0)
    made = tiling.program(
        kernel, sample, sample, tile_size=tile_size, dtype=dtype, same=False, spare=limit - size
    )
    rows = blocks.even_cut(local, made.cut1.size)
    columns = Cut(n2, rows.size) if same else blocks.even_cut(n2, made.cut2.size)
    matrix = jax.jit(functools.partial(jnp.zeros, (n1, n2), dtype), out_shardings=by_rows)()
    finite = jax.jit(lambda: jnp.ones(mesh.size, bool), out_shardings=by_rows)()
    static = ("kernel", "rows", "columns", "mesh", "same")
    step = owned.jit(kernel, _step, static_argnames=static, donate_argnums=(1, 2))
    pairs = [(i, j) for i in range(rows.count) for j in range(columns.count)]
    quiet = not progress or jax.process_index() > 0
    for i, j in tqdm(pairs, desc=f"Gram matrix on {mesh.size} devices", unit="tile", disable=quiet):
        options = {"rows": rows, "columns": columns, "mesh": mesh, "same": same}
        begin = np.int32(i), np.int32(j)
        matrix, finite = step(owned.static(kernel), matrix, finite, x1, x2, *begin, **options)
        if progress:  # Steps are begun long before they are done, unless somebody waits.
            finite.block_until_ready()
    if not jax.jit(jnp.all, out_shardings=everywhere)(finite):
        raise ValueError(
            "the kernel must be finite, got NaN or infinity. Look for zero inputs, to which "
            "angles are undefined, and for large ones, which may leave the range of the dtype."
        )
    return matrix


def place(x: jax.Array | np.ndarray, sharding: NamedSharding, n: int) -> jax.Array:
    """The array where a mesh wants it, in one collective at most, the last row repeated up to n."""
    width = [(0, n - len(x))] + [(0, 0)] * (x.ndim - 1)
    if isinstance(x, jax.Array) and len(x.sharding.device_set) > 1:
        padded = jax.jit(lambda x: jnp.pad(x, width, "edge"), out_shardings=sharding)
        return padded(automatic(x))
    x = np.asarray(x)
    return jax.device_put(np.pad(x, width, "edge") if n > len(x) else x, sharding)


def automatic(x: jax.Array) -> jax.Array:
    """The same array on the same mesh, with axes that are not explicit."""
    if not isinstance(x.sharding, NamedSharding):
        return x
    sharding = NamedSharding(automatic_mesh(x.sharding.mesh), x.sharding.spec)
    return relabeled(x, sharding)


def automatic_mesh(mesh: Any) -> Mesh:
    """The same devices in the same order, with axes that are not explicit."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def relabeled(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """The same parts on the same devices under another name for how they are spread."""
    parts = [shard.data for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(x.shape, sharding, parts)


def _step(kernel, matrix, finite, x1, x2, i, j, *, rows: Cut, columns: Cut, mesh: Mesh, same: bool):
    """Every device adds tile (i, j) of its own rows."""
    by_rows, everywhere = PartitionSpec(mesh.axis_names), PartitionSpec()

    def local(matrix, finite, x1, x2, i, j):
        start = rows.start(i), columns.start(j)
        if same:
            first = jax.lax.axis_index(mesh.axis_names) * rows.n + start[0]
            values = _on_both_sides(kernel, x2, first, start[1], rows.size, matrix.dtype)
        else:
            values = blocks.entries(kernel, rows.take(x1, i), columns.take(x2, j), matrix.dtype)
        matrix = jax.lax.dynamic_update_slice(matrix, values, start)
        return matrix, finite & jnp.isfinite(values).all()

    specs = (by_rows, by_rows, everywhere if same else by_rows, everywhere, everywhere, everywhere)
    # Kernels may hold loops that were not written for `jax.shard_map`'s check.
    return jax.shard_map(
        local, mesh=mesh, in_specs=specs, out_specs=(by_rows, by_rows), check_vma=False
    )(matrix, finite, x1, x2, i, j)


def _on_both_sides(kernel, x, row, column, side, dtype):
    """The square tile that starts at an entry: k(x_r, x_c) above the diagonal, k(x_c, x_r) below.

    A tile that the diagonal crosses is computed in both orders.
    """
    a, b = (jax.lax.dynamic_slice_in_dim(x, start, side) for start in (row, column))
    index = jnp.arange(side)
    above = (row + index)[:, None] <= (column + index)[None, :]

    def step(k, values):
        below = k == 1
        first, second = jax.lax.cond(below, lambda: (b, a), lambda: (a, b))
        found = blocks.entries(kernel, first, second, dtype)
        found = jax.lax.cond(below, jnp.transpose, lambda found: found, found)
        return jnp.where(above != below, found, values)

    begin = jnp.where(row < column + side, 0, 1)
    end = jnp.where(column < row + side - 1, 2, 1)
    return jax.lax.fori_loop(begin, end, step, jnp.zeros((side, side), dtype))
