"""Operators: Gram matrices as solvers see them.

Each has `shape` (n, n) and `dtype`, and

- `product(v)`: K v for v of shape (n, o), also inside `jax.jit`;
- `place(v)`: an array v where `product` takes it from;
- `diagonal()`: K_ii in float64, shape (n,);
- `jit`: `jax.jit` for functions of the operator. Nothing that it compiles keeps the operator alive.

An operator is a pytree: pass it to jitted functions as an argument, since a matrix that they close
over is copied into the program.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nt_residual.gram import sharded
from nt_residual.gram.matrix_free import MatrixFree
from nt_residual.gram.sharded import Sharded
from nt_residual.gram.stored import Stored

Operator = MatrixFree | Sharded | Stored


def as_operator(k: Any) -> Operator:
    """Return the operator of a symmetric matrix: an array, sharded or not, or one of `gram`'s.

    An array on one device is spread over a mesh of one.
    """
    if isinstance(k, MatrixFree | Sharded | Stored):
        return k
    k = jnp.asarray(k)
    if k.is_fully_replicated:
        k = k.addressable_data(0)
        devices = np.array(list(k.devices()))
    elif isinstance(k.sharding, NamedSharding):
        devices = sharded.automatic_mesh(k.sharding.mesh).devices.ravel()
    else:
        raise ValueError(f"k_train is spread over devices by {k.sharding}. Use a NamedSharding.")
    # By rows, which it may be already, on a mesh whose axes XLA may use as it likes.
    mesh = Mesh(devices, ("rows",), axis_types=(AxisType.Auto,))
    by_rows = NamedSharding(mesh, PartitionSpec("rows"))
    if k.sharding.is_equivalent_to(by_rows, 2):
        return Sharded(sharded.relabeled(k, by_rows), mesh, len(k))
    n = -(-len(k) // len(devices)) * len(devices)
    return Sharded(sharded.place(k, by_rows, n), mesh, len(k))
