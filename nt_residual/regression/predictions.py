"""Predictions: products of kernels between new and training inputs with dual coefficients."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from numpy.typing import ArrayLike
from tqdm import tqdm

from nt_residual import gram
from nt_residual.compat import enable_x64
from nt_residual.regression.kernel_matrix import as_array, check_finite, is_sharded

# Of a block of rows that is converted to float64 or read from disk.
_BYTES = 2**27


def precision(dtype: Any) -> contextlib.AbstractContextManager:
    """Let JAX compute in float64 where that is the dtype, whatever it does elsewhere."""
    return enable_x64() if dtype == np.float64 else contextlib.nullcontext()


def check_shape(k_test_train: Any, n: int) -> np.ndarray | jax.Array | gram.Sharded | gram.Stored:
    """Return the kernel between new and training inputs, an array at least.

    Raises:
      TypeError: if it does not hold real numbers.
      ValueError: if it does not have n columns.
    """
    kernel = k_test_train
    if isinstance(kernel, gram.MatrixFree):
        raise TypeError(
            "k_test_train must be an array or a gram.Stored, got a gram.MatrixFree. Pass "
            "x_test=: its kernel with the training inputs is computed in tiles."
        )
    if not isinstance(kernel, gram.Sharded | gram.Stored):
        kernel = as_array(kernel, "k_test_train")
    if len(kernel.shape) != 2 or kernel.shape[1] != n:
        raise ValueError(
            f"k_test_train must have shape (n_test, {n}), one column per training input, got "
            f"shape {tuple(kernel.shape)}. Pass kernel(x_test, x_train)."
        )
    return kernel


def from_matrix(kernel: Any, c: np.ndarray) -> np.ndarray:
    """Return kernel @ c. With c in float64, arrays on one device are multiplied on the host.

    Args:
      kernel: shape (n_test, n), as `check_shape` returns it.
      c: shape (n, columns).

    Raises:
      ValueError: if a value of the kernel is NaN or infinite.
    """
    if isinstance(kernel, gram.Stored):
        rows = _rows(len(c))
        starts = range(0, kernel.shape[0], rows)
        return np.concatenate([from_matrix(kernel[i : i + rows], c) for i in starts])
    if isinstance(kernel, gram.Sharded):
        return from_matrix(kernel.matrix, c)[: kernel.shape[0]]
    check_finite(kernel, "k_test_train")
    if is_sharded(kernel):
        return _on_all_devices(kernel, c)
    if c.dtype == np.float64:
        return _on_host(kernel, c)
    return np.asarray(jax.jit(_product)(jnp.asarray(kernel), c))


def from_inputs(
    kernel: Any, x_test: Any, x_train: Any, c: np.ndarray, *, tile_size: int | None, progress: bool
) -> np.ndarray:
    """Return kernel(x_test, x_train) @ c, of which no more than some tiles exist at a time.

    Its dtype is that of the kernel, or float32 if that is more.
    """
    if c.dtype != np.float64:
        matrix = gram.MatrixFree(kernel, x_test, x_train, tile_size=tile_size)
        return np.asarray(matrix.product(c, progress=progress))
    # As `from_matrix`: entries in the dtype of the kernel, sums in float64.
    rows, parts = _rows(len(c)), []
    x = np.atleast_1d(x_test)
    starts = range(0, max(1, len(x)), rows)
    for i in tqdm(starts, desc="Predictions", unit="block", disable=not progress):
        tile = gram.compute(kernel, x[i : i + rows], x_train, tile_size=tile_size)
        parts.append(_on_host(np.asarray(tile), c).astype(np.promote_types(tile.dtype, "float32")))
    return np.concatenate(parts)


def training_data(
    kernel: Any, x_train: ArrayLike | None, fitted: gram.MatrixFree | None, n: int
) -> tuple[Any, Any]:
    """Return the kernel and the n training inputs, those of the fit unless others are passed.

    Raises:
      TypeError: if one is missing.
      ValueError: if there are not n inputs.
    """
    if fitted is not None:
        kernel = fitted.kernel if kernel is None else kernel
        # Tiles are made on one device.
        x = fitted.x1 if fitted.mesh is None else np.asarray(fitted.x1)
        x_train = x if x_train is None else x_train
    if kernel is None or x_train is None:
        raise TypeError(
            "predict needs kernel and x_train with x_test, unless the flow was fitted with a "
            "gram.MatrixFree, which has them."
        )
    count = np.shape(x_train)[0] if np.ndim(x_train) else 0
    if count != n:
        raise ValueError(f"x_train must hold the {n} training inputs, got {count}.")
    return kernel, x_train


def _rows(n: int) -> int:
    return max(1, _BYTES // (8 * n))


def _on_host(kernel: np.ndarray | jax.Array, c: np.ndarray) -> np.ndarray:
    out = np.empty((len(kernel), c.shape[1]))
    for i in range(0, len(kernel), _rows(len(c))):
        part = slice(i, i + _rows(len(c)))
        out[part] = np.asarray(kernel[part]).astype(np.float64) @ c
    return out


def _on_all_devices(kernel: Any, c: np.ndarray) -> np.ndarray:
    """Multiply on every device the rows that it holds, and send all predictions to all."""
    sharding = kernel.sharding
    if not isinstance(sharding, NamedSharding):
        raise ValueError(f"k_test_train is spread over devices by {sharding}. Use a NamedSharding.")
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    with precision(c.dtype):
        product = jax.jit(_product, out_shardings=everywhere)
        return np.asarray(product(kernel, jax.device_put(c, everywhere)))


def _product(kernel: jax.Array, c: jax.Array) -> jax.Array:
    return jnp.matmul(kernel, c, precision="highest")
