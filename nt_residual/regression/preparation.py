"""The preparation of inputs for networks without biases: centered, with a constant feature."""

import math

import numpy as np


def mean_and_scale(x: np.ndarray, center: bool) -> tuple[np.ndarray, float]:
    """Return the mean of rows, or zeros, and the root mean square length of their differences."""
    mean = np.zeros(x.shape[1])
    if center:
        # Of differences, so that the mean of equal rows is that row at any n.
        first = x[0].astype(np.float64)
        mean = first + (x - first).mean(axis=0)
    scale = math.sqrt(np.mean(np.sum((x - mean) ** 2, axis=1)))
    return mean, scale if scale > 0 else 1.0


def apply(
    x: np.ndarray, *, mean: np.ndarray, scale: float, bias: float, normalize: bool, dtype: np.dtype
) -> np.ndarray:
    """Return prepared inputs, shape (n, d + 1), or (n, d) with `bias=0`.

    `normalize` divides rows, with the bias, by their lengths. A row that is zero up to rounding,
    or leaves the range of the dtype, is refused.
    """
    rows = x - mean
    if bias > 0:
        rows = np.column_stack([rows / scale, np.full(len(rows), bias)])
    else:
        # The network gives 0 there whatever its parameters; its direction would be rounding.
        # Sums of n numbers round to √n ε or less; √n is not known here, and 100 is plenty.
        size = np.maximum(np.max(np.abs(x), axis=1), np.max(np.abs(mean)))
        zero = np.max(np.abs(rows), axis=1) <= 100 * np.finfo(np.float64).eps * size
        if zero.any():
            raise ValueError(
                f"X must have rows that differ from {'their mean' if mean.any() else 'zero'} if "
                f"bias=0, got {zero.sum()} that do not, the first at index {np.argmax(zero)}. Pass "
                "bias=1.0, which adds a constant feature, or remove these rows."
            )
        rows = rows / scale
    lengths = np.linalg.norm(rows, axis=1)
    least, most = (math.sqrt(limit) for limit in (np.finfo(dtype).tiny, np.finfo(dtype).max))
    if normalize:
        rows /= lengths[:, None]
    elif lengths.max() > most or lengths.min() < least:
        raise ValueError(
            f"X must have rows whose squared lengths {dtype} can hold, got lengths from "
            f"{lengths.min():.3g} to {lengths.max():.3g}, in units of the root mean square "
            "length in training. Pass normalize_inputs=True."
        )
    return rows.astype(dtype)
