"""Checks and sizes of batches of images.

Values are checked where they are known: not inside `jax.jit` or similar, and not on other hosts.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_residual import _checks
from nt_residual.rntk.rows import converted, in_one_dtype, is_known


def check_images(
    x1: ArrayLike, x2: ArrayLike | None, shape: tuple[int, int]
) -> tuple[jax.Array, jax.Array | None, np.dtype]:
    """Check two batches; return them in the dtype to compute in, and the dtype of the first.

    Raises:
      TypeError: if an input does not hold real floats.
      ValueError: if a shape is wrong, or an image has NaN or infinity.
    """
    x1 = _check_batch(x1, "x1", shape)
    if x2 is not None:
        x2 = _check_batch(x2, "x2", shape)
        if x1.shape[1:] != x2.shape[1:]:
            raise ValueError(
                f"x1 and x2 must have the same number of channels, got shapes {x1.shape} and "
                f"{x2.shape}."
            )
    return in_one_dtype(x1, x2, _check_finite)


def _check_batch(x: ArrayLike, name: str, shape: tuple[int, int]) -> jax.Array:
    layout = "(n, height, width, channels)"
    remedy = f"Convert it: {name}.astype('float32') / 255 for bytes."
    array = _checks.float_array(x, name, layout, remedy)
    height, width = shape
    if array.ndim != 4 or array.shape[1:3] != shape:
        if array.shape[1:] == shape:
            remedy = f"Add an axis for the channel: {name}[..., None]."
        elif array.ndim == 3:
            remedy = f"For a single image pass {name}[None]."
        elif array.shape[2:] == shape:
            remedy = f"Channels come last: jnp.moveaxis({name}, 1, -1)."
        else:
            remedy = f"Pass {name}.reshape(-1, {height}, {width}, channels) for flat images."
        raise ValueError(
            f"{name} must have shape (n, {height}, {width}, channels), where image_shape={shape}, "
            f"got shape {array.shape}. {remedy}"
        )
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one image, got shape {array.shape}.")
    return converted(array, name, _check_finite)


def _check_finite(x: jax.Array, name: str) -> None:
    if not is_known(x):
        return
    # Inside a function that JAX traces, `x` may be a known array that the function closes over.
    with jax.ensure_compile_time_eval():
        _checks.finite_batch(x, name)


@jax.jit
def root_mean_squares(x: jax.Array) -> jax.Array:
    """Return the root mean square of each image, shape (n,), without overflow or underflow."""
    axes = (1, 2, 3)
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axes, keepdims=True))
    some = largest > 0
    mean_square = jnp.mean((x / jnp.where(some, largest, 1)) ** 2, axes, keepdims=True)
    # The unused branch of `where` must have a finite derivative too.
    sizes = largest * jnp.sqrt(jnp.where(some, mean_square, 1))
    return sizes[:, 0, 0, 0]
