"""Subsets in which each class has its share."""

import importlib.util

import numpy as np

from nt_residual import _checks


def split(labels: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a subset in which each class has the share that it has in the whole.

    Args:
      labels: shape (whole,), integers.
      n: the size of the subset; it and the rest have a member for each class.
      seed: of the draw.

    Returns:
      The indices of the subset, shape (n,), and those of the rest, both in random order.

    Raises:
      ImportError: if scikit-learn is missing.
    """
    require_scikit_learn("stratified subsets need")
    from sklearn.model_selection import train_test_split

    chosen, rest = train_test_split(
        np.arange(len(labels)), train_size=n, stratify=labels, random_state=seed
    )
    return np.asarray(chosen), np.asarray(rest)


def stratified(labels: np.ndarray, n: int | None, name: str, seed: int) -> np.ndarray | slice:
    """What to index a data set with, to have as many of it as a user asks for.

    Args:
      labels: shape (whole,), integers.
      n: the size of the subset, `None` for the whole.
      name: of the argument `n`, for errors.
      seed: of the draw.

    Returns:
      Indices as `split` gives them, or a slice that takes all in their order.

    Raises:
      TypeError: if `n` is not an integer.
      ValueError: if it is out of range.
      ImportError: if scikit-learn is missing.

    Example:
      >>> labels = np.repeat([0, 1], [30, 60])
      >>> np.bincount(labels[stratified(labels, 9, "n_train", seed=0)])
      array([3, 6])
    """
    if n is None:
        return slice(None)
    whole, classes = len(labels), len(np.unique(labels))
    n = _checks.integer(n, name, 0, "Pass the number of images wanted, or None for all.")
    if n == whole:
        return slice(None)
    if not classes <= n <= whole - classes:
        raise ValueError(
            f"{name} must be {whole}, or between {classes} and {whole - classes}, so that each "
            f"class is split, got {n}."
        )
    return split(labels, n, seed)[0]


def require_scikit_learn(purpose: str) -> None:
    """Raises an ImportError that says what scikit-learn is for, if it is missing."""
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError(
            f"{purpose} scikit-learn, which is not installed: pip install scikit-learn (the extra "
            "'data')"
        )
