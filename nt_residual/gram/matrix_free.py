"""Gram matrices that are not stored: every product computes their tiles again."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from nt_residual import _checks, memory
from nt_residual.gram import sharded, tiles
from nt_residual.gram.tiles import Cut, Kernel, device_of


@jax.tree_util.register_pytree_node_class
class MatrixFree:
    """The matrix k(x1, x2), computed tile by tile in every product and never stored.

    `matrix @ v` is a product. With `x2=None` the matrix is symmetric, only tiles on
    and above the diagonal are computed, and `GradientFlow.fit` takes it in place of an array.

    Args:
      kernel: a JAX function of two batches, as for `gram.compute`.
      x1: shape (n1, …), floats.
      x2: shape (n2, …), or `None` for `x1`.
      tile_size: the largest side of a tile; `None` chooses one.
      mesh: distributes the tiles over its devices, in all processes; only with `x2=None`. `None`
        takes the mesh that `x1` is spread over, if it is.

    Attributes:
      kernel: as passed.
      mesh: as passed.
      x1: the first batch, on every device.
      x2: the second batch, on every device.
      dtype: of the entries.

    Raises:
      TypeError, ValueError: as `gram.compute`, and for a mesh with `x2`.

    Example:
      >>> import jax.numpy as jnp
      >>> from nt_residual import rntk, schedules
      >>> matrix = MatrixFree(rntk.ResidualKernel(100, schedules.PowerLaw(0.5)), jnp.eye(3))
      >>> (matrix @ jnp.ones(3)).round(4)
      Array([1.3849, 1.3849, 1.3849], dtype=float32)
    """

    @sharded.no_mesh()
    def __init__(
        self,
        kernel: Kernel,
        x1: ArrayLike,
        x2: ArrayLike | None = None,
        *,
        tile_size: int | None = None,
        mesh: Mesh | None = None,
    ):
        tile_size = _checks.optional_integer(tile_size, "tile_size", "None chooses one.")
        first, second = _checks.finite_batches(x1, x2)
        dtype = _checks.kernel(kernel, first, first if second is None else second)
        if second is not None:
            if mesh is not None:
                raise ValueError("mesh= cannot be combined with x2: pass inputs of one device.")
            # Those that are spread over a mesh are gathered.
            first, second = (np.asarray(x) if sharded.is_spread(x) else x for x in (first, second))
        mesh = sharded.mesh_of(mesh, x1=first)
        if mesh is None:
            first = sample = jnp.asarray(first)
        else:
            mesh = sharded.automatic_mesh(mesh)
            first = sharded.place(first, NamedSharding(mesh, PartitionSpec()), len(first))
            sample = first.addressable_data(0)
        if second is not None:
            second = jax.device_put(second, device_of(first))
        self.kernel, self.x1, self.x2, self.dtype, self.mesh = kernel, first, second, dtype, mesh
        self._cuts = tiles.choose_cuts(
            kernel,
            sample,
            sample if second is None else second,
            tile_size=tile_size,
            dtype=dtype,
            symmetric=second is None,
            spare=memory.available(device_of(sample)),
        )

    def tree_flatten(self):
        """Return what JAX traces, and what it compiles for."""
        return (self.x1, self.x2), (tiles.static(self.kernel), self._cuts, self.dtype, self.mesh)

    @classmethod
    def tree_unflatten(cls, rest, children):
        """Return the inverse of `tree_flatten`."""
        matrix = object.__new__(cls)
        (matrix.x1, matrix.x2), (kernel, *others) = children, rest
        matrix.kernel = tiles.from_static(kernel)
        matrix._cuts, matrix.dtype, matrix.mesh = others
        return matrix

    @property
    def shape(self) -> tuple[int, int]:
        """(n1, n2)."""
        return self._cuts[0].n, self._cuts[1].n

    @property
    def jit(self) -> Any:
        """`jax.jit` for functions of it. Nothing that it compiles keeps the kernel alive."""
        return functools.partial(tiles.jit_for, self.kernel)

    @sharded.no_mesh()
    def product(self, v: ArrayLike) -> jax.Array:
        """Return K @ v, also inside `jax.jit`.

        Args:
          v: shape (n2,) or (n2, o), real numbers.

        Returns:
          Shape (n1,) or (n1, o), in the widest of float32 and the dtypes of the kernel and `v`.

        Raises:
          TypeError: if `v` does not hold real numbers.
          ValueError: if `v` has another shape, or, outside `jax.jit`, if `v` or an entry of K is
            NaN or infinite.
        """
        v = v if isinstance(v, jax.Array) else jnp.asarray(_checks.native(np.asarray(v)))
        tiles.check_columns(v, self.shape[1])
        if jnp.issubdtype(v.dtype, jnp.complexfloating):
            raise TypeError(f"v must hold real numbers, got dtype {v.dtype}.")
        wide = jnp.promote_types(jnp.promote_types(v.dtype, self.dtype), jnp.float32)
        columns = v.reshape(len(v), -1).astype(wide)
        out = self.jit(_product)(self, columns)
        if not isinstance(out, Tracer):
            _check_finite(out, v)
        return out.reshape(self.shape[0], *v.shape[1:])

    def __matmul__(self, v: ArrayLike) -> jax.Array:
        return self.product(v)

    @sharded.no_mesh()
    def place(self, v: Any) -> jax.Array:
        """Return an array where `product` wants its argument."""
        return jax.device_put(v, self.x1.sharding)

    @sharded.no_mesh()
    def diagonal(self) -> np.ndarray:
        """Return K_ii in float64, shape (n,), if the matrix is square."""
        cut, found = self._cuts[0], np.empty(self.shape[0])
        diagonal_of_tile = self.jit(_diagonal_of_tile)
        for k in range(cut.count):
            start = cut.start(k)
            found[start : start + cut.size] = diagonal_of_tile(self, np.int32(k))
        return found


def _check_finite(out: jax.Array, v: jax.Array) -> None:
    finite = np.isfinite(np.asarray(out.addressable_data(0))).all(axis=1)
    if finite.all():
        return
    if not np.isfinite(np.asarray(v.addressable_data(0))).all():
        raise ValueError("v must be finite, got NaN or infinity.")
    row = finite.argmin()
    raise ValueError(
        f"the kernel must be finite, got NaN or infinity in row {row}. Look at x1[{row}] and the "
        f"other inputs: {tiles.WHY_NOT_FINITE}"
    )


def _product(matrix: MatrixFree, v: jax.Array) -> jax.Array:
    pairs = jnp.asarray(tiles.pairs(*matrix._cuts, symmetric=matrix.x2 is None), jnp.int32)
    if matrix.mesh is None:
        return _share(matrix, matrix.x1, v, pairs, 0, 1)
    mesh, axes, everywhere = matrix.mesh, matrix.mesh.axis_names, PartitionSpec()

    def local(x: jax.Array, v: jax.Array, pairs: jax.Array) -> jax.Array:
        mine = jax.lax.axis_index(axes)
        return jax.lax.psum(_share(matrix, x, v, pairs, mine, mesh.size), axes)

    # Kernels may hold loops that were not written for `jax.shard_map`'s check.
    return jax.shard_map(
        local, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False
    )(matrix.x1, v, pairs)


def _share(
    matrix: MatrixFree, x1: jax.Array, v: jax.Array, pairs: jax.Array, first: Any, stride: int
) -> jax.Array:
    """Return what every `stride`-th tile, from the `first` on, adds to the product."""
    rows, columns = matrix._cuts
    symmetric, x2 = matrix.x2 is None, x1 if matrix.x2 is None else matrix.x2

    def step(k: jax.Array, out: jax.Array) -> jax.Array:
        i, j = pairs[first + stride * k]
        a, b, diagonal = rows.take(x1, i), columns.take(x2, j), symmetric and i == j
        tile = tiles.entries(matrix.kernel, a, b, matrix.dtype, diagonal).astype(v.dtype)
        out = _add(rows, out, i, _matmul(tile, jnp.where(columns.own(j), columns.take(v, j), 0)))
        if not symmetric:
            return out
        # The mirror image of the tile, if it is not on the diagonal.
        across = jnp.where(rows.own(i) & (i != j), rows.take(v, i), 0)
        return _add(rows, out, j, _matmul(tile.T, across))

    count = (len(pairs) - first + stride - 1) // stride
    return jax.lax.fori_loop(0, count, step, jnp.zeros((rows.n, v.shape[1]), v.dtype))


def _add(cut: Cut, out: jax.Array, k: jax.Array, values: jax.Array) -> jax.Array:
    """Add values to piece k of the rows, but for those of the piece before."""
    start = cut.start(k)
    new = cut.take(out, k) + jnp.where(cut.own(k), values, 0)
    return jax.lax.dynamic_update_slice_in_dim(out, new, start, 0)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")


def _diagonal_of_tile(matrix: MatrixFree, k: jax.Array) -> jax.Array:
    cut = matrix._cuts[0]
    rows = cut.take(matrix.x1, k)
    columns = rows if matrix.x2 is None else cut.take(matrix.x2, k)
    return jnp.diagonal(tiles.entries(matrix.kernel, rows, columns, matrix.dtype))
