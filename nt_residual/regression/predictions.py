"""Predictions: products of kernels between new and training inputs with dual coefficients."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from nt_residual import gram
from nt_residual.compat import enable_x64
from nt_residual.regression.kernel_matrix import Matrix, check_finite, is_sharded

# Of a block of rows that is converted to float64 or read from disk.
_BYTES = 2**27


def precision(dtype: Any) -> contextlib.AbstractContextManager:
    """Let JAX compute in float64 where that is the dtype, whatever it does elsewhere."""
    return enable_x64() if dtype == np.float64 else contextlib.nullcontext()


def product(kernel: Matrix, c: np.ndarray, name: str) -> np.ndarray:
    """Return kernel @ c, having checked that the kernel, an argument of this name, is finite.

    With c in float64, arrays on one device are multiplied on the host.
    """
    if isinstance(kernel, gram.MatrixFree):
        with precision(c.dtype):
            return np.asarray(kernel.product(c))
    if isinstance(kernel, gram.Stored):
        rows = _rows(len(c))
        starts = range(0, kernel.shape[0], rows)
        return np.concatenate([product(kernel[i : i + rows], c, name) for i in starts])
    if isinstance(kernel, gram.Sharded):
        return product(kernel.matrix, c, name)[: kernel.shape[0]]
    check_finite(kernel, name)
    if is_sharded(kernel):
        return _on_all_devices(kernel, c, name)
    if c.dtype == np.float64:
        return _on_host(kernel, c)
    return np.asarray(jax.jit(_product)(jnp.asarray(kernel), c))


def _rows(n: int) -> int:
    return max(1, _BYTES // (8 * n))


def _on_host(kernel: np.ndarray | jax.Array, c: np.ndarray) -> np.ndarray:
    out = np.empty((len(kernel), c.shape[1]))
    for i in range(0, len(kernel), _rows(len(c))):
        part = slice(i, i + _rows(len(c)))
        out[part] = np.asarray(kernel[part]).astype(np.float64) @ c
    return out


def _on_all_devices(kernel: Any, c: np.ndarray, name: str) -> np.ndarray:
    """Multiply on every device the rows that it holds, and send all predictions to all."""
    sharding = kernel.sharding
    if not isinstance(sharding, NamedSharding):
        raise ValueError(f"{name} is spread over devices by {sharding}. Use a NamedSharding.")
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    with precision(c.dtype):
        multiply = jax.jit(_product, out_shardings=everywhere)
        return np.asarray(multiply(kernel, jax.device_put(c, everywhere)))


def _product(kernel: jax.Array, c: jax.Array) -> jax.Array:
    return jnp.matmul(kernel, c, precision="highest")
