"""Inputs brought to one scale, by what the training set says."""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks

# Elements of a piece that is turned into float64 at a time: 128 MiB.
_PIECE = 2**24


def unit_norm(x: ArrayLike) -> np.ndarray:
    """Inputs flattened and projected to the unit sphere.

    Args:
      x: shape (n, …), floats, no input all zero.

    Returns:
      Shape (n, d), the dtype of `x`.

    Raises:
      ValueError: if an input is zero or not finite.

    Example:
      >>> unit_norm([[3.0, 4.0]])
      array([[0.6, 0.8]])
    """
    x = np.asarray(x)
    flat = x.reshape(len(x), -1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    bad = ~(np.isfinite(norms) & (norms > 0))[:, 0]
    if bad.any():
        raise ValueError(
            f"x must hold finite inputs that are not zero, got norm {norms[bad][0, 0]} in row "
            f"{int(np.argmax(bad))} ({int(bad.sum())} such rows). Remove these rows."
        )
    return flat / norms


def standardize(
    x_train: ArrayLike, *others: ArrayLike, per: Literal["feature", "channel"] = "feature"
) -> tuple[np.ndarray, ...]:
    """Inputs with mean 0 and variance 1 over the training set.

        (x − mean)/√variance

    What is constant over the training set becomes 0 in all sets: how far it should be scaled
    is not known.

    Args:
      x_train: shape (n_train, …), floats.
      others: sets of the same inputs, test sets say, shape (n, …).
      per: 'feature' for a mean and variance of each number of an input; 'channel' for those of
        each index of the last axis, over all pixels of images (n, height, width, channels).
        Features of images that hardly ever change, pixels at their edge, are blown up by the
        former.

    Returns:
      All sets, a tuple even of one; shapes and dtypes are kept.

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
    mean = rows.mean(axis=0, dtype=np.float64)
    variance = sum(np.square(piece - mean).sum(axis=0) for piece in _pieces(rows)) / len(rows)
    # Rounding of the mean would leave a constant feature a tiny variance.
    varies = rows.min(axis=0) < rows.max(axis=0)
    scale = np.divide(1, np.sqrt(variance), out=np.zeros(width), where=varies)
    return tuple(_apply(lambda piece: (piece - mean) * scale, x, width) for x in sets)


def zca(
    x_train: ArrayLike, *others: ArrayLike, regularization: float = 0.1
) -> tuple[np.ndarray, ...]:
    """Inputs without correlations between their features, as near to the original as can be.

        x ↦ (C + ε tr(C)/d I)^(−1/2) (x − mean),   C = Σ_i (x_i − mean)(x_i − mean)ᵀ/n_train

    so that ε is relative to the mean eigenvalue of the covariance: directions with much less
    variance than ε times that are left small, rather than blown up to 1. It costs an
    eigendecomposition of size min(n_train, d), and a matrix of d × d numbers in float64.

    Args:
      x_train: shape (n_train, …), floats, d numbers an input.
      others: sets of the same inputs, test sets say, shape (n, …).
      regularization: ε > 0.

    Returns:
      All sets, a tuple even of one; shapes and dtypes are kept. Mean and covariance are those
      of the training set.

    Raises:
      TypeError: if a set does not hold floats or ε is not a number.
      ValueError: if ε is not positive and finite, a set holds NaN or infinity, is empty, its
        inputs are of another shape, or all training inputs are the same.

    Example:
      >>> (x,) = zca([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]], regularization=1e-9)
      >>> (x.T @ x / 4).round(6)
      array([[1., 0.],
             [0., 1.]])

    Reference: Lee et al. 2020, Finite versus infinite neural networks, which found it to help
      the kernels of networks on CIFAR-10.
    """
    remedy = "It is relative to the mean variance of the features; 0.1 is a good start."
    regularization = _checks.number(regularization, "regularization", positive=True, remedy=remedy)
    sets = _checked(x_train, others)
    width = sets[0][0].size
    rows = sets[0].reshape(-1, width)
    mean = rows.mean(axis=0, dtype=np.float64)
    matrix = _whitening(rows, mean, regularization)
    return tuple(_apply(lambda piece: (piece - mean) @ matrix, x, width) for x in sets)


def _whitening(rows: np.ndarray, mean: np.ndarray, regularization: float) -> np.ndarray:
    """(C + c I)^(−1/2) with c = ε tr(C)/d, from the smaller of the two matrices of products."""
    n, width = rows.shape
    if n < width:
        centered = rows - mean
        products = centered @ centered.T / n
    else:
        products = sum((piece - mean).T @ (piece - mean) for piece in _pieces(rows)) / n
    ridge = regularization * np.trace(products) / width
    if not ridge > 0:
        raise ValueError(
            f"x_train must hold inputs that differ, got {n} that are all the same. Pass more."
        )
    eigenvalue, vectors = np.linalg.eigh(products)
    root, shrunk = np.sqrt(ridge), np.sqrt(np.maximum(eigenvalue, 0) + ridge)
    if n >= width:
        return (vectors / shrunk) @ vectors.T
    # What is beyond the span of the inputs is divided by √c; the rest by 1/√c − 1/√(λ + c)
    # less, which is λ/(√c √(λ + c) (√c + √(λ + c))). The λ is that of centeredᵀ centered/n.
    spanned = vectors.T @ centered
    less = 1 / (root * shrunk * (root + shrunk) * n)
    return np.eye(width) / root - (spanned.T * less) @ spanned


def _checked(x_train: ArrayLike, others: tuple[ArrayLike, ...]) -> list[np.ndarray]:
    sets = {"x_train": np.asarray(x_train)}
    sets |= {f"others[{i}]": np.asarray(x) for i, x in enumerate(others)}
    for name, x in sets.items():
        if x.dtype.kind != "f":
            raise TypeError(f"{name} must hold floats, got dtype {x.dtype}. Pass x.astype(float).")
        if x.ndim < 2 or x.size == 0:
            raise ValueError(
                f"{name} must have shape (n, …), n ≥ 1, got shape {x.shape}. Pass a batch."
            )
        if x.shape[1:] != sets["x_train"].shape[1:]:
            raise ValueError(
                f"{name} must hold inputs of the shape of those in x_train, "
                f"{sets['x_train'].shape[1:]}, got {x.shape[1:]}."
            )
        if not np.isfinite(x).all():
            raise ValueError(
                f"{name} must be finite, got {int(np.sum(~np.isfinite(x)))} values that are NaN or "
                "infinite. Remove these inputs."
            )
    return list(sets.values())


def _pieces(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Some rows at a time, in float64."""
    step = max(1, _PIECE // rows.shape[1])
    for start in range(0, len(rows), step):
        yield rows[start : start + step].astype(np.float64)


def _apply(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, width: int) -> np.ndarray:
    """A function of rows of some width, in float64, applied to a set of another shape."""
    rows = x.reshape(-1, width)
    out, start = np.empty(rows.shape, x.dtype), 0
    for piece in _pieces(rows):
        out[start : start + len(piece)] = function(piece)
        start += len(piece)
    return out.reshape(x.shape)
