"""When to stop gradient flow, from the training data alone."""

import math
from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike

from nt_residual import _checks
from nt_residual.regression.gradient_flow import GradientFlow
from nt_residual.regression.held_out import Stopping, least, mean_squares, times_or_grid
from nt_residual.regression.inputs import exponent, real_array, scaled

# Of the n degrees of freedom. Where fewer remain, their number is rounding.
_FEWEST_LEFT = 1e-8


def generalized_cross_validation(flow: GradientFlow, times: ArrayLike | None = None) -> Stopping:
    r"""Chooses the time by generalized cross-validation.

        GCV(t) = (1/n) Σ_i |f_t(x_i) − y_i|² / (1 − tr S_t/n)²,   f_t(X) = S_t y

    estimates the mean squared error on new data with noise, from the training error and the
    degrees of freedom tr S_t that were spent on it. It costs nothing beyond the flow, but trusts
    the noise to be independent: repeated inputs with the same error mislead it.

    Args:
      flow: a fitted flow, of the solver 'eigh'.
      times: the times to try, shape (T,); `None` for `time_grid(flow)`.

    Returns:
      The first listed of the best times, with GCV at each. It is infinite where no degree of
      freedom is left, as for an interpolant.

    Raises:
      TypeError: if the times are not real numbers.
      ValueError: as `GradientFlow.predict`, if the flow was fitted by 'lanczos', or if GCV
        is infinite at all times.

    Example:
      >>> import numpy as np
      >>> flow = GradientFlow.fit(np.diag([4.0, 0.4, 0.4, 0.4]), np.array([3.0, 0.1, -0.1, 0.1]))
      >>> bool(1 < generalized_cross_validation(flow).time < 10)
      True

    Reference: Golub, Heath & Wahba 1979.
    """
    times = times_or_grid(flow, times)
    left = 1 - np.atleast_1d(flow.degrees_of_freedom(times)) / flow.n_train
    resolved = left > _FEWEST_LEFT
    if not resolved.any():
        raise ValueError(
            f"times must hold one at which the flow does not interpolate yet, got times from "
            f"{times[0]:.3g} to {times[-1]:.3g}. Pass earlier times, or None."
        )
    errors = np.full(len(times), math.inf)
    trained, unit = flow._training_error(times)
    errors[resolved] = trained[resolved] / left[resolved] ** 2
    return least(times, errors, unit)


def leave_one_out(flow: GradientFlow, y: ArrayLike, times: ArrayLike | None = None) -> Stopping:
    """Chooses the time with the least squared error of each point predicted from all others.

    `GradientFlow.leave_one_out` has the predictions, and says at which times they are exact.

    Args:
      flow: a fitted flow, of the solver 'eigh'.
      y: the targets it was fitted to, shape (n,) or (n, n_outputs).
      times: the times to try, shape (T,); `None` for `time_grid(flow)`.

    Returns:
      The first listed of the best times, with the mean squared error at each.

    Raises:
      TypeError: if an argument does not hold real numbers.
      ValueError: as `GradientFlow.leave_one_out`, or if the shape of `y` is not that of the
        predictions.

    Example:
      >>> import numpy as np
      >>> x = np.linspace(-1, 1, 20)
      >>> flow = GradientFlow.fit(1 + np.outer(x, x), 3 * x)
      >>> leave_one_out(flow, 3 * x, times=[0.0, 1.0, 1000.0]).time
      1000.0
    """
    times = times_or_grid(flow, times)
    predictions = flow.leave_one_out(times)
    targets = real_array(y, "y")
    if targets.shape != predictions.shape[1:]:
        raise ValueError(
            f"y must have the shape of the predictions, {predictions.shape[1:]}, got shape "
            f"{targets.shape}. Pass the targets that the flow was fitted to."
        )
    unit = exponent(targets)
    return least(times, mean_squares(predictions, targets, unit), unit)


def discrepancy(
    flow: GradientFlow, noise: float, times: ArrayLike | None = None, factor: float = 1.0
) -> Stopping:
    r"""The time at which the training residual has come down to the noise.

        √((1/(n·n_outputs)) Σ_i |f_t(x_i) − y_i|²) ≤ factor · noise

    From there on the flow would fit noise. It is found between the times of the grid, too.

    Args:
      flow: a fitted flow.
      noise: the standard deviation of the noise of each output, in units of y, positive.
      times: the times to look at first, shape (T,); `None` for `time_grid(flow)`.
      factor: a little more than 1 is on the safe side, where the noise is not quite known.

    Returns:
      The time, 0 if f_0 is as close to the targets as the noise, with the mean squared residual
      there and at each of the times.

    Raises:
      TypeError: if an argument is not real.
      ValueError: if `noise` or `factor` is not positive and finite, or the residual never comes
        down to the noise; and as `GradientFlow.training_error`.

    Example:
      >>> import numpy as np
      >>> flow = GradientFlow.fit(np.eye(2), np.array([1.0, -1.0]))
      >>> round(discrepancy(flow, noise=0.5).time, 3) == round(2 * math.log(2), 3)
      True

    Reference: Morozov 1966; Engl, Hanke & Neubauer 1996, section 4.3.
    """
    noise = _checks.number(noise, "noise", positive=True)
    wanted = _checks.number(factor, "factor", positive=True) * noise
    times = times_or_grid(flow, times)
    errors, unit = flow._training_error(times)
    target = float(scaled(wanted, -unit)) ** 2
    reached = np.flatnonzero(errors <= target)
    if not reached.size:
        raise ValueError(
            f"the rms training residual is still {scaled(math.sqrt(errors[-1]), unit):.4g} at t = "
            f"{times[-1]:.4g}, above factor·noise = {wanted:.4g}. Pass later times, "
            "less ridge if there is any, or the noise that these data have."
        )
    first = int(reached[0])
    before, after = float(times[first - 1]) if first else 0.0, float(times[first])
    found = 0.0
    if first > 0 or flow._training_error(0.0)[0][0] > target:
        found = _crossing(flow, target, before, after)
    error = flow._training_error(found)[0][0]
    times, errors = np.insert(times, first, found), np.insert(errors, first, error)
    return Stopping(found, times, scaled(errors, 2 * unit))


def _crossing(flow: GradientFlow, target: float, before: float, after: float) -> float:
    """The time between two at which the training error, which falls, has come to `target`."""
    scale = before or flow.n_train / flow.spectral_range()[1]

    def time(s: float) -> float:
        if s == 1:
            return after
        return before + (scale * s / (1 - s) if after == math.inf else s * (after - before))

    def excess(s: float) -> float:
        return float(flow._training_error(time(s))[0][0]) - target

    root: Any = scipy.optimize.brentq(excess, 0.0, 1.0, xtol=1e-12)
    return time(root)
