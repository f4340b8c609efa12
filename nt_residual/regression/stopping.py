"""When to stop gradient flow."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nt_residual.regression.gradient_flow import GradientFlow, real_array


class Stopping(NamedTuple):
    """A stopping time and how it was found.

    Attributes:
      time: the time chosen.
      times: the times tried, shape (T,).
      errors: mean squared error on the held-out data at each of them, shape (T,).
    """

    time: float
    times: np.ndarray
    errors: np.ndarray


def time_grid(flow: GradientFlow, count: int = 64) -> np.ndarray:
    """Times that cover all that happens in a gradient flow, and infinity.

    The eigendirection of eigenvalue λ is learned at t ~ n/λ, so the grid runs
    geometrically from n/(100 λ_max) to 10 n/λ_min, and ends with `math.inf`.

    Args:
      flow: a fitted flow.
      count: the number of times, at least 3.

    Returns:
      Increasing times, shape (count,), float64.

    Raises:
      ValueError: if `count` is less than 3.

    Example:
      >>> import numpy as np
      >>> flow = GradientFlow.fit(np.eye(4), np.ones(4))
      >>> time_grid(flow, count=4).round(2)
      array([ 0.04,  1.26, 40.  ,   inf])
    """
    if count < 3:
        raise ValueError(f"count must be at least 3, got {count}.")
    first = flow.n_train / (100 * flow.eigenvalues[0])
    last = 10 * flow.n_train / flow.eigenvalues[-1]
    return np.append(np.geomspace(first, last, count - 1), math.inf)


def holdout(
    flow: GradientFlow, k_val_train: ArrayLike, y_val: ArrayLike, times: ArrayLike | None = None
) -> Stopping:
    """Chooses the time with the least squared error on held-out data.

    Args:
      flow: a fitted flow.
      k_val_train: kernel between held-out and training inputs, shape (n_val, n).
      y_val: targets of the held-out inputs, shape (n_val,) or (n_val, n_outputs).
      times: the times to try, shape (T,); `None` for `time_grid(flow)`.

    Returns:
      The first listed of the best times, with the error at every time.

    Raises:
      TypeError: if an argument does not hold real numbers.
      ValueError: as `GradientFlow.predict`, if `y_val` is empty or holds NaN, or if its
        shape is not that of the predictions.

    Example:
      >>> import numpy as np
      >>> flow = GradientFlow.fit(np.eye(2), np.array([1.0, -1.0]))
      >>> holdout(flow, np.eye(2), np.array([0.5, -0.5]), times=[0.0, 1.4, math.inf]).time
      1.4
    """
    times = time_grid(flow) if times is None else np.atleast_1d(np.asarray(times, np.float64))
    predictions = flow.predict(k_val_train, times)
    targets = real_array(y_val, "y_val")
    if targets.size == 0:
        raise ValueError(f"y_val must hold at least one target, got shape {targets.shape}.")
    if targets.shape != predictions.shape[1:]:
        raise ValueError(
            f"y_val must have the shape of the predictions, {predictions.shape[1:]}, got shape "
            f"{targets.shape}. Pass one target per row of k_val_train, encoded as y was."
        )
    squared = np.square(predictions.astype(np.float64) - targets)
    errors = squared.reshape(len(times), -1).mean(axis=1)
    return Stopping(float(times[np.argmin(errors)]), times, errors)
