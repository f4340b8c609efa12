"""Regression of zonal targets on the sphere, at the best of all stopping times."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks, data, regression, theory
from nt_residual.experiments.claim import mean_and_error


def draw_sets(
    n_seeds: int, n_train: int, *, first_seed: int = 0, **options: Any
) -> list[data.Dataset]:
    """Return sets of points and targets of `data.sphere.load`, with points in float32.

    Example:
      >>> (points,) = draw_sets(1, 50, n_test=20, dim=3, coefficients={1: 1.0})
      >>> points.x_test.shape
      (20, 3)
    """
    _checks.integer(n_seeds, "n_seeds", 1, "Pass the number of sets of points.")
    sets = [
        data.sphere.load(n_train, **options, seed=seed)
        for seed in range(first_seed, first_seed + n_seeds)
    ]
    return [
        data.Dataset(x_train.astype(np.float32), y_train, x_test.astype(np.float32), y_test)
        for x_train, y_train, x_test, y_test in sets
    ]


def best_error(kernel: Any, sets: Sequence[data.Dataset]) -> tuple[float, float]:
    """Return the least test error over all stopping times, relative to that of a constant.

    No stopping rule does better, so the error bounds what a kernel can learn. It is the mean
    squared error divided by that of the mean of the training targets. The result is the mean over
    the sets, and its standard error, NaN for one set.

    Example:
      >>> sets = draw_sets(1, 32, n_test=50, dim=3, coefficients={1: 1.0})
      >>> error, _ = best_error(lambda x1, x2=None: x1 @ (x1 if x2 is None else x2).T, sets)
      >>> error < 0.02  # A linear kernel learns a linear target.
      True
    """
    errors = []
    for points in sets:
        flow = regression.GradientFlow.fit(kernel(points.x_train), points.y_train, solver="eigh")
        k_test = kernel(points.x_test, points.x_train)
        predictions = flow.predict(k_test, regression.time_grid(flow))
        best = np.square(predictions - points.y_test).mean(axis=1).min()
        errors.append(float(best / np.square(points.y_test - points.y_train.mean()).mean()))
    return mean_and_error(errors)


def expected_risk(
    spectrum: theory.Spectrum, target: dict[int, float], noise: float, n: int, times: ArrayLike
) -> np.ndarray:
    """Return bias and variance of gradient flow in the eigenbasis, for large n, at each time.

    Σ_k v_k² exp(−2 t λ_k) + σ²/n Σ_k N(d, k) (1 − exp(−t λ_k))²

    Example:
      >>> spectrum = theory.spectrum(lambda theta: 1.5 * np.cos(theta), dim=3, max_degree=1)
      >>> expected_risk(spectrum, {1: 1.0}, 1.0, 100, [0.0, 100.0]).round(3)
      array([0.333, 0.03 ])
    """
    decay = np.exp(-np.multiply.outer(times, np.maximum(spectrum.eigenvalue, 0)))
    variance = noise**2 / n * (np.square(1 - decay) @ spectrum.multiplicity)
    power = theory.zonal_power(target, spectrum.dim)
    return sum(v * decay[..., degree] ** 2 for degree, v in power.items()) + variance
