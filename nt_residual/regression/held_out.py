"""When to stop gradient flow, from data that were held out.

`criteria` has what needs no held-out data, `theory.stopping_time` what needs no data at all.
"""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks, gram
from nt_residual.regression.gradient_flow import GradientFlow
from nt_residual.regression.inputs import (
    check_centering,
    check_targets,
    exponent,
    numbers,
    real_array,
    scaled,
)

# Lanczos' method needs about √(15 t λ_max/n) products, at most, to converge to 1e-4 at the time t
# (Hochbruck & Lubich 1997). This is a few hundred at the end of the grid, where eigendirections
# have been learned whose eigenvalues are a thousand times smaller than the largest.
_LONGEST_LANCZOS = 1e4


class Stopping(NamedTuple):
    """A stopping time and how it was found.

    Attributes:
      time: the time chosen.
      times: the times tried, shape (T,), the chosen one among them.
      errors: what was least, or small enough, at the time chosen, shape (T,): a mean squared
        error, or an estimate of one.
    """

    time: float
    times: np.ndarray
    errors: np.ndarray

    @property
    def error(self) -> float:
        """That of `errors` at the time chosen."""
        return float(self.errors[np.searchsorted(self.times, self.time)])

    def __repr__(self) -> str:
        return (
            f"Stopping(time={self.time:.6g}, error={self.error:.3g}, one of "
            f"{len(self.times)} times)"
        )


def time_grid(flow: GradientFlow, count: int = 64) -> np.ndarray:
    """Return times that cover all that happens in a gradient flow.

    The eigendirection of eigenvalue λ is learned at t ~ n/λ, so the grid runs
    geometrically from n/(100 λ_max) to 10 n/λ_min, and ends with `math.inf`.

    With Lanczos' method late times cost ever more products with K, and infinity may never
    converge. There the grid ends at 10^4 n/λ_max (with a ridge δ at 10 n/δ, if that is earlier),
    without infinity. Where the error still falls at its end, pass later times.

    Args:
      flow: a fitted flow.
      count: the number of times, at least 3.

    Returns:
      Increasing times, shape (count,), float64.

    Raises:
      TypeError: if `count` is not an integer.
      ValueError: if it is less than 3.

    Example:
      >>> import numpy as np
      >>> flow = GradientFlow.fit(np.eye(4), np.ones(4))
      >>> time_grid(flow, count=4).round(2)
      array([ 0.04,  1.26, 40.  ,   inf])
    """
    count = _checks.integer(count, "count", 3, "Pass how many times are to be tried.")
    # In units of λ_max, up to a power of two: its scale, which times have too, is immaterial.
    unit = exponent(np.array(flow.spectral_range()))
    smallest, largest = scaled(flow.spectral_range(), -unit)
    first = flow.n_train / (100 * largest)
    if flow.solver == "lanczos":
        last = _LONGEST_LANCZOS * flow.n_train / largest
        ridge = float(scaled(flow.ridge, -unit))
        if ridge > 0:
            last = min(last, 10 * flow.n_train / ridge)
        return scaled(np.geomspace(first, last, count), -unit)
    last = 10 * flow.n_train / smallest
    return np.append(scaled(np.geomspace(first, last, count - 1), -unit), math.inf)


def times_or_grid(flow: GradientFlow, times: ArrayLike | None) -> np.ndarray:
    """The times that a user asked for, shape (T,), or the grid of the flow."""
    return time_grid(flow) if times is None else np.atleast_1d(numbers(times, "times"))


def least(times: np.ndarray, errors: np.ndarray, unit: int) -> Stopping:
    """Return the first of the times with the least error, from squares in units of 2^(2·unit)."""
    return Stopping(float(times[np.argmin(errors)]), times, scaled(errors, 2 * unit))


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
    targets = real_array(y_val, "y_val")
    if targets.size == 0:
        raise ValueError(f"y_val must hold at least one target, got shape {targets.shape}.")
    times = times_or_grid(flow, times)
    predictions = flow.predict(k_val_train, times)
    if targets.shape != predictions.shape[1:]:
        raise ValueError(
            f"y_val must have the shape of the predictions, {predictions.shape[1:]}, got shape "
            f"{targets.shape}. Pass one target per row of k_val_train, encoded as y was."
        )
    unit = exponent(targets) if targets.any() else exponent(predictions)
    return least(times, mean_squares(predictions, targets, unit), unit)


