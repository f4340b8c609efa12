"""Checks of arguments: integers, numbers, booleans, choices, labels, inputs and kernels.

One law holds for every public function. A value of the wrong type raises a `TypeError`, a wrong
value of the right type a `ValueError`. A bool is no number, and a float is no integer, 2.0
included. Each message names the argument, what was expected, what came, and what to do.

JAX is imported by the functions that need it, not with this module.
"""

import math
import operator
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import jax


def integer(value: Any, name: str, least: int, remedy: str = "") -> int:
    """Return `value`, the argument `name`, as an int that is at least `least`.

    `remedy`, here and below, is a sentence that tells what to do.

    Raises:
      TypeError: if it is not an integer. Bools and floats are not.
      ValueError: if it is too small.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(cast(SupportsIndex, value))
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}. {remedy}".rstrip()) from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}. {remedy}".rstrip())
    return number


def optional_integer(value: Any, name: str, remedy: str) -> int | None:
    """Return `value` as a positive int, or `None`. Errors are those of `integer`."""
    return None if value is None else integer(value, name, 1, remedy)


def number(
    value: Any,
    name: str,
    *,
    positive: bool = False,
    negative: bool = False,
    infinite: bool = False,
    remedy: str = "",
) -> float:
    """Return `value` as a float: not negative unless `negative`, and not zero if `positive`.

    Raises:
      TypeError: if it is not a real number. Bools and strings are not.
      ValueError: if it is NaN, negative, or infinite or zero where that is not allowed.
    """
    array = np.asarray(value)
    if array.ndim != 0 or array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be a real number, got {value!r}. {remedy}".rstrip())
    result = float(array)
    out_of_range = math.isnan(result) or (result < 0 and not negative) or (positive and result == 0)
    if out_of_range or (math.isinf(result) and not infinite):
        kind = "positive" if positive else "≥ 0" if not negative else "a number"
        kind += "" if infinite else " and finite"
        raise ValueError(f"{name} must be {kind}, got {result}. {remedy}".rstrip())
    return result


def boolean(value: Any, name: str) -> bool:
    """Return `value` as a bool.

    Raises:
      TypeError: if it is not `True` or `False`.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}.")
    return bool(value)


def choice(value: Any, name: str, choices: Sequence[str]) -> str:
    """Return `value`, having checked that it is one of `choices`.

    Raises:
      TypeError: if it is not a string.
      ValueError: if it is another string.
    """
    listed = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {listed}, got {value!r}.")
    if value not in choices:
        raise ValueError(f"{name} must be {listed}, got {value!r}.")
    return value


def path(value: Any, name: str) -> pathlib.Path:
    """Return `value` as a path; a `TypeError` if it is neither a string nor a path."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {value!r}. Pass a string or pathlib.Path.")
    return pathlib.Path(value)


def sizes(value: Any, name: str) -> tuple[int, int]:
    """Return a (height, width) of two positive integers.

    Raises:
      TypeError: if it is not a pair of integers.
      ValueError: if there are not two of them, or one is less than 1.
    """
    try:
        pair = tuple(value)
    except TypeError:
        raise TypeError(f"{name} must be two integers (height, width), got {value!r}.") from None
    if len(pair) != 2:
        raise ValueError(
            f"{name} must be two integers (height, width), got {value!r}. The number of "
            "channels is an argument of its own."
        )
    height, width = (integer(size, f"{name}[{k}]", 1) for k, size in enumerate(pair))
    return height, width


def real_array(
    values: ArrayLike, name: str, remedy: str = "", *, infinite: bool = False
) -> np.ndarray:
    """Return `values` in float64, having checked that they are finite real numbers.

    Raises:
      TypeError: if they are not real numbers.
      ValueError: if one is NaN, or infinite where that is not allowed.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise TypeError(f"{name} must be an array of real numbers: {error}") from None
    real_dtype(array.dtype, name, remedy)
    array = array.astype(np.float64)
    bad = np.isnan(array) if infinite else ~np.isfinite(array)
    if bad.any():
        where = f", the first at index {np.argwhere(bad)[0].tolist()}" if array.ndim else ""
        wanted, found = ("not be NaN", "NaN") if infinite else ("be finite", "NaN or infinite")
        message = f"{name} must {wanted}, got {bad.sum()} values that are {found}{where}. {remedy}"
        raise ValueError(message.rstrip())
    return array


def real_dtype(dtype: np.dtype, name: str, remedy: str = "") -> None:
    """Raise `TypeError` unless a dtype is one of integers or real floats, bfloat16 included."""
    # NumPy has no kind of its own for bfloat16 and the like.
    if dtype.kind not in "iuf" and not dtype.name.startswith(("bfloat", "float")):
        raise TypeError(f"{name} must hold real numbers, got dtype {dtype}. {remedy}".rstrip())


