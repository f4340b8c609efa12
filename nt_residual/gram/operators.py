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


@functools.partial(jax.tree_util.register_dataclass, data_fields=["matrix"], meta_fields=["mesh"])
@dataclasses.dataclass(frozen=True, eq=False)
class Dense:
    """A matrix that is in memory, of one device or sharded by rows.

    Attributes:
      matrix: shape (n, n).
      mesh: the devices that its rows are spread over, if they are.
    """

    matrix: jax.Array
    mesh: Mesh | None = None
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
        return self.matrix.nbytes / _BYTES_PER_SECOND / (self.mesh.size if self.mesh else 1)

    def product(self, v: jax.Array) -> jax.Array:
        """K @ v, shape (n, o)."""
        if self.mesh is None:
            return _matmul(self.matrix, v)
        rows, everywhere = PartitionSpec(self.mesh.axis_names), PartitionSpec()
        local = jax.shard_map(_matmul, mesh=self.mesh, in_specs=(rows, everywhere), out_specs=rows)(
            self.matrix, v
        )
        # The only thing sent: n × o numbers.
        return jax.lax.with_sharding_constraint(local, NamedSharding(self.mesh, everywhere))

    def diagonal(self) -> np.ndarray:
        """K_ii, float64, shape (n,)."""
        if self.mesh is None:
            return np.asarray(jnp.diagonal(self.matrix), np.float64)
        return np.asarray(_sharded_diagonal(self.matrix, self.mesh), np.float64)

    def place(self, v: Any) -> jax.Array:
        """An array where `product` wants its argument."""
        if self.mesh is None:
            return jax.device_put(v, next(iter(self.matrix.devices())))
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
      k: an array, of NumPy or JAX, sharded or not; a `gram.MatrixFree` or `gram.Stored`.

    Raises:
      ValueError: if an array is sharded such that its rows cannot be spread over the devices.

    Example:
      >>> import jax.numpy as jnp
      >>> as_operator(2 * jnp.eye(2)).product(jnp.ones((2, 1)))
      Array([[2.],
             [2.]], dtype=float32)
    """
    if isinstance(k, MatrixFree | Stored):
        return k
    k = jnp.asarray(k)
    if len(k.sharding.device_set) == 1:
        return Dense(k)
    if k.is_fully_replicated:
        return Dense(k.addressable_data(0))
    if not isinstance(k.sharding, NamedSharding):
        raise ValueError(f"k_train is spread over devices by {k.sharding}. Use a NamedSharding.")
    devices = sharded.automatic_mesh(k.sharding.mesh).devices.ravel()
    if len(k) % len(devices):
        raise ValueError(
            f"k_train must have a number of rows that {len(devices)} devices divide, got "
            f"{len(k)}. Shard it over fewer devices."
        )
    # By rows, which it may be already, on a mesh whose axes XLA may use as it likes.
    mesh = Mesh(devices, ("rows",), axis_types=(AxisType.Auto,))
    by_rows = NamedSharding(mesh, PartitionSpec("rows"))
    if k.sharding.is_equivalent_to(by_rows, 2):
        return Dense(sharded.relabelled(k, by_rows), mesh)
    return Dense(jax.device_put(sharded.automatic(k), by_rows), mesh)
