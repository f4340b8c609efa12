"""Rules that choose the stopping time of gradient flow by an error.

`theory.stopping_time` is a rule that uses no data.
"""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks, gram
from nt_residual.gram.sharded import no_mesh
from nt_residual.regression.arguments import check_centering, check_targets, check_times
from nt_residual.regression.gradient_flow import GradientFlow

# Lanczos' method needs about √(15 t λ_max/n) products, at most, to converge to 1e-4 at the time t
# (Hochbruck & Lubich 1997): a few hundred at the end of the grid.
_LONGEST_LANCZOS = 1e4
# Of the n degrees of freedom. Where fewer remain, their number is rounding.
_FEWEST_LEFT = 1e-8


class Stopping(NamedTuple):
    """A stopping time and the errors it was chosen by.

    Attributes:
      time: the time chosen.
      times: the times tried, shape (T,).
      errors: the mean squared error at each of them, or an estimate of it, shape (T,).
    """

    time: float
    times: np.ndarray
    errors: np.ndarray

    @property
    def error(self) -> float:
        """The error at the time chosen."""
        return float(self.errors[np.searchsorted(self.times, self.time)])

    def __repr__(self) -> str:
        return (
            f"Stopping(time={self.time:.6g}, error={self.error:.3g}, one of "
            f"{len(self.times)} times)"
        )


def time_grid(flow: GradientFlow, count: int = 64) -> np.ndarray:
    """Return a geometric grid of times, from nothing learned to everything learned.

    The eigendirection of eigenvalue λ is learned at t ~ n/λ, so the grid runs from n/(100 λ_max)
    to 10 n/λ_min, and ends with `math.inf`. The solver 'auto' takes 'eigh' for that, up to
    n = 2000. With 'lanczos', where late times need more products, the grid ends at 10^4 n/λ_max
    (with a ridge δ at 10 n/δ, if that is earlier). If the error still falls there, pass later
    times. `count` is the number of times, at least 3.

    Returns:
      Increasing times, shape (count,), float64.

    Raises:
      TypeError, ValueError: if `count` is not an integer that is at least 3.

    Example:
      >>> flow = GradientFlow.fit(np.eye(4), np.ones(4))
      >>> time_grid(flow, count=4).round(2)
      array([ 0.04,  1.26, 40.  ,   inf])
    """
    count = _checks.integer(count, "count", 3, "Pass the number of times to try.")
    flow._decompose()
    smallest, largest = flow.spectral_range()
    first = flow.n_train / (100 * largest)
    if flow.solver != "lanczos":
        return np.append(np.geomspace(first, 10 * flow.n_train / smallest, count - 1), math.inf)
    last = _LONGEST_LANCZOS * flow.n_train / largest
    if flow.ridge > 0:
        last = min(last, 10 * flow.n_train / flow.ridge)
    return np.geomspace(first, last, count)


def _times_or_grid(flow: GradientFlow, times: ArrayLike | None) -> np.ndarray:
    """Return the times that a user asked for, shape (T,), or the grid of the flow."""
    if times is None:
        return time_grid(flow)
    return np.atleast_1d(_checks.real_array(times, "times", infinite=True))


def _least(times: np.ndarray, errors: np.ndarray) -> Stopping:
    """Return the first of the times with the least error."""
    return Stopping(float(times[np.argmin(errors)]), times, errors)


