"""Products of kernels between new and training inputs with dual coefficients."""

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
from nt_residual.regression import inputs
from nt_residual.regression.inputs import as_array, check_finite

# Of a block of rows that is converted to float64 or read from disk.
_BYTES = 2**27


def precision(dtype: Any) -> contextlib.AbstractContextManager:
    """Lets JAX compute in float64 where that is the dtype, whatever it does elsewhere."""
    return enable_x64() if dtype == np.float64 else contextlib.nullcontext()


def in_range(c: np.ndarray, unit: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of c as v · 2^e, with v such that k v is in the range of `dtype`.

    Args:
      c: shape (n, columns), float64.
      unit: 2^unit is the largest entry of the kernel matrix of the training inputs; that of k
        may be another.
      dtype: of v, and in which k v is computed.

    Returns:
      v, shape (n, columns), and e, shape (columns,).
    """
    # With Σ_j |v_j| ≤ 2^(−unit/2)/2 no sum exceeds half of the largest |k_ij| times 2^(−unit/2).
    exponents = np.frexp(np.sum(np.abs(c), axis=0))[1] + 1 + unit // 2
    # Devices may take small entries of k to be zero. The host does not, in float64.
    dtype = np.dtype(np.float64) if inputs.loses_digits(unit, dtype) else dtype
    return inputs.scaled(c, -exponents).astype(dtype), exponents


def with_matrix(k_test_train: ArrayLike | gram.Sharded | gram.Stored, c: np.ndarray) -> np.ndarray:
    """Multiplies k and c for a matrix in memory, sharded, or on disk.

    Args:
      k_test_train: shape (n_test, n).
      c: shape (n, columns). In float64 it is multiplied on the host, some rows at a time.

    Raises:
      TypeError: if `k_test_train` does not hold real numbers.
      ValueError: if its shape is wrong or a value is NaN or infinite.
    """
    kernel = check_shape(k_test_train, len(c))
    if isinstance(kernel, gram.Stored):
        rows = _rows(kernel.shape[1])
        starts = range(0, kernel.shape[0], rows)
        return np.concatenate([with_matrix(kernel[i : i + rows], c) for i in starts])
    if isinstance(kernel, gram.Sharded):
        return with_matrix(kernel.matrix, c)[: kernel.shape[0]]
    check_finite(kernel, "k_test_train")
    if isinstance(kernel, jax.Array) and not kernel.is_fully_replicated:
        return _sharded(kernel, c)
    if c.dtype == np.float64:
        return _on_host(kernel, c)
    return np.asarray(_matmul(jnp.asarray(kernel), c))


def training_data(
    kernel: Any, x_train: ArrayLike | None, fitted: gram.MatrixFree | None, n: int
) -> tuple[Any, Any]:
    """The kernel and the n training inputs, those of the fit unless others are passed.

    Raises:
      TypeError: if one is missing.
      ValueError: if there are not n inputs.
    """
    if fitted is not None:
        kernel = fitted.kernel if kernel is None else kernel
        # Tiles are made on one device.
        x = fitted.x if fitted.mesh is None else np.asarray(fitted.x)
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


def with_kernel(
    kernel: Any,
    x_train: Any,
    x_test: Any,
    c: np.ndarray,
    *,
    tile_size: int | None,
    progress: bool,
) -> np.ndarray:
    """kernel(x_test, x_train) @ c, of which no more than some tiles exist at a time.

    Returns:
      The dtype of the kernel, or float32 if that is more.
    """
    if c.dtype != np.float64:
        return gram.product(kernel, x_test, x_train, c, tile_size=tile_size, progress=progress)
    # As `with_matrix`: entries in the dtype of the kernel, sums in float64.
    rows, parts = _rows(len(c)), []
    x = np.atleast_1d(x_test)
    starts = range(0, max(1, len(x)), rows)
    for i in tqdm(starts, desc="Predictions", unit="block", disable=not progress):
        tile = gram.compute(kernel, x[i : i + rows], x_train, tile_size=tile_size)
        parts.append(_on_host(np.asarray(tile), c).astype(np.promote_types(tile.dtype, "float32")))
    return np.concatenate(parts)


def check_shape(k_test_train: ArrayLike | gram.Sharded | gram.Stored, n: int) -> Any:
    """Returns a kernel between new and training inputs as an array, or `gram.Stored`.

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


def _rows(n: int) -> int:
    return max(1, _BYTES // (8 * n))


def _on_host(kernel: np.ndarray | jax.Array, c: np.ndarray) -> np.ndarray:
    out = np.empty((len(kernel), c.shape[1]))
    for i in range(0, len(kernel), _rows(len(c))):
        part = slice(i, i + _rows(len(c)))
        out[part] = np.asarray(kernel[part]).astype(np.float64) @ c
    return out


def _sharded(kernel: jax.Array, c: np.ndarray) -> np.ndarray:
    """Every device multiplies what it holds; predictions are sent to all."""
    everywhere = kernel.sharding
    if isinstance(everywhere, NamedSharding):
        everywhere = NamedSharding(everywhere.mesh, PartitionSpec())
        with precision(c.dtype):
            return np.asarray(
                jax.jit(_product, out_shardings=everywhere)(kernel, jax.device_put(c, everywhere))
            )
    raise ValueError(f"k_test_train is spread over devices by {everywhere}. Use a NamedSharding.")


def _product(kernel: jax.Array, c: jax.Array) -> jax.Array:
    return jnp.matmul(kernel, c, precision="highest")


_matmul = jax.jit(_product)
