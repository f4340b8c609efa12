"""Gram matrices whose rows are spread over the devices of a mesh, in one process or many.

Every device computes its own rows, tile by tile, and sends no entry.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from nt_residual import memory
from nt_residual.gram import tiles
from nt_residual.gram.tiles import Cut, Kernel

# The number of rows that a product converts at a time.
_CONVERTED = 256
_REMEDIES = "Use more devices, or gram.MatrixFree, which computes tiles when they are needed."


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["matrix"], meta_fields=["mesh", "n1"]
)
@dataclasses.dataclass(frozen=True, eq=False)
class Sharded:
    """A matrix in memory whose rows are spread over the devices of a mesh.

    `gram.compute(..., mesh=)` returns one if the number of devices does not divide n1: rows of a
    `jax.Array` must divide evenly. `GradientFlow` takes it; `np.asarray` gathers it on the host.

    Attributes:
      matrix: shape (n, n2), sharded by rows, with n ≥ n1 a multiple of the number of devices. The
        first n1 rows are the matrix; ignore the others.
      mesh: the devices.
      n1: the number of rows.

    Example:
      >>> import jax
      >>> mesh = jax.make_mesh((1,), ("rows",))
      >>> np.asarray(Sharded(jnp.array([[1.0, 2.0], [0.0, 0.0]]), mesh, 1))
      array([[1., 2.]], dtype=float32)
    """

    matrix: jax.Array
    mesh: Mesh
    n1: int
    jit = staticmethod(tiles.shared_jit)

    @property
    def shape(self) -> tuple[int, int]:
        """(n1, n2)."""
        return self.n1, self.matrix.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the entries."""
        return np.dtype(self.matrix.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a sharded matrix is copied to the host: leave copy out.")
        return np.asarray(self.matrix, dtype)[: self.n1]

    def product(self, v: jax.Array) -> jax.Array:
        """Return K @ v, shape (n1, o), on all devices."""
        rows, everywhere = PartitionSpec(self.mesh.axis_names), PartitionSpec()

        out = jax.shard_map(
            _product, mesh=self.mesh, in_specs=(rows, everywhere), out_specs=rows, check_vma=False
        )(self.matrix, v)
        # Devices send nothing but these n × o numbers.
        out = jax.lax.with_sharding_constraint(out, NamedSharding(self.mesh, everywhere))
        return out[: self.n1]

    def diagonal(self) -> np.ndarray:
        """Return K_ii, float64, shape (n1,)."""
        found = _diagonal(self.matrix, self.mesh)
        return np.asarray(found, np.float64)[: self.n1]

    def place(self, v: Any) -> jax.Array:
        """Return an array where `product` wants its argument."""
        return jax.device_put(v, NamedSharding(self.mesh, PartitionSpec()))


def _product(rows: jax.Array, v: jax.Array) -> jax.Array:
    """Return rows @ v in the dtype of v; where rows have another, some are converted at a time."""
    if rows.dtype == v.dtype:
        return jnp.matmul(rows, v, precision="highest")
    cut = tiles.even_cut(len(rows), _CONVERTED)

    def step(k: jax.Array, out: jax.Array) -> jax.Array:
        part = jnp.matmul(cut.take(rows, k).astype(v.dtype), v, precision="highest")
        return jax.lax.dynamic_update_slice_in_dim(out, part, cut.start(k), 0)

    return jax.lax.fori_loop(0, cut.count, step, jnp.zeros((len(rows), v.shape[1]), v.dtype))


@functools.partial(jax.jit, static_argnames="mesh")
def _diagonal(matrix: jax.Array, mesh: Mesh) -> jax.Array:
    def local(rows: jax.Array) -> jax.Array:
        index = jax.lax.axis_index(mesh.axis_names) * len(rows) + jnp.arange(len(rows))
        return jnp.take_along_axis(rows, index[:, None], axis=1)[:, 0]

    spec = PartitionSpec(mesh.axis_names)
    found = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec)(matrix)
    return jax.lax.with_sharding_constraint(found, NamedSharding(mesh, PartitionSpec()))