def mean_squares(predictions: np.ndarray, targets: np.ndarray, unit: int) -> np.ndarray:
    """Return the mean squared error at each time, of predictions of shape (T, n, …).

    It is in units of 2^(2·unit), in which float64 holds the squares.
    """
    squared = np.square(scaled(predictions, -unit) - scaled(targets, -unit))
    return squared.reshape(len(squared), -1).mean(axis=1)


def kfold(
    k_train: ArrayLike,
    y: ArrayLike,
    n_splits: int = 5,
    *,
    times: ArrayLike | None = None,
    seed: int = 0,
    solver: Literal["auto", "eigh", "lanczos"] = "auto",
    ridge: float = 0.0,
    center_targets: bool | None = None,
) -> Stopping:
    """Chooses the time with the least squared error in cross-validation.

    The inputs are divided at random into `n_splits` parts. Each part is predicted by a flow that
    is trained on all others, with the blocks of one kernel matrix. A time means the same for any
    number of inputs, that is to say, how far the eigenfunctions of a given eigenvalue of K/n
    have been learned; so the time found serves a flow on all n inputs.

    Args:
      k_train: kernel of the training inputs, shape (n, n).
      y: targets, shape (n,) or (n, n_outputs).
      n_splits: the number of parts, from 2 to n.
      times: the times to try, shape (T,); `None` for `time_grid` of the first flow.
      seed: of the division.
      solver: as in `GradientFlow.fit`.
      ridge: likewise.
      center_targets: likewise, for the targets of each flow.

    Returns:
      The first listed of the best times, with the error at every time, averaged over all inputs.

    Raises:
      TypeError: if an argument does not hold real numbers, or `n_splits` is not an integer.
      ValueError: as `GradientFlow.fit` and `predict`, or if `n_splits` is out of range.

    Example:
      >>> import numpy as np
      >>> x = np.linspace(-1, 1, 20)
      >>> stopping = kfold(1 + np.outer(x, x), 3 * x, times=[0.0, 1.0, math.inf])
      >>> stopping.time
      inf
    """
    if isinstance(k_train, gram.MatrixFree):
        raise TypeError(
            "k_train must be an array, got a gram.MatrixFree, which has no blocks. Pass "
            "gram.compute(kernel, x_train), or use holdout."
        )
    matrix = np.asarray(k_train)
    n = len(matrix) if matrix.ndim == 2 else 0
    if matrix.shape != (n, n) or n < 2:
        raise ValueError(
            f"k_train must have shape (n, n), n ≥ 2, got shape {matrix.shape}. Pass "
            "kernel(x_train)."
        )
    targets = check_targets(y, n)
    advice = f"Pass one from 2 to n = {n}."
    n_splits = _checks.integer(n_splits, "n_splits", 2, advice)
    if n_splits > n:
        raise ValueError(f"n_splits must be at most n = {n}, got {n_splits}. {advice}")
    order = np.random.default_rng(_checks.integer(seed, "seed", 0)).permutation(n)
    options: Any = {"solver": solver, "ridge": ridge}
    options["center_targets"] = check_centering(targets, center_targets, stacklevel=3)
    unit = exponent(targets)
    targets = scaled(targets, -unit)
    totals: np.ndarray | float = 0.0
    for part in np.array_split(order, n_splits):
        others = np.setdiff1d(np.arange(n), part)
        block = matrix[np.ix_(others, others)]
        flow = GradientFlow.fit(block, targets[others], **options)
        times = times_or_grid(flow, times)
        found = holdout(flow, matrix[np.ix_(part, others)], targets[part], times)
        totals = totals + len(part) * found.errors
    return least(np.asarray(times), np.asarray(totals) / n, unit)
