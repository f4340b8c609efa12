"""Regression on points of the sphere, stopped at the best of all times."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nt_residual import data, regression


def best_error(kernel: Any, points: data.Dataset) -> float:
    """The least test error there is over all stopping times, relative to that of a constant.

    No rule to stop by can do better. It says what a kernel can learn, and flatters one that
    learns nothing least.

    Args:
      kernel: a function of inputs, as `rntk.ResidualKernel`.
      points: inputs on the sphere, test targets without noise.

    Returns:
      The mean squared error divided by that of the mean of the training targets.

    Example:
      >>> from nt_residual import rntk, schedules
      >>> points = data.sphere.load(50, 50, dim=3, coefficients={1: 1.0})
      >>> kernel = rntk.ResidualKernel(10, schedules.PowerLaw(0.5))
      >>> best_error(kernel, points) < 0.01
      True
    """
    # As JAX would, but for its warning.
    x_train, x_test = points.x_train.astype(np.float32), points.x_test.astype(np.float32)
    flow = regression.GradientFlow.fit(kernel(x_train), points.y_train, solver="eigh")
    predictions = flow.predict(kernel(x_test, x_train), regression.time_grid(flow))
    errors = np.square(predictions - points.y_test).mean(axis=1)
    return float(errors.min() / np.square(points.y_test - points.y_train.mean()).mean())


def mean_best_error(kernel: Any, sets: Sequence[data.Dataset]) -> tuple[float, float]:
    """The mean of `best_error` over sets of points, and its standard error.

    Args:
      kernel: as for `best_error`.
      sets: one at least; of one the standard error is NaN.

    Example:
      >>> from nt_residual import rntk, schedules
      >>> points = data.sphere.load(50, 50, dim=3, coefficients={1: 1.0})
      >>> mean_best_error(rntk.ResidualKernel(10, schedules.PowerLaw(0.5)), [points])[1]
      nan
    """
    errors = [best_error(kernel, points) for points in sets]
    spread = np.std(errors, ddof=1) / math.sqrt(len(errors)) if len(errors) > 1 else math.nan
    return float(np.mean(errors)), float(spread)
