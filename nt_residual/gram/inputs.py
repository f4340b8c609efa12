"""The checks that kernels, batches and tile sizes must pass."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_residual._checks import finite_batch, optional_integer

_GET = "Pass functools.partial(kernel_fn, get='ntk') for one kernel of a neural-tangents kernel_fn."


def check_batches(
    x1: ArrayLike, x2: ArrayLike | None
) -> tuple[jax.Array | np.ndarray, jax.Array | np.ndarray, bool]:
    """Both batches, checked, and whether there is only one.

    Raises:
      TypeError, ValueError: as `_checks.finite_batch`, and if their inputs differ in shape.
    """
    x1 = finite_batch(x1, "x1")
    if x2 is None:
        return x1, x1, True
    x2 = finite_batch(x2, "x2")
    if x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"x1 and x2 must hold inputs of one shape, got shapes {x1.shape} and {x2.shape}."
        )
    return x1, x2, False


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