def _mean_squares(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the mean squared error at each time, of predictions of shape (T, n, …)."""
    return np.square(predictions - targets).reshape(len(predictions), -1).mean(axis=1)


@no_mesh()
def holdout(
    flow: GradientFlow, k_val_train: ArrayLike, y_val: ArrayLike, times: ArrayLike | None = None
) -> Stopping:
    """Choose the time with the least squared error on held-out data.

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
      >>> flow = GradientFlow.fit(np.eye(2), np.array([1.0, -1.0]))
      >>> holdout(flow, np.eye(2), np.array([0.5, -0.5]), times=[0.0, 1.4, np.inf]).time
      1.4
    """
    targets = _checks.real_array(y_val, "y_val")
    if targets.size == 0:
        raise ValueError(f"y_val must hold at least one target, got shape {targets.shape}.")
    times = _times_or_grid(flow, times)
    predictions = flow._predict(k_val_train, check_times(times), "k_val_train")
    if targets.shape != predictions.shape[1:]:
        raise ValueError(
            f"y_val must have the shape of the predictions, {predictions.shape[1:]}, got shape "
            f"{targets.shape}. Pass one target per row of k_val_train, encoded as y was."
        )
    return _least(times, _mean_squares(predictions.astype(np.float64), targets))


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
    """Choose the time with the least squared error in cross-validation.

    The inputs are divided at random into `n_splits` parts. Each part is predicted by a flow that
    is trained on all others. The time found also serves a flow on all n inputs: at a time t the
    eigenfunctions of an eigenvalue of K/n are learned equally far for any n.

    Args:
      k_train: kernel of the training inputs, an array of shape (n, n).
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
      >>> x = np.linspace(-1, 1, 20)
      >>> stopping = kfold(1 + np.outer(x, x), 3 * x, times=[0.0, 1.0, np.inf])
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
    total: np.ndarray | float = 0.0
    for part in np.array_split(order, n_splits):
        others = np.setdiff1d(np.arange(n), part)
        flow = GradientFlow.fit(matrix[np.ix_(others, others)], targets[others], **options)
        times = _times_or_grid(flow, times)
        found = holdout(flow, matrix[np.ix_(part, others)], targets[part], times)
        total = total + len(part) * found.errors
    return _least(np.asarray(times), np.asarray(total) / n)


def generalized_cross_validation(flow: GradientFlow, times: ArrayLike | None = None) -> Stopping:
    r"""Choose the time by generalized cross-validation.

        GCV(t) = (1/n) Σ_i |f_t(x_i) − y_i|² / (1 − tr S_t/n)²,   f_t(X) = S_t y

    estimates the mean squared error on new data with independent noise, from the training error
    and the degrees of freedom tr S_t. It is infinite where no degree of freedom is left, as for an
    interpolant.

    Args:
      flow: a fitted flow, of the solver 'eigh' or 'landmarks', or 'auto' with up to 2000 inputs.
      times: the times to try, shape (T,); `None` for `time_grid(flow)`.

    Returns:
      The first listed of the best times, with GCV at each.

    Raises:
      TypeError, ValueError: as `GradientFlow.degrees_of_freedom`.
      ValueError: if GCV is infinite at all times.

    Example:
      >>> flow = GradientFlow.fit(np.diag([4.0, 0.4, 0.4, 0.4]), np.array([3.0, 0.1, -0.1, 0.1]))
      >>> bool(1 < generalized_cross_validation(flow).time < 10)
      True

    Reference: Golub, Heath & Wahba 1979.
    """
    times = _times_or_grid(flow, times)
    left = 1 - flow.degrees_of_freedom(times) / flow.n_train
    resolved = left > _FEWEST_LEFT
    if not resolved.any():
        raise ValueError(
            f"times must hold one at which the flow does not yet interpolate, got times from "
            f"{times[0]:.3g} to {times[-1]:.3g}. Pass earlier times, or None."
        )
    errors = np.full(len(times), math.inf)
    errors[resolved] = flow.training_error(times)[resolved] / left[resolved] ** 2
    return _least(times, errors)


def leave_one_out(flow: GradientFlow, y: ArrayLike, times: ArrayLike | None = None) -> Stopping:
    """Choose the time with the least leave-one-out error: each point predicted from all others.

    The predictions are those of `GradientFlow.leave_one_out`.

    Args:
      flow: a fitted flow, of the solver 'eigh' or 'landmarks', or 'auto' with up to 2000 inputs.
      y: the targets it was fitted to, shape (n,) or (n, n_outputs).
      times: the times to try, shape (T,); `None` for `time_grid(flow)`.

    Returns:
      The first listed of the best times, with the mean squared error at each.

    Raises:
      TypeError, ValueError: as `GradientFlow.leave_one_out`.
      ValueError: if `y` does not have the shape of the predictions.

    Example:
      >>> x = np.linspace(-1, 1, 20)
      >>> flow = GradientFlow.fit(1 + np.outer(x, x), 3 * x)
      >>> leave_one_out(flow, 3 * x, times=[0.0, 1.0, 1000.0]).time
      1000.0
    """
    times = _times_or_grid(flow, times)
    predictions = flow.leave_one_out(times)
    targets = _checks.real_array(y, "y")
    if targets.shape != predictions.shape[1:]:
        raise ValueError(
            f"y must have the shape of the predictions, {predictions.shape[1:]}, got shape "
            f"{targets.shape}. Pass the targets that the flow was fitted to."
        )
    return _least(times, _mean_squares(predictions, targets))


def discrepancy(flow: GradientFlow, noise: float, times: ArrayLike | None = None) -> Stopping:
    r"""Choose the first time at which the training residual is no larger than the noise.

        √((1/(n·n_outputs)) Σ_i |f_t(x_i) − y_i|²) ≤ noise

    Args:
      flow: a fitted flow.
      noise: the standard deviation of the noise of each output, in units of y, positive.
      times: the times to try, shape (T,), not decreasing; `None` for `time_grid(flow)`.

    Raises:
      TypeError: if an argument is not real.
      ValueError: if `noise` is not positive and finite, or the residual is always larger.

    Example:
      >>> flow = GradientFlow.fit(np.eye(2), np.array([1.0, -1.0]))
      >>> discrepancy(flow, noise=0.5, times=[0.0, 1.0, 2.0]).time  # It is √(exp(-t)).
      2.0

    Reference: Morozov 1966; Engl, Hanke & Neubauer 1996, section 4.3.
    """
    noise = _checks.number(noise, "noise", positive=True)
    times = _times_or_grid(flow, times)
    errors = flow.training_error(times)
    reached = np.flatnonzero(errors <= noise**2)
    if not reached.size:
        raise ValueError(
            f"the rms training residual is still {math.sqrt(errors[-1]):.4g} at t = "
            f"{times[-1]:.4g}, above the noise {noise:.4g}. Pass later times, "
            "less ridge if there is any, or the noise that these data have."
        )
    return Stopping(float(times[reached[0]]), times, errors)
