"""The checks of targets and times."""

import warnings

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks

# So few targets say little about their mean.
_FEW = 10


def check_times(t: ArrayLike) -> np.ndarray:
    """Return times in float64, having checked that they are ≥ 0 and do not decrease."""
    times = _checks.real_array(t, "t", infinite=True)
    if times.ndim > 1 or times.size == 0:
        raise ValueError(f"t must be a scalar or have shape (T,), T ≥ 1, got shape {times.shape}.")
    if not np.all(times >= 0):
        raise ValueError(f"t must be ≥ 0, got {t!r}. math.inf is the interpolant.")
    falls = np.flatnonzero(times[1:] < times[:-1]) if times.ndim else np.array([])
    if falls.size:
        i = int(falls[0])
        raise ValueError(
            f"t must not decrease, got t[{i}] = {times[i]:g} and t[{i + 1}] = {times[i + 1]:g}. "
            "Pass np.sort(t): one time after the other is one training run."
        )
    return times


def check_targets(y: ArrayLike, n: int) -> np.ndarray:
    """Return targets in float64, having checked that they are finite, (n,) or (n, n_outputs)."""
    targets = _checks.real_array(y, "y", "Check the data it was computed from.")
    if targets.ndim not in (1, 2) or targets.shape[0] != n or targets.size == 0:
        raise ValueError(
            f"y must have shape (n,) or (n, n_outputs) with n = {n}, the size of k_train, "
            f"got shape {targets.shape}. Pass one target per training input."
        )
    return targets


def check_centering(y: np.ndarray, center_targets: bool | None, stacklevel: int) -> bool:
    """Return whether to center targets of shape (n, …), and warn where `None` is a bad choice."""
    if center_targets is not None:
        return _checks.boolean(center_targets, "center_targets")
    mean, spread = np.linalg.norm(y.mean(axis=0)), np.linalg.norm(y.std(axis=0))
    # Targets with two values are classes.
    two = np.all((y == y.min()) | (y == y.max()))
    if len(y) >= _FEW and mean > spread and not two:
        warnings.warn(
            f"the mean of y is {mean / spread:.3g} times its standard deviation, and gradient flow "
            "starts from f_0 = 0: most of the time goes to the mean. Pass center_targets=True to "
            "start from the mean, or False if 0 is meant.",
            UserWarning,
            stacklevel=stacklevel,
        )
    return False