def labels(values: ArrayLike, name: str, n_classes: int) -> np.ndarray:
    """Return class labels as a NumPy array of integers in [0, n_classes), shape (n,).

    Raises:
      TypeError: if they are not integers.
      ValueError: if one is out of range, or the shape is another.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} must hold integer labels, got dtype {array.dtype}. Number the classes from 0."
        )
    if array.ndim != 1:
        raise ValueError(
            f"{name} must have shape (n,), got shape {array.shape}. Pass one label per input."
        )
    if array.size and not (array.min() >= 0 and array.max() < n_classes):
        raise ValueError(
            f"{name} must lie in [0, {n_classes}), got {array.min()} to {array.max()}. Number the "
            "classes from 0."
        )
    return array


def float_array(x: ArrayLike, name: str, layout: str, remedy: str = "") -> Any:
    """Return `x` as a NumPy or JAX array of real floats; values and shape are not checked.

    `layout` is the expected shape in words, and `remedy` tells how to convert another dtype.

    Raises:
      TypeError: if it is not an array of real floats.
    """
    import jax
    import jax.numpy as jnp

    try:
        array: Any = x if isinstance(x, jax.Array) else native(np.asarray(x))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of shape {layout}: {error}") from None
    if not jnp.issubdtype(array.dtype, jnp.floating):
        remedy = remedy or f"Convert it: {name}.astype('float32')."
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            remedy = "Pass real and imaginary parts as features of their own."
        raise TypeError(f"{name} must hold real floats, got dtype {array.dtype}. {remedy}")
    return array


def finite_batch(x: ArrayLike, name: str) -> "jax.Array | np.ndarray":
    """Return `x` as a NumPy or JAX array of shape (n, …), having checked its values.

    The values of an array that is spread over several processes are not checked.

    Raises:
      TypeError: if it does not hold real floats, or JAX traces it.
      ValueError: if it is a scalar, is empty, or has an input with NaN or infinity.
    """
    import jax
    import jax.numpy as jnp
    from jax.core import Tracer

    array: Any = float_array(x, name, "(n, …)")
    if isinstance(array, Tracer):
        raise TypeError(
            f"{name} must have known values, got a value traced by JAX. Call this function outside "
            "of jax.jit and other transformations."
        )
    if array.ndim < 1 or array.size == 0:
        raise ValueError(
            f"{name} must hold at least one input, shape (n, …), got shape {array.shape}."
        )
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return array
    values = jnp if isinstance(array, jax.Array) else np
    features = tuple(range(1, array.ndim))
    # A large NumPy array is checked in parts. The maximum would not do: XLA's may leave NaN out.
    parts = [array] if values is jnp else np.array_split(array, 1 + array.nbytes // 2**26)
    finite = np.concatenate([np.asarray(values.isfinite(part).all(features)) for part in parts])
    if not finite.all():
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in input {finite.argmin()} "
            f"({(~finite).sum()} such inputs). Remove or impute them."
        )
    return array


def finite_batches(
    x1: ArrayLike, x2: ArrayLike | None
) -> "tuple[jax.Array | np.ndarray, jax.Array | np.ndarray | None]":
    """Return both batches, having checked each and that their inputs have the same shape."""
    first = finite_batch(x1, "x1")
    if x2 is None:
        return first, None
    second = finite_batch(x2, "x2")
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(
            "x1 and x2 must hold inputs of the same shape, "
            f"got shapes {first.shape} and {second.shape}."
        )
    return first, second


def kernel(value: Any, *batches: Any) -> np.dtype:
    """Return the dtype of a kernel's values, having checked that it returns one matrix.

    It is traced for the first inputs of two batches, of shapes (n1, …) and (n2, …).

    Raises:
      TypeError: if it is not a function that JAX can trace, or does not return real floats.
      ValueError: if the shape of its result is wrong.
    """
    import jax
    import jax.numpy as jnp

    if not callable(value):
        raise TypeError(f"kernel must be a function of two batches, got {type(value).__name__}.")
    # Small batches of different sizes: a kernel need not take all of the data at once.
    shapes = [
        jax.ShapeDtypeStruct(
            (min(len(x), 3 + k), *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype)
        )
        for k, x in enumerate(batches)
    ]
    try:
        out = jax.eval_shape(lambda x1, x2: value(x1, x2), *shapes)
    except jax.errors.JAXTypeError as error:
        raise TypeError(
            "kernel must be a JAX function of two batches, got one that needs the values of its "
            f"inputs ({type(error).__name__}). Write it with jax.numpy."
        ) from error
    if not isinstance(out, jax.ShapeDtypeStruct):
        raise TypeError(
            f"kernel must return one matrix, got {type(out).__name__}. Pass "
            "functools.partial(kernel_fn, get='ntk') for a kernel_fn of neural-tangents."
        )
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


def native(array: np.ndarray) -> np.ndarray:
    """Return the array in the byte order of this machine, the only one that JAX knows."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)
