"""The checks that images and the options of a kernel must pass."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_residual._checks import integer, native
from nt_residual.rntk.inputs import is_known

_LAYOUT = "(n, height, width, channels)"


def check_sizes(value: Any, name: str) -> tuple[int, int]:
    """Returns two positive integers, as of (height, width).

    Raises:
      TypeError: if `value` is not a pair of integers.
      ValueError: if there are not two of them, or one is less than 1.
    """
    try:
        sizes = tuple(value)
    except TypeError:
        raise TypeError(f"{name} must be two integers (height, width), got {value!r}.") from None
    if len(sizes) != 2:
        raise ValueError(
            f"{name} must be two integers (height, width), got {value!r}. The number of "
            "channels is an argument of its own."
        )
    height, width = (integer(size, f"{name}[{k}]", 1) for k, size in enumerate(sizes))
    return height, width


def check_filter(value: Any) -> tuple[int, int]:
    """`check_sizes` of a filter, which must be odd.

    Raises:
      TypeError, ValueError: as `check_sizes`, and if a size is even.
    """
    sizes = check_sizes(value, "filter_shape")
    if not all(size % 2 for size in sizes):
        raise ValueError(
            f"filter_shape must be odd in each direction, got {sizes}: an even filter has no "
            "pixel in its middle, and moves the image. Pass (3, 3), for example."
        )
    return sizes


def check_images(
    x1: ArrayLike, x2: ArrayLike | None, shape: tuple[int, int], channels: int | None
) -> tuple[jax.Array, jax.Array | None, np.dtype]:
    """Returns both batches in the dtype to compute in, and that of the first, having checked them.

    Values are checked where they are known, that is outside `jax.jit` and its like.

    Args:
      x1: shape (n1, height, width, channels), real floats.
      x2: shape (n2, height, width, channels), likewise, or `None`.
      shape: the (height, width) expected.
      channels: the number of channels expected; `None` for any.

    Raises:
      TypeError: if an input does not hold real floats.
      ValueError: if a shape is not as expected, or an image has NaN or infinity.
    """
    x1 = _check_batch(x1, "x1", shape, channels)
    given, dtype = x1.dtype, jnp.promote_types(x1.dtype, jnp.float32)
    if x2 is not None:
        x2 = _check_batch(x2, "x2", shape, channels)
        if x1.shape[1:] != x2.shape[1:]:
            raise ValueError(
                f"x1 and x2 must have the same number of channels, got shapes {x1.shape} and "
                f"{x2.shape}."
            )
        wide, x2 = x2.dtype, x2.astype(dtype)
        if wide != dtype:
            _check_finite(x2, f"x2, converted to {dtype},")
    return x1.astype(dtype), x2, given


def _check_batch(x, name, shape, channels) -> jax.Array:
    try:
        array = x if isinstance(x, jax.Array) else native(np.asarray(x))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of shape {_LAYOUT}: {error}") from None
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} must hold real floats, got dtype {array.dtype}. Convert it: "
            f"{name}.astype('float32') / 255 for bytes."
        )
    height, width = shape
    expected = f"shape (n, {height}, {width}, {'channels' if channels is None else channels})"
    if array.ndim != 4:
        remedy = ""
        if array.ndim == 3 and array.shape[1:] == shape:
            remedy = f" Add an axis for the channel: {name}[..., None]."
        elif array.ndim == 3:
            remedy = f" For a single image pass {name}[None]."
        elif array.ndim == 2:
            remedy = f" Flat images become so by {name}.reshape(-1, {height}, {width}, channels)."
        raise ValueError(f"{name} must have {expected}, got shape {array.shape}.{remedy}")
    if array.shape[1:3] != shape:
        remedy = ""
        if array.shape[2:] == shape:
            remedy = f" Channels come last: jnp.moveaxis({name}, 1, -1)."
        raise ValueError(
            f"{name} must have {expected}, got shape {array.shape}.{remedy} The size of "
            "the images is that of image_shape=, with which the kernel was made."
        )
    if channels is not None and array.shape[3] != channels:
        raise ValueError(
            f"{name} must have {expected}, got shape {array.shape}. The number of channels is that "
            "of channels=, with which the kernel was made."
        )
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one image, got shape {array.shape}.")
    # Inside a function that JAX traces a NumPy array would become a traced one.
    with jax.ensure_compile_time_eval():
        given, array = array.dtype, jnp.asarray(array)
    _check_finite(array, name if array.dtype == given else f"{name}, converted to {array.dtype},")
    return array


def _check_finite(x: jax.Array, name: str) -> None:
    if not is_known(x):
        return
    # Inside a function that JAX traces, where `x` may be a known array that it closes over.
    with jax.ensure_compile_time_eval():
        bad = ~np.asarray(_finite_images(x))
    if bad.any():
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in image {bad.argmax()} ({bad.sum()} such "
            "images). Remove or impute them."
        )


@jax.jit
def _finite_images(x: jax.Array) -> jax.Array:
    return jnp.isfinite(x).all(axis=(1, 2, 3))


def log_largest_rms(x: jax.Array) -> float:
    """The logarithm of the largest root mean square of an image; −∞ where it is not known."""
    if not is_known(x):
        return -math.inf
    # Inside a function that JAX traces, where `x` may be a known array that it closes over.
    with jax.ensure_compile_time_eval():
        largest = float(root_mean_squares(x).max())
    return math.log(largest) if largest > 0 else -math.inf


@jax.jit
def root_mean_squares(x: jax.Array) -> jax.Array:
    """Of each image, shape (n,), without overflow or underflow."""
    axes = (1, 2, 3)
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axes, keepdims=True))
    some = largest > 0
    mean_square = jnp.mean((x / jnp.where(some, largest, 1)) ** 2, axes, keepdims=True)
    # The side of `where` that is not taken must have a derivative, too.
    sizes = largest * jnp.sqrt(jnp.where(some, mean_square, 1))
    return sizes[:, 0, 0, 0]
