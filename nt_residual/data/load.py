"""Data sets by name."""

from nt_residual.data import digits
from nt_residual.data.dataset import Dataset

_LOADERS = {"digits": digits.load}


def load(name: str, n_train: int | None = None, *, seed: int = 0) -> Dataset:
    """Loads a data set, split into training and test sets.

    Args:
      name: 'digits', the 8×8 handwritten digits that come with scikit-learn.
      n_train: the size of the training set, stratified by class; `None` for all.
      seed: of the split; the same seed gives the same split.

    Returns:
      The data set as it is, unscaled but for floats in [0, 1].

    Raises:
      ValueError: if the name is unknown or `n_train` out of range.
      ImportError: if scikit-learn is missing.

    Example:
      >>> digits = load("digits", n_train=1000)
      >>> digits.x_train.shape, digits.y_train.shape, digits.x_test.shape
      ((1000, 8, 8), (1000,), (360, 8, 8))
    """
    if name not in _LOADERS:
        raise ValueError(f"name must be one of {sorted(_LOADERS)}, got {name!r}.")
    return _LOADERS[name](n_train, seed)
