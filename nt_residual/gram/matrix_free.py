"""The Gram matrix of a data set that is never stored: tiles are computed in each product."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from nt_residual import memory
from nt_residual._checks import finite_batch, native
from nt_residual.gram import blocks, inputs, owned, sharded, tiling

# Of multiplications with additions. Kernels that cost more take longer than is said.
_OPERATIONS_PER_SECOND = 5e10


@jax.tree_util.register_pytree_node_class
class MatrixFree:
    """The symmetric matrix k(x, x), of which no more than a tile exists at a time.

    A product with vectors computes every tile on and above the diagonal once more, and uses
    it for both of its places: it costs as much as making the matrix. `GradientFlow.fit`
    takes it in place of a matrix.

    Args:
      kernel: a JAX function of two batches, as for `gram.compute`.
      x: shape (n, …), floats.
      tile_size: the largest side of a tile; `None` picks one.
      mesh: the tiles are dealt out over its devices, in all processes. n need not be a
        multiple of their number. `None` for the mesh that `x` is spread over, if it is.

    Attributes:
      kernel: the kernel.
      x: the data, on every device.
      shape: (n, n).
      dtype: of the entries.
      tile_size: the side of a tile.

    Raises:
      TypeError, ValueError: as `gram.compute`.

    Example:
      >>> import jax.numpy as jnp
      >>> from nt_residual import rntk, schedules
      >>> matrix = MatrixFree(rntk.ResidualKernel(100, schedules.PowerLaw(0.5)), jnp.eye(3))
      >>> matrix.product(jnp.ones((3, 1))).round(4)
      Array([[1.3849],
             [1.3849],
             [1.3849]], dtype=float32)
    """

    @sharded.no_mesh()
    def __init__(
        self,
        kernel: blocks.Kernel,
        x: ArrayLike,
        *,
        tile_size: int | None = None,
        mesh: Mesh | None = None,
    ):
        x = finite_batch(x, "x")
        dtype = inputs.check_kernel(kernel, x, x)
        kernel, size = owned.own(kernel), inputs.check_tile_size(tile_size)
        if mesh is None:
            mesh = sharded.mesh_of(x, "x")
        if mesh is None:
            x = jnp.asarray(x)
        else:
            mesh = sharded.automatic_mesh(sharded.check_mesh(mesh))
            x = sharded.place(x, NamedSharding(mesh, PartitionSpec()), len(x))
        sample = x.addressable_data(0)
        made = tiling.program(
            kernel,
            sample,
            sample,
            tile_size=size,
            dtype=dtype,
            same=True,
            spare=memory.available(next(iter(sample.devices()))),
        )
        self._set(x, (kernel, made.cut1, dtype, mesh))

    def _set(self, x, rest):
        self.x = x
        self.kernel, self._cut, self.dtype, self.mesh = rest

    def tree_flatten(self):
        """What JAX traces, and what it compiles for."""
        return (self.x,), (owned.static(self.kernel), self._cut, self.dtype, self.mesh)

    @classmethod
    def tree_unflatten(cls, rest, children):
        """Inverse of `tree_flatten`."""
        made, (x,), (kernel, *others) = object.__new__(cls), children, rest
        made._set(x, (owned.from_static(kernel), *others))
        return made

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self._cut.n, self._cut.n

    @property
    def tile_size(self) -> int:
        """The side of a tile."""
        return self._cut.size

    @property
    def jit(self) -> Any:
        """`jax.jit` for functions of it. Nothing that is compiled keeps the kernel alive."""
        return functools.partial(owned.jit, self.kernel)

    @sharded.no_mesh()
    def product(self, v: jax.Array) -> jax.Array:
        """K @ v for v of shape (n,) or (n, o), the same shape; also inside of `jax.jit`.

        Raises:
          ValueError: if `v` has another shape.
        """
        v = v if isinstance(v, jax.Array) else jnp.asarray(native(np.asarray(v)))
        if v.ndim not in (1, 2) or len(v) != self._cut.n:
            raise ValueError(
                f"v must have shape ({self._cut.n},) or ({self._cut.n}, o), got {v.shape}."
            )
        columns = v.reshape(len(v), -1)
        wide = jnp.promote_types(jnp.promote_types(v.dtype, self.dtype), jnp.float32)
        return self.jit(_product)(self, columns.astype(wide)).reshape(v.shape)

    @property
    def seconds(self) -> float:
        """About how long one product takes."""
        operations = self._cut.n**2 * max(1, math.prod(self.x.shape[1:]))
        return operations / _OPERATIONS_PER_SECOND / (self.mesh.size if self.mesh else 1)

    @sharded.no_mesh()
    def place(self, v: Any) -> jax.Array:
        """An array where `product` wants its argument."""
        return jax.device_put(v, self.x.sharding)

    @sharded.no_mesh()
    def diagonal(self) -> np.ndarray:
        """K_ii, float64, shape (n,)."""
        cut, found = self._cut, np.empty(self._cut.n)
        diagonal_of_tile = self.jit(_diagonal_of_tile)
        for k in range(cut.count):
            start = cut.start(k)
            found[start : start + cut.size] = diagonal_of_tile(self, np.int32(k))
        return found


def _product(matrix: MatrixFree, v: jax.Array) -> jax.Array:
    pairs = jnp.asarray(blocks.upper_pairs(matrix._cut.count), jnp.int32)
    if matrix.mesh is None:
        return _share(matrix, matrix.x, v, pairs, 0, 1)
    axes, everywhere = matrix.mesh.axis_names, PartitionSpec()

    def local(x, v, pairs):
        mine = jax.lax.axis_index(axes)
        return jax.lax.psum(_share(matrix, x, v, pairs, mine, matrix.mesh.size), axes)

    # Kernels may hold loops that were not written for `jax.shard_map`'s check.
    return jax.shard_map(
        local, mesh=matrix.mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False
    )(matrix.x, v, pairs)


def _share(matrix, x, v, pairs, first, stride):
    """What every `stride`-th tile, from the `first` on, adds to the product."""
    cut = matrix._cut

    def add(out, k, values):
        start = cut.start(k)
        old = jax.lax.dynamic_slice_in_dim(out, start, cut.size)
        new = old + jnp.where(cut.own(k), values, 0)
        return jax.lax.dynamic_update_slice_in_dim(out, new, start, 0)

    def step(k, out):
        i, j = pairs[first + stride * k]
        a, b = cut.take(x, i), cut.take(x, j)
        tile = blocks.entries(matrix.kernel, a, b, matrix.dtype, diagonal=i == j).astype(v.dtype)
        out = add(out, i, _matmul(tile, jnp.where(cut.own(j), cut.take(v, j), 0)))
        across = jnp.where(cut.own(i) & (i != j), cut.take(v, i), 0)
        return add(out, j, _matmul(tile.T, across))

    count = (len(pairs) - first + stride - 1) // stride
    return jax.lax.fori_loop(0, count, step, jnp.zeros_like(v))


def _matmul(a, b):
    return jnp.matmul(a, b, precision="highest")


def _diagonal_of_tile(matrix: MatrixFree, k) -> jax.Array:
    rows = matrix._cut.take(matrix.x, k)
    return jnp.diagonal(blocks.entries(matrix.kernel, rows, rows, matrix.dtype))