@contextlib.contextmanager
def no_mesh() -> Iterator[None]:
    """Leave the context of `jax.set_mesh`, in which jitted functions take arrays of its mesh only.

    Inside a function that JAX traces the context stays as it is.
    """
    context = contextlib.nullcontext()
    if not jax.sharding.get_abstract_mesh().empty:
        with contextlib.suppress(ValueError):  # JAX raises it inside a trace.
            context = jax.set_mesh(Mesh(np.empty((), object), ()))
    with context:
        yield


def is_spread(x: Any) -> TypeGuard[jax.Array]:
    """Return whether an array is spread over several devices."""
    return isinstance(x, jax.Array) and len(x.sharding.device_set) > 1


def mesh_of(mesh: Mesh | None, **inputs: Any) -> Mesh | None:
    """Return `mesh`, or else the mesh that an input is spread over, or else `None`."""
    if isinstance(mesh, Mesh):
        return mesh
    if mesh is not None:
        raise TypeError(
            f"mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}. Make one with "
            "jax.make_mesh((jax.device_count(),), ('rows',))."
        )
    for name, x in inputs.items():
        if is_spread(x):
            if not isinstance(x.sharding, NamedSharding):
                raise ValueError(f"{name} is spread over devices by {x.sharding}. Pass mesh=.")
            return cast(Mesh, x.sharding.mesh)
    return None


def compute_sharded(
    kernel: Kernel,
    x1: jax.Array | np.ndarray,
    x2: jax.Array | np.ndarray | None,
    mesh: Mesh,
    *,
    tile_size: int | None,
    dtype: np.dtype,
    progress: bool,
) -> jax.Array | Sharded:
    """Return the matrix k(x1, x2), sharded by rows over all axes of the mesh."""
    auto = automatic_mesh(mesh)
    by_rows = NamedSharding(auto, PartitionSpec(auto.axis_names))
    everywhere = NamedSharding(auto, PartitionSpec())
    symmetric = x2 is None
    other = x1 if x2 is None else x2
    # Each device has as many rows: those beyond n1 repeat the last one.
    local = -(-len(x1) // mesh.size)
    padded, n2 = local * mesh.size, len(other)
    limit, where = memory.share(auto.local_devices)
    size = local * n2 * dtype.itemsize
    memory.check({"its rows of the matrix": size}, limit, where, _REMEDIES)

    other = place(other, everywhere, padded if symmetric else n2)
    inputs = (other if symmetric else place(x1, by_rows, padded)), other
    sample = other.addressable_data(0)
    options = {"tile_size": tile_size, "dtype": dtype, "spare": limit - size, "symmetric": False}
    side, width = (cut.size for cut in tiles.choose_cuts(kernel, sample, sample, **options))
    rows = tiles.even_cut(local, side)
    columns = Cut(n2, rows.size) if symmetric else tiles.even_cut(n2, width)
    options = {"rows": rows, "columns": columns, "mesh": auto, "symmetric": symmetric}
    jit = tiles.jit_for(kernel, _step, static_argnames=("kernel", *options), donate_argnums=1)
    step = functools.partial(jit, tiles.static(kernel), **options)
    zeros = functools.partial(jnp.zeros, (padded, n2), dtype)
    matrix = jax.jit(zeros, out_shardings=by_rows)()
    matrix = _fill(step, matrix, inputs, tiles.pairs(rows, columns), mesh=auto, progress=progress)
    if padded > len(x1):
        return Sharded(matrix, auto, len(x1))
    return relabeled(matrix, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))


def _fill(
    step: Callable[..., jax.Array],
    matrix: jax.Array,
    inputs: tuple[jax.Array, jax.Array],
    pairs: list[tuple[int, int]],
    *,
    mesh: Mesh,
    progress: bool,
) -> jax.Array:
    """Compute all tiles into the matrix, all devices in step, and check that they are finite."""
    quiet = not progress or jax.process_index() > 0
    for i, j in tqdm(pairs, f"Gram matrix on {mesh.size} devices", unit="tile", disable=quiet):
        matrix = step(matrix, *inputs, np.int32(i), np.int32(j))
        if not quiet:  # JAX returns before a step is done, and the bar would run ahead.
            matrix.block_until_ready()
    all_finite = jax.jit(
        lambda k: jnp.isfinite(k).all(), out_shardings=NamedSharding(mesh, PartitionSpec())
    )
    if not all_finite(matrix):
        raise ValueError(
            "the kernel must be finite, got NaN or infinity. Check x1 and x2: "
            f"{tiles.WHY_NOT_FINITE}"
        )
    return matrix


