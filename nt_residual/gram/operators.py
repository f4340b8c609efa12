"""What a solver needs of a Gram matrix: its products with vectors, and its diagonal.

An operator is a pytree, to be passed to compiled functions as an argument: one that they
close over would be copied into the program. `gram.MatrixFree` and `gram.Stored` are
operators as they are.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nt_residual.gram import owned, sharded
from nt_residual.gram.matrix_free import MatrixFree
from nt_residual.gram.store import Stored

# About what a device reads from its memory.
_BYTES_PER_SECOND = 1e10


class Operator(Protocol):
    """A symmetric matrix K of which products are known."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """That of the entries."""
        ...

    @property
    def seconds(self) -> float:
        """About how long one product takes."""
        ...

    @property
    def jit(self) -> Callable[..., Any]:
        """`jax.jit` for functions of it. Nothing that is compiled keeps the operator alive."""
        ...

    def product(self, v: jax.Array) -> jax.Array:
        """K @ v, shape (n, o), also inside of `jax.jit`."""
        ...

    def diagonal(self) -> np.ndarray:
        """K_ii, float64, shape (n,)."""
        ...

    def place(self, v: Any) -> jax.Array:
        """An array where `product` wants its argument."""
        ...


@functools.partial(jax.tree_util.register_dataclass, data_fields=["matrix"], meta_fields=[])
@dataclasses.dataclass(frozen=True, eq=False)
class Dense:
    """A matrix that is in the memory of one device.

    Attributes:
      matrix: shape (n, n).
    """

    matrix: jax.Array
    jit = staticmethod(owned.shared)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        n, m = self.matrix.shape
        return n, m

    @property
    def dtype(self) -> np.dtype:
        """That of the entries."""
        return np.dtype(self.matrix.dtype)

    @property
    def seconds(self) -> float:
        """About how long one product takes."""
        return self.matrix.nbytes / _BYTES_PER_SECOND

    def product(self, v: jax.Array) -> jax.Array:
        """K @ v, shape (n, o)."""
        return _matmul(self.matrix, v)

    def diagonal(self) -> np.ndarray:
        """K_ii, float64, shape (n,)."""
        return np.asarray(jnp.diagonal(self.matrix), np.float64)

    def place(self, v: Any) -> jax.Array:
        """An array where `product` wants its argument."""
        return jax.device_put(v, next(iter(self.matrix.devices())))


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["matrix"], meta_fields=["mesh", "n1"]
)
@dataclasses.dataclass(frozen=True, eq=False)
class Sharded:
    """A matrix in memory whose rows are spread over the devices of a mesh, for any number of rows.

    `gram.compute(..., mesh=)` returns one where the devices do not divide n1, since a `jax.Array`
    cannot be spread so. `GradientFlow.fit` and `predict` take it; `np.asarray` gathers it on the
    host.

    Attributes:
      matrix: shape (n, n2), sharded by rows; n is the next multiple of the number of devices. The
        first n1 rows are the matrix; the others mean nothing.
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
    jit = staticmethod(owned.shared)

    @property
    def shape(self) -> tuple[int, int]:
        """(n1, n2)."""
        return self.n1, self.matrix.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """That of the entries."""
        return np.dtype(self.matrix.dtype)

    @property
    def seconds(self) -> float:
        """About how long one product takes."""
        return self.matrix.nbytes / _BYTES_PER_SECOND / self.mesh.size

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a sharded matrix is copied to the host: leave copy out.")
        return np.asarray(self.matrix, dtype)[: self.n1]

    def product(self, v: jax.Array) -> jax.Array:
        """K @ v, shape (n1, o), on all devices."""
        rows, everywhere = PartitionSpec(self.mesh.axis_names), PartitionSpec()
        local = jax.shard_map(_matmul, mesh=self.mesh, in_specs=(rows, everywhere), out_specs=rows)(
            self.matrix, v
        )
        # The only thing sent: n × o numbers.
        whole = jax.lax.with_sharding_constraint(local, NamedSharding(self.mesh, everywhere))
        return whole[: self.n1]

    def diagonal(self) -> np.ndarray:
        """K_ii, float64, shape (n1,)."""
        found = _sharded_diagonal(self.matrix, self.mesh)
        return np.asarray(found, np.float64)[: self.n1]

    def place(self, v: Any) -> jax.Array:
        """An array where `product` wants its argument."""
        return jax.device_put(v, NamedSharding(self.mesh, PartitionSpec()))


def _matmul(matrix, v):
    return jnp.matmul(matrix.astype(v.dtype), v, precision="highest")


@functools.partial(jax.jit, static_argnames="mesh")
def _sharded_diagonal(matrix: jax.Array, mesh: Mesh) -> jax.Array:
    def local(rows):
        index = jax.lax.axis_index(mesh.axis_names) * len(rows) + jnp.arange(len(rows))
        return jnp.take_along_axis(rows, index[:, None], axis=1)[:, 0]

    spec = PartitionSpec(mesh.axis_names)
    found = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec)(matrix)
    return jax.lax.with_sharding_constraint(found, NamedSharding(mesh, PartitionSpec()))


def as_operator(k: Any) -> Operator:
    """The products of a symmetric matrix.

    Args:
      k: an array, of NumPy or JAX, sharded or not; a `gram.MatrixFree`, `gram.Sharded` or
        `gram.Stored`.

    Raises:
      ValueError: if an array is spread over no mesh.

    Example:
      >>> import jax.numpy as jnp
      >>> as_operator(2 * jnp.eye(2)).product(jnp.ones((2, 1)))
      Array([[2.],
             [2.]], dtype=float32)
    """
    if isinstance(k, MatrixFree | Sharded | Stored):
        return k
    k = jnp.asarray(k)
    if len(k.sharding.device_set) == 1:
        return Dense(k)
    if k.is_fully_replicated:
        return Dense(k.addressable_data(0))
    if not isinstance(k.sharding, NamedSharding):
        raise ValueError(f"k_train is spread over devices by {k.sharding}. Use a NamedSharding.")
    devices = sharded.automatic_mesh(k.sharding.mesh).devices.ravel()
    # By rows, which it may be already, on a mesh whose axes XLA may use as it likes.
    mesh = Mesh(devices, ("rows",), axis_types=(AxisType.Auto,))
    by_rows = NamedSharding(mesh, PartitionSpec("rows"))
    if k.sharding.is_equivalent_to(by_rows, 2):
        return Sharded(sharded.relabeled(k, by_rows), mesh, len(k))
    n = -(-len(k) // len(devices)) * len(devices)
    return Sharded(sharded.place(k, by_rows, n), mesh, len(k))
