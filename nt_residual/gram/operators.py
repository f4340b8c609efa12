"""Operators: Gram matrices as solvers see them.

Each has `shape` (n, n) and `dtype`, and

- `product(v)`: K v for v of shape (n, o), also inside `jax.jit`;
- `place(v)`: an array v where `product` takes it from;
- `diagonal()`: K_ii in float64, shape (n,);
- `jit`: `jax.jit` for functions of the operator. Nothing that it compiles keeps the operator alive.

An operator is a pytree: pass it to jitted functions as an argument, since a matrix that they close
over is copied into the program.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nt_residual.gram import sharded
from nt_residual.gram.matrix_free import MatrixFree
from nt_residual.gram.sharded import Sharded
from nt_residual.gram.stored import Stored
from nt_residual.gram.tiles import device_of, shared_jit


@functools.partial(jax.tree_util.register_dataclass, data_fields=["matrix"], meta_fields=[])
@dataclasses.dataclass(frozen=True, eq=False)
class Dense:
    """A matrix, shape (n, n), in the memory of one device."""

    matrix: jax.Array
    jit = staticmethod(shared_jit)

    @property
    def shape(self) -> tuple[int, int]:  # noqa: D102
        return len(self.matrix), len(self.matrix)

    @property
    def dtype(self) -> np.dtype:  # noqa: D102
        return np.dtype(self.matrix.dtype)

    def product(self, v: jax.Array) -> jax.Array:  # noqa: D102
        return jnp.matmul(self.matrix.astype(v.dtype), v, precision="highest")

    def diagonal(self) -> np.ndarray:  # noqa: D102
        return np.asarray(jnp.diagonal(self.matrix), np.float64)

    def place(self, v: Any) -> jax.Array:  # noqa: D102
        return jax.device_put(v, device_of(self.matrix))


Operator = Dense | MatrixFree | Sharded | Stored


def as_operator(k: Any) -> Operator:
    """Return the operator of a symmetric matrix: an array, sharded or not, or one of `gram`'s.

    Raises:
      ValueError: if an array is spread over devices, but over no mesh.

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
