"""Labels as classes or numbers, and how good predictions of them are."""

from typing import Any

import numpy as np

from nt_residual.cli import tables
from nt_residual.cli.options import InputError


def typed(y: np.ndarray) -> np.ndarray:
    """Texts as integers or floats if all of them are; others as they are.

    Only the usual form of an integer is one: '007' and '7' may be two labels.

    Example:
      >>> typed(np.array(["1", "10"])), typed(np.array(["1", "007"]))
      (array([ 1, 10]), array([1., 7.]))
    """
    if y.dtype.kind != "U":
        return y
    try:
        integers = y.astype(np.int64)
        if np.array_equal(integers.astype(str), y):
            return integers
    except (ValueError, OverflowError):
        pass
    try:
        return y.astype(np.float64)
    except ValueError:
        return y


def targets(y: np.ndarray, classify: bool, name: str) -> np.ndarray:
    """What an estimator is fitted to: classes, as integers where they are; or numbers.

    Raises:
      InputError: if numbers are needed and a label is none.
    """
    if not classify:
        return numbers(y, name, "pass --task classify for classes")
    values = typed(y)
    return values if values.dtype.kind in "biu" else y


def numbers(y: np.ndarray, name: str, remedy: str = "labels are as in training") -> np.ndarray:
    """Labels as floats, all finite.

    Raises:
      InputError: if one is not.
    """
    values = typed(y)
    if values.dtype.kind == "U":
        bad = next(text for text in y if not tables.is_finite(text))
    elif np.isfinite(values).all():
        return values.astype(np.float64)
    else:
        bad = y[~np.isfinite(values)][0]
    raise InputError(f"the label {name!r} must hold finite numbers, got {str(bad)!r}: {remedy}")


def told(model: Any, predicted: np.ndarray, y: np.ndarray, name: str) -> str:
    """How good predictions are, in words.

    Raises:
      InputError: if labels are not of the kind that the model was fitted to.
    """
    if not hasattr(model, "classes_"):
        truth = numbers(y, name)
        error = predicted - truth
        spread = np.sum((truth - truth.mean()) ** 2)
        # Of no spread no share can be explained.
        r2 = f"{1 - np.sum(error**2) / spread:.4f}" if spread > 0 else "undefined"
        return f"R² {r2}, RMSE {np.sqrt(np.mean(error**2)):.4g}, on {len(y)} rows"
    if model.classes_.dtype.kind in "biuf":
        truth, predicted = numbers(y, name), predicted.astype(np.float64)
    else:
        truth = y.astype(str)
    return f"accuracy {np.mean(predicted == truth):.1%}, on {len(y)} rows"
