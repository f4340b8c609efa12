"""Products of Gram matrices that are never held, between different batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from tqdm import tqdm

from nt_residual import memory
from nt_residual.gram import blocks, inputs, owned, sharded, tiling


@sharded.no_mesh()
def product(
    kernel: blocks.Kernel,
    x1: ArrayLike,
    x2: ArrayLike,
    v: ArrayLike,
    *,
    tile_size: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """The product k(x1, x2) @ v, of which no more than a tile of k exists at a time.

    Args:
      kernel: a JAX function of two batches, as for `gram.compute`.
      x1: shape (n1, …), floats.
      x2: shape (n2, …).
      v: shape (n2,) or (n2, o), real numbers.
      tile_size: the largest side of a tile; `None` picks one.
      progress: whether to show a progress bar.

    Returns:
      Shape (n1,) or (n1, o), a NumPy array of the kernel's dtype, or of float32 if that is
      more.

    Raises:
      TypeError, ValueError: as `gram.compute`, or if `v` has another shape.

    Example:
      >>> import numpy as np
      >>> product(lambda a, b: a @ b.T, np.eye(2), 2 * np.eye(2), np.ones(2))
      array([2., 2.], dtype=float32)
    """
    x1, x2, _ = inputs.check_batches(x1, x2)
    dtype = inputs.check_kernel(kernel, x1, x2)
    kernel = owned.own(kernel)
    vector = _checked_vector(v, len(x2))
    size = inputs.check_tile_size(tile_size)
    rows = _on_one_device(x1)
    device = next(iter(rows.devices()))
    columns = jax.device_put(_on_one_device(x2), device)
    made = tiling.program(
        kernel,
        rows,
        columns,
        tile_size=size,
        dtype=dtype,
        same=False,
        spare=memory.available(device),
    )
    wide = jnp.promote_types(dtype, jnp.float32)
    factor = jax.device_put(vector.reshape(len(vector), -1).astype(wide), device)
    tile_row = owned.jit(kernel, _rows, static_argnums=(0, 1, 2))
    run = functools.partial(tile_row, owned.static(kernel), made.cut1, made.cut2)
    out = np.empty((len(rows), factor.shape[1]), wide)
    for i in tqdm(range(made.cut1.count), desc="Predictions", unit="tile", disable=not progress):
        start = made.cut1.start(i)
        values = np.asarray(run(rows, columns, factor, np.int32(i)))
        _check_rows(values, start)
        out[start : start + made.cut1.size] = values
    return out.reshape(len(rows), *vector.shape[1:])


def _check_rows(values: np.ndarray, start: int) -> None:
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        row = start + bad.argmax()
        raise ValueError(
            f"the kernel must be finite, got NaN or infinity in row {row}. Look at x1[{row}]: "
            f"{blocks.WHY_NOT_FINITE}"
        )


def _checked_vector(v: ArrayLike, n: int) -> np.ndarray:
    vector = np.asarray(v)
    if vector.ndim not in (1, 2) or len(vector) != n:
        raise ValueError(
            f"v must have shape ({n},) or ({n}, o), one row per input of x2, got shape "
            f"{vector.shape}."
        )
    if not jnp.issubdtype(vector.dtype, jnp.floating) and vector.dtype.kind not in "biu":
        raise TypeError(f"v must hold real numbers, got dtype {vector.dtype}.")
    if not np.isfinite(vector).all():
        raise ValueError("v must be finite, got NaN or infinity.")
    return vector


def _on_one_device(x: jax.Array | np.ndarray) -> jax.Array:
    spread = isinstance(x, jax.Array) and len(x.sharding.device_set) > 1
    return jnp.asarray(np.asarray(x) if spread else x)


def _rows(kernel, cut1, cut2, x1, x2, v, i):
    """The rows of tile row i of k(x1, x2) @ v."""
    a = cut1.take(x1, i)

    def step(j, out):
        tile = blocks.entries(kernel, a, cut2.take(x2, j), v.dtype)
        own = jnp.where(cut2.own(j), cut2.take(v, j), 0)
        return out + jnp.matmul(tile, own, precision="highest")

    return jax.lax.fori_loop(0, cut2.count, step, jnp.zeros((cut1.size, v.shape[1]), v.dtype))