def place(x: jax.Array | np.ndarray, sharding: NamedSharding, n: int) -> jax.Array:
    """Return the array with a sharding, its last row repeated up to n rows.

    An array that is sharded already moves by one collective at most.
    """
    width = [(0, n - len(x))] + [(0, 0)] * (x.ndim - 1)
    if is_spread(x):
        if isinstance(x.sharding, NamedSharding):
            mesh = automatic_mesh(x.sharding.mesh)
            x = relabeled(x, NamedSharding(mesh, x.sharding.spec))
        return jax.jit(lambda x: jnp.pad(x, width, "edge"), out_shardings=sharding)(x)
    x = np.asarray(x)
    return jax.device_put(np.pad(x, width, "edge") if n > len(x) else x, sharding)


def automatic_mesh(mesh: Any) -> Mesh:
    """Return the same devices in the same order, without explicit axes."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def relabeled(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Return the same parts on the same devices under another sharding."""
    parts = [shard.data for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(x.shape, sharding, parts)


def _step(
    kernel: Kernel,
    matrix: jax.Array,
    x1: jax.Array,
    x2: jax.Array,
    i: jax.Array,
    j: jax.Array,
    *,
    rows: Cut,
    columns: Cut,
    mesh: Mesh,
    symmetric: bool,
) -> jax.Array:
    """Write tile (i, j) of every device's rows. In a symmetric matrix x1 is x2, on all devices."""
    by_rows, everywhere = PartitionSpec(mesh.axis_names), PartitionSpec()

    def local(matrix, x1, x2, i, j):
        row, column = rows.start(i), columns.start(j)
        if symmetric:
            first = jax.lax.axis_index(mesh.axis_names) * rows.n + row
            values = _symmetric_tile(kernel, x2, first, column, rows.size, matrix.dtype)
        else:
            values = tiles.entries(kernel, rows.take(x1, i), columns.take(x2, j), matrix.dtype)
        return jax.lax.dynamic_update_slice(matrix, values, (row, column))

    inputs = everywhere if symmetric else by_rows
    specs = (by_rows, inputs, everywhere, everywhere, everywhere)
    # Kernels may hold loops that were not written for `jax.shard_map`'s check.
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=by_rows, check_vma=False)(
        matrix, x1, x2, i, j
    )


def _symmetric_tile(
    kernel: Kernel, x: jax.Array, row: jax.Array, column: jax.Array, side: int, dtype: np.dtype
) -> jax.Array:
    """Return the square tile of an exactly symmetric matrix whose corner is at (row, column).

    Rounding can make k(x_r, x_c) differ from k(x_c, x_r), and another device holds the mirror image
    of an entry. All devices therefore compute

        K_rc = k(x_r, x_c)  for r ≤ c, on and above the diagonal,
        K_rc = k(x_c, x_r)  for r > c, below it,

    so that K_rc and K_cr come from the same arguments in the same order.
    """
    at_rows, at_columns = (jax.lax.dynamic_slice_in_dim(x, start, side) for start in (row, column))
    index = jnp.arange(side)
    is_below = (row + index)[:, None] > (column + index)[None, :]

    def fill(part: jax.Array, tile: jax.Array) -> jax.Array:
        """Fill the entries above (part 0) or below (part 1) the diagonal."""
        below = part == 1
        first, second = jax.lax.cond(
            below, lambda: (at_columns, at_rows), lambda: (at_rows, at_columns)
        )
        values = tiles.entries(kernel, first, second, dtype)
        values = jax.lax.cond(below, jnp.transpose, lambda values: values, values)
        return jnp.where(is_below == below, values, tile)

    # Most tiles lie on one side of the diagonal, and need one part. A loop over the parts, rather
    # than two branches, compiles the kernel once.
    some_above, some_below = row < column + side, row + side - 1 > column
    first_part, last_part = jnp.where(some_above, 0, 1), jnp.where(some_below, 1, 0)
    empty = jnp.zeros((side, side), dtype)
    return jax.lax.fori_loop(first_part, last_part + 1, fill, empty)
