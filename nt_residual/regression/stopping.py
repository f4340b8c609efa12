"""When to stop gradient flow, from the training data alone.

`validation` has the rules that use held-out data, `theory.stopping_time` the rule that uses none.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike

from nt_residual import _checks
from nt_residual.regression.gradient_flow import GradientFlow

# Lanczos' method needs about √(15 t λ_max/n) products, at most, to converge to 1e-4 at the time t
# (Hochbruck & Lubich 1997). This is a few hundred at the end of the grid, where eigendirections
# have been learned whose eigenvalues are a thousand times smaller than the largest.
_LONGEST_LANCZOS = 1e4
# Of the n degrees of freedom. Where fewer remain, their number is rounding.
_FEWEST_LEFT = 1e-8


class Stopping(NamedTuple):
    """A stopping time and the errors it was chosen by.

    Attributes:
      time: the time chosen.
      times: the times tried, shape (T,), the chosen one among them.
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
    to 10 n/λ_min, and ends with `math.inf`. With 'lanczos', where late times need more products, it
    ends at 10^4 n/λ_max (with a ridge δ at 10 n/δ, if that is earlier). If the error still falls
    there, pass later times.

    Args:
      flow: a fitted flow.
      count: the number of times, at least 3.

    Returns:
      Increasing times, shape (count,), float64.

    Raises:
      TypeError: if `count` is not an integer.
      ValueError: if it is less than 3.

    Example:
      >>> flow = GradientFlow.fit(np.eye(4), np.ones(4))
      >>> time_grid(flow, count=4).round(2)
      array([ 0.04,  1.26, 40.  ,   inf])
    """
    count = _checks.integer(count, "count", 3, "Pass the number of times to try.")
    smallest, largest = flow.spectral_range()
    first = flow.n_train / (100 * largest)
    if flow.solver == "eigh":
        return np.append(np.geomspace(first, 10 * flow.n_train / smallest, count - 1), math.inf)
    last = _LONGEST_LANCZOS * flow.n_train / largest
    if flow.ridge > 0:
        last = min(last, 10 * flow.n_train / flow.ridge)
    return np.geomspace(first, last, count)


def times_or_grid(flow: GradientFlow, times: ArrayLike | None) -> np.ndarray:
    """Return the times that a user asked for, shape (T,), or the grid of the flow."""
    if times is None:
        return time_grid(flow)
    return np.atleast_1d(_checks.real_array(times, "times", infinite=True))


def least(times: np.ndarray, errors: np.ndarray) -> Stopping:
    """Return the first of the times with the least error."""
    return Stopping(float(times[np.argmin(errors)]), times, errors)


def mean_squares(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the mean squared error at each time, of predictions of shape (T, n, …)."""
    return np.square(predictions - targets).reshape(len(predictions), -1).mean(axis=1)


def generalized_cross_validation(flow: GradientFlow, times: ArrayLike | None = None) -> Stopping:
    r"""Choose the time by generalized cross-validation.

        GCV(t) = (1/n) Σ_i |f_t(x_i) − y_i|² / (1 − tr S_t/n)²,   f_t(X) = S_t y

    estimates the mean squared error on new data with noise, from the training error and the
    degrees of freedom tr S_t. It costs nothing beyond the flow, but assumes independent noise:
    repeated inputs with the same error mislead it. GCV is infinite where no degree of freedom is
    left, as for an interpolant.

    Args:
      flow: a fitted flow, of the solver 'eigh'.
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
    times = times_or_grid(flow, times)
    left = 1 - flow.degrees_of_freedom(times) / flow.n_train
    resolved = left > _FEWEST_LEFT
    if not resolved.any():
        raise ValueError(
            f"times must hold one at which the flow does not interpolate yet, got times from "
            f"{times[0]:.3g} to {times[-1]:.3g}. Pass earlier times, or None."
        )
    errors = np.full(len(times), math.inf)
    errors[resolved] = flow.training_error(times)[resolved] / left[resolved] ** 2
    return least(times, errors)


def leave_one_out(flow: GradientFlow, y: ArrayLike, times: ArrayLike | None = None) -> Stopping:
    """Choose the time with the least squared error of each point predicted from all others.

    The predictions are those of `GradientFlow.leave_one_out`.

    Args:
      flow: a fitted flow, of the solver 'eigh'.
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
    times = times_or_grid(flow, times)
    predictions = flow.leave_one_out(times)
    targets = _checks.real_array(y, "y")
    if targets.shape != predictions.shape[1:]:
        raise ValueError(
            f"y must have the shape of the predictions, {predictions.shape[1:]}, got shape "
            f"{targets.shape}. Pass the targets that the flow was fitted to."
        )
    return least(times, mean_squares(predictions, targets))


def discrepancy(flow: GradientFlow, noise: float, times: ArrayLike | None = None) -> Stopping:
    r"""Return the first time at which the training residual is no larger than the noise.

        √((1/(n·n_outputs)) Σ_i |f_t(x_i) − y_i|²) ≤ noise

    After it the flow would fit noise. The time may lie between those of the grid.

    Args:
      flow: a fitted flow.
      noise: the standard deviation of the noise of each output, in units of y, positive. If it is
        not quite known, a little more is on the safe side.
      times: the times to look at first, shape (T,); `None` for `time_grid(flow)`.

    Returns:
      The time, 0 if f_0 is as close to the targets as the noise, with the mean squared residual
      there and at each of the times.

    Raises:
      TypeError: if an argument is not real.
      ValueError: if `noise` is not positive and finite, or the residual is always larger.

    Example:
      >>> flow = GradientFlow.fit(np.eye(2), np.array([1.0, -1.0]))
      >>> round(discrepancy(flow, noise=0.5).time, 3) == round(2 * math.log(2), 3)
      True

    Reference: Morozov 1966; Engl, Hanke & Neubauer 1996, section 4.3.
    """
    noise = _checks.number(noise, "noise", positive=True)
    times = times_or_grid(flow, times)
    errors = flow.training_error(times)
    reached = np.flatnonzero(errors <= noise**2)
    if not reached.size:
        raise ValueError(
            f"the rms training residual is still {math.sqrt(errors[-1]):.4g} at t = "
            f"{times[-1]:.4g}, above the noise {noise:.4g}. Pass later times, "
            "less ridge if there is any, or the noise that these data have."
        )
    first = int(reached[0])
    before, after = float(times[first - 1]) if first else 0.0, float(times[first])
    found = 0.0
    if first > 0 or flow.training_error(0.0) > noise**2:
        found = _crossing(flow, noise**2, before, after)
    times = np.insert(times, first, found)
    return Stopping(found, times, np.insert(errors, first, flow.training_error(found)))


def _crossing(flow: GradientFlow, target: float, before: float, after: float) -> float:
    """Return the time between two at which the training error, which falls, is `target`."""
    scale = before or flow.n_train / flow.spectral_range()[1]

    def time(s: float) -> float:
        """Map s from [0, 1] to [before, after], which may be infinite."""
        if s == 1:
            return after
        return before + (scale * s / (1 - s) if after == math.inf else s * (after - before))

    def excess(s: float) -> float:
        return float(flow.training_error(time(s))) - target

    root: Any = scipy.optimize.brentq(excess, 0.0, 1.0, xtol=1e-12)
    return time(root)
