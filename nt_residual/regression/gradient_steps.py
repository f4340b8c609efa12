"""Squared losses, and the training time of steps of gradient descent."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks

Loss = Literal["mse", "half_mse", "half_norm"]
SQUARED_LOSSES = ("mse", "half_mse", "half_norm")


def loss_factor(loss: str, n_outputs: int) -> float:
    """Return the factor c of a squared loss c/(2n) Σ_i |f(x_i) − y_i|², as in `time_of_steps`."""
    _checks.choice(loss, "loss", SQUARED_LOSSES)
    return {"mse": 2 / n_outputs, "half_mse": 1 / n_outputs, "half_norm": 1.0}[loss]


def time_of_steps(
    steps: ArrayLike, learning_rate: float, *, loss: Loss, n_outputs: int = 1
) -> float | np.ndarray:
    r"""Return the time t of a `GradientFlow` that equals a number of steps of gradient descent.

    Gradient descent with learning rate η follows the gradient flow of its loss for the time
    η · steps. The loss (c/2n) Σ_ij (f_ij − y_ij)², for n points and o outputs, multiplies the time
    by c, so t = c η · steps. The names mean the same in `finite_width`:

    | `loss` | formula | optax | c |
    |---|---|---|---|
    | 'mse' | (1/(n·o)) Σ_ij (f_ij − y_ij)² | `optax.squared_error(…).mean()` | 2/o |
    | 'half_mse' | (1/(2n·o)) Σ_ij (f_ij − y_ij)² | `optax.l2_loss(…).mean()` | 1/o |
    | 'half_norm' | (1/(2n)) Σ_ij (f_ij − y_ij)² | `optax.l2_loss(…).sum(-1).mean()` | 1 |

    `GradientFlow` follows 'half_norm', and
    `neural_tangents.predict.gradient_descent_mse(k_train, y, learning_rate)` 'half_mse' with t in
    steps. The steps follow the flow closely if η c λ_max/n is much less than 1. From 2 on they
    diverge. A normalized kernel, or another parameterization, multiplies t by a constant.

    Args:
      steps: a scalar or an array, ≥ 0; fractions and infinity are allowed.
      learning_rate: η, positive, of plain (stochastic) gradient descent.
      loss: the loss whose gradient is taken.
      n_outputs: o, the number of outputs of the network.

    Returns:
      A float, or a float64 array of the shape of `steps`.

    Raises:
      TypeError: if an argument is not a real number, or `n_outputs` is not an integer.
      ValueError: if `steps` is negative or NaN, `learning_rate` is not positive and finite,
        `n_outputs` < 1, or the loss is unknown.

    Example:
      >>> time_of_steps(1000, 0.5, loss="mse", n_outputs=10)
      100.0
    """
    return _scaled(steps, "steps", _time_of_a_step(learning_rate, loss, n_outputs))


def steps_of_time(
    time: ArrayLike, learning_rate: float, *, loss: Loss, n_outputs: int = 1
) -> float | np.ndarray:
    """Return the number of steps of gradient descent that equals a time t, the inverse.

    Arguments and errors are those of `time_of_steps`, with the time t of a `GradientFlow` in place
    of the steps. Returns a float, or a float64 array of the shape of `time`: round it.

    Example:
      >>> steps_of_time(100.0, 0.5, loss="mse", n_outputs=10)
      1000.0
    """
    return _scaled(time, "time", 1 / _time_of_a_step(learning_rate, loss, n_outputs))


def _time_of_a_step(learning_rate: float, loss: str, n_outputs: int) -> float:
    rate = _checks.number(learning_rate, "learning_rate", positive=True)
    n_outputs = _checks.integer(n_outputs, "n_outputs", 1, "Pass the number of outputs.")
    return rate * loss_factor(loss, n_outputs)


def _scaled(values: ArrayLike, name: str, factor: float) -> float | np.ndarray:
    array = _checks.real_array(values, name, infinite=True)
    if not np.all(array >= 0):
        raise ValueError(f"{name} must be ≥ 0, got {values!r}.")
    scaled = array * factor
    return scaled if array.ndim else float(scaled)
