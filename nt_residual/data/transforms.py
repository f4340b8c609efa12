"""Inputs brought to one scale, by the statistics of the training set."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks


def unit_norm(x: ArrayLike) -> np.ndarray:
    """Return inputs flattened and projected to the unit sphere.

    Args:
      x: shape (n, …), floats, no input all zero.

    Returns:
      Shape (n, d), the dtype of `x`.

    Raises:
      TypeError: if `x` does not hold floats.
      ValueError: if an input is zero or not finite.

    Example:
      >>> unit_norm([[3.0, 4.0]])
      array([[0.6, 0.8]])
    """
    flat = np.asarray(_checks.finite_batch(x, "x"))
    flat = flat.reshape(len(flat), -1)
    norms = np.linalg.norm(flat, axis=1)
    bad = ~((norms > 0) & (norms < np.inf))
    if bad.any():
        raise ValueError(
            f"x must hold inputs of positive, finite norm, got norm {norms[bad][0]} in input "
            f"{bad.argmax()} ({bad.sum()} such inputs). Remove them."
        )
    return flat / norms[:, None]


def standardize(
    x_train: ArrayLike, *others: ArrayLike, per: Literal["feature", "channel"] = "feature"
) -> tuple[np.ndarray, ...]:
    """Return inputs with mean 0 and variance 1 over the training set.

        (x − mean)/√variance

    A feature that is constant over the training set becomes 0 in all sets.

    Args:
      x_train: shape (n_train, …), floats.
      others: further sets, of test inputs say, shape (n, …).
      per: 'feature' for a mean and a variance of each number of an input; 'channel' for those of
        each index of the last axis, over all pixels of images (n, height, width, channels). For
        images 'feature' would blow up pixels at the edge, which hardly vary.

    Returns:
      A tuple of all sets, also for one; shapes and dtypes are kept.

    Raises:
      TypeError: if a set does not hold floats.
      ValueError: if one holds NaN or infinity, is empty, its inputs are of another shape, or
        `per` is neither.

    Example:
      >>> x_train, x_test = standardize([[1.0, 7.0], [3.0, 7.0]], [[4.0, 8.0]])
      >>> x_train
      array([[-1.,  0.],
             [ 1.,  0.]])
      >>> x_test
      array([[2., 0.]])
    """
    sets = _checked(x_train, others)
    _checks.choice(per, "per", ("feature", "channel"))
    width = sets[0].shape[-1] if per == "channel" else sets[0][0].size
    rows = sets[0].reshape(-1, width)
    mean, deviation = (f(rows, axis=0, dtype=np.float64) for f in (np.mean, np.std))
    # Rounding of the mean would leave a constant feature a tiny variance.
    varies = rows.min(axis=0) < rows.max(axis=0)
    scale = np.divide(1, deviation, out=np.zeros(width), where=varies)
    return tuple(_rows(x, width, lambda rows: (rows - mean) * scale) for x in sets)


def zca(
    x_train: ArrayLike, *others: ArrayLike, regularization: float = 0.1
) -> tuple[np.ndarray, ...]:
    """Return inputs whose features are uncorrelated, as close as possible to the original ones.

        x ↦ (C + ε tr(C)/d I)^(−1/2) (x − mean),   C = Σ_i (x_i − mean)(x_i − mean)ᵀ/n_train

    ε is relative to the mean eigenvalue of the covariance C. Directions with much less variance
    than that stay small. It takes an eigendecomposition of d × d numbers in float64.

    Args:
      x_train: shape (n_train, …), floats, d numbers an input.
      others: sets of the same inputs, shape (n, …).
      regularization: ε > 0.

    Returns:
      A tuple of all sets, also for one; shapes and dtypes are kept.

    Raises:
      TypeError, ValueError: as `standardize`; if ε is not a positive number, or all training
        inputs are the same.

    Example:
      >>> (x,) = zca([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]], regularization=1e-9)
      >>> (x.T @ x / 4).round(6)
      array([[1., 0.],
             [0., 1.]])

    Reference: Lee et al. 2020, Finite versus infinite neural networks.
    """
    remedy = "It is relative to the mean variance of the features; 0.1 is a good start."
    regularization = _checks.number(regularization, "regularization", positive=True, remedy=remedy)
    sets = _checked(x_train, others)
    width = sets[0][0].size
    rows = sets[0].reshape(-1, width)
    mean = rows.mean(axis=0, dtype=np.float64)
    centered = rows - mean
    eigenvalue, vectors = np.linalg.eigh(centered.T @ centered / len(rows))
    eigenvalue = np.maximum(eigenvalue, 0)
    ridge = regularization * eigenvalue.mean()
    if not ridge > 0:
        raise ValueError(
            f"x_train must hold inputs that differ, got {len(rows)} that are all the same. Pass "
            "more."
        )
    matrix = (vectors / np.sqrt(eigenvalue + ridge)) @ vectors.T
    return tuple(_rows(x, width, lambda rows: (rows - mean) @ matrix) for x in sets)


def _checked(x_train: ArrayLike, others: tuple[ArrayLike, ...]) -> list[np.ndarray]:
    sets = {"x_train": x_train} | {f"others[{i}]": x for i, x in enumerate(others)}
    arrays = [np.asarray(_checks.finite_batch(x, name)) for name, x in sets.items()]
    shape = arrays[0].shape[1:]
    for name, x in zip(sets, arrays, strict=True):
        if x.ndim < 2 or x.shape[1:] != shape:
            raise ValueError(
                f"{name} must have shape {('n', *(shape or ('d',)))}, as x_train, got shape "
                f"{x.shape}. Reshape it."
            )
    return arrays


def _rows(x: np.ndarray, width: int, f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A function of rows of some width, applied to a set; its shape and dtype are kept."""
    return f(x.reshape(-1, width)).reshape(x.shape).astype(x.dtype)
