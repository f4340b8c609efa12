"""Checks of arguments that several functions of this package share."""

import math
import operator
from typing import Any, SupportsIndex, cast

import numpy as np
from numpy.typing import ArrayLike


def integer(value: Any, name: str, least: int, remedy: str) -> int:
    """Returns `value` as an int that is at least `least`.

    Raises:
      TypeError: if it is not an integer.
      ValueError: if it is too small.

    Example:
      >>> integer(3, "dim", 2, "Pass the dimension d.")
      3
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(cast(SupportsIndex, value))
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}. {remedy}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}. {remedy}")
    return number


def number(
    value: Any, name: str, *, positive: bool = False, infinite: bool = False, remedy: str = ""
) -> float:
    """Returns `value` as a float that is not negative.

    Args:
      value: what the user passed.
      name: of the argument.
      positive: whether zero is refused too.
      infinite: whether infinity is allowed.
      remedy: what to do, a sentence.

    Raises:
      TypeError: if it is not a real number.
      ValueError: if it is NaN, negative, or infinite or zero where that is not allowed.

    Example:
      >>> number(1, "noise")
      1.0
    """
    array = np.asarray(value)
    if array.ndim != 0 or array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be a real number, got {value!r}. {remedy}".rstrip())
    result = float(array)
    too_small = not (result > 0 if positive else result >= 0)
    if too_small or (result == math.inf and not infinite):
        kind = "positive" if positive else "≥ 0"
        kind += "" if infinite else " and finite"
        raise ValueError(f"{name} must be {kind}, got {result}. {remedy}".rstrip())
    return result


def real_array(values: ArrayLike, name: str, remedy: str = "") -> np.ndarray:
    """Returns `values` in float64, refused if they are not finite real numbers.

    Raises:
      TypeError: if they are not real numbers.
      ValueError: if one is NaN or infinite.

    Example:
      >>> real_array([1, 2], "depths")
      array([1., 2.])
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise TypeError(f"{name} must be an array of real numbers: {error}") from None
    if array.dtype.kind not in "iuf":
        message = f"{name} must hold real numbers, got dtype {array.dtype}. {remedy}"
        raise TypeError(message.rstrip())
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        bad = int(np.sum(~np.isfinite(array)))
        message = f"{name} must be finite, got {bad} values that are NaN or infinite. {remedy}"
        raise ValueError(message.rstrip())
    return array
