"""Products of Gram matrices that are never held, between different batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from tqdm import tqdm

from nt_residual.gram import blocks, inputs, memory, tiling


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
    vector = np.asarray(v)
    if vector.ndim not in (1, 2) or len(vector) != len(x2):
        raise ValueError(
            f"v must have shape ({len(x2)},) or ({len(x2)}, o), one row per input of x2, got "
            f"shape {vector.shape}."
        )
    size = None if tile_size is None else inputs.check_tile_size(tile_size)
    kernel, x1, x2 = inputs.hashable(kernel), jnp.asarray(x1), jnp.asarray(x2)
    spare = memory.available(next(iter(x1.devices())))
    made = tiling.program(kernel, x1, x2, tile_size=size, dtype=dtype, same=False, spare=spare)
    wide = np.promote_types(dtype, np.float32)
    columns = jnp.asarray(vector.reshape(len(vector), -1), wide)
    out = np.empty((len(x1), columns.shape[1]), wide)
    cuts = made.cut1, made.cut2
    for i in tqdm(range(made.cut1.count), desc="Predictions", unit="tile", disable=not progress):
        start = made.cut1.start(i)
        out[start : start + made.cut1.size] = _rows(kernel, *cuts, x1, x2, columns, np.int32(i))
    return out.reshape(len(x1), *vector.shape[1:])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _rows(kernel, cut1, cut2, x1, x2, v, i):
    """The rows of tile row i of k(x1, x2) @ v."""
    a = cut1.take(x1, i)

    def step(j, out):
        tile = blocks.entries(kernel, a, cut2.take(x2, j), v.dtype)
        own = jnp.where(cut2.own(j), cut2.take(v, j), 0)
        return out + jnp.matmul(tile, own, precision="highest")

    return jax.lax.fori_loop(0, cut2.count, step, jnp.zeros((cut1.size, v.shape[1]), v.dtype))
