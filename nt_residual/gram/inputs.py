"""The checks that kernels, batches and tile sizes must pass."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from nt_residual._checks import native, optional_integer

_GET = "Pass functools.partial(kernel_fn, get='ntk') for one kernel of a neural-tangents kernel_fn."


def check_batch(x: ArrayLike, name: str) -> jax.Array | np.ndarray:
    """Returns `x` as an array of shape (n, …), having checked it as far as its values are here.

    Args:
      x: one input per entry of the first axis, real floats.
      name: what to call it in an error.

    Raises:
      TypeError: if it does not hold real floats.
      ValueError: if it is a scalar, is empty, or has an input with NaN or infinity.
    """
    array = x if isinstance(x, jax.Array) else native(np.asarray(x))
    if isinstance(array, Tracer):
        raise TypeError(
            f"{name} must be known, got a value traced by JAX: Gram matrices are made by a loop "
            "over tiles, outside of jax.jit. Inside of it call the kernel itself."
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} must hold real floats, got dtype {array.dtype}. Convert it: "
            f"{name}.astype('float32')."
        )
    if array.ndim < 1 or array.size == 0:
        raise ValueError(
            f"{name} must hold at least one input, shape (n, …), got shape {array.shape}."
        )
    _check_finite(array, name)
    return array


def check_batches(
    x1: ArrayLike, x2: ArrayLike | None
) -> tuple[jax.Array | np.ndarray, jax.Array | np.ndarray, bool]:
    """Both batches, checked, and whether there is only one.

    Raises:
      TypeError, ValueError: as `check_batch`, and if their inputs differ in shape.
    """
    x1 = check_batch(x1, "x1")
    if x2 is None:
        return x1, x1, True
    x2 = check_batch(x2, "x2")
    if x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"x1 and x2 must hold inputs of one shape, got shapes {x1.shape} and {x2.shape}."
        )
    return x1, x2, False


def _check_finite(array: jax.Array | np.ndarray, name: str) -> None:
    if isinstance(array, jax.Array):
        if not array.is_fully_addressable:
            return
        rows = np.asarray(_finite_rows(array))
    else:
        rows = np.concatenate(
            [
                np.isfinite(part).reshape(len(part), -1).all(axis=1)
                for part in np.array_split(array, max(1, array.nbytes // 2**26))
                if len(part)
            ]
        )
    bad = ~rows
    if bad.any():
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in input {bad.argmax()} ({bad.sum()} such "
            "inputs). Remove or impute them."
        )


@jax.jit
def _finite_rows(x: jax.Array) -> jax.Array:
    # Not by their maximum: XLA's may leave NaN out.
    return jnp.isfinite(x).reshape(len(x), -1).all(axis=1)


def check_kernel(kernel: Any, x1: jax.Array | np.ndarray, x2: jax.Array | np.ndarray) -> np.dtype:
    """Returns the dtype of k(x1, x2), having checked that it is one matrix.

    Args:
      kernel: a function of two batches.
      x1: shape (n1, …).
      x2: shape (n2, …).

    Raises:
      TypeError: if it is not a function that JAX can trace, or returns something else than
        real floats.
      ValueError: if the shape is wrong.
    """
    if not callable(kernel):
        raise TypeError(f"kernel must be a function of two batches, got {type(kernel).__name__}.")
    # Not the sizes of the data, which need not be known to any kernel: those of small tiles.
    shapes = [
        jax.ShapeDtypeStruct(
            (min(len(x), 3 + k), *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype)
        )
        for k, x in enumerate((x1, x2))
    ]
    try:
        out = jax.eval_shape(lambda a, b: kernel(a, b), *shapes)
    except jax.errors.JAXTypeError as error:
        raise TypeError(
            "kernel must be a JAX function of two batches, got one that needs the values of its "
            f"inputs ({type(error).__name__}). Write it with jax.numpy."
        ) from error
    if not isinstance(out, jax.ShapeDtypeStruct):
        raise TypeError(f"kernel must return one matrix, got {type(out).__name__}. {_GET}")
    expected = tuple(shape.shape[0] for shape in shapes)
    if out.shape != expected:
        raise ValueError(
            "kernel must return shape (n1, n2) for batches of n1 and n2 inputs, got shape "
            f"{out.shape} for {expected[0]} and {expected[1]}. End a network with Flatten or "
            "pooling, so that one number per pair remains."
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise TypeError(f"kernel must return real floats, got dtype {out.dtype}.")
    return np.dtype(out.dtype)


def check_tile_size(tile_size: Any) -> int | None:
    """Return the largest side of a tile, a positive integer or `None`."""
    return optional_integer(tile_size, "tile_size", "None picks one.")


def check_dtype(dtype: Any, of_kernel: np.dtype) -> np.dtype:
    """Returns the dtype of a matrix: that of the kernel unless another one is asked for.

    Raises:
      TypeError: if it is not a real float dtype.
      ValueError: if it is float64 and JAX does not compute in it.
    """
    if dtype is None:
        return of_kernel
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be a float dtype, got {dtype!r}.") from None
    if not jnp.issubdtype(wanted, jnp.floating):
        raise TypeError(f"dtype must be a float dtype, got {wanted}.")
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ValueError(
            f"dtype={wanted} needs jax.config.update('jax_enable_x64', True), and float64 inputs."
        )
    return wanted
