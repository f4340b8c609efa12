import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import matrix_of_spectrum

from nt_residual import data, gram, rntk, schedules
from nt_residual.regression import (
    GradientFlow,
    discrepancy,
    generalized_cross_validation,
    holdout,
    kfold,
    leave_one_out,
    time_grid,
)

TIMES = np.array([0.0, 0.5, 5.0, 100.0, math.inf])


@pytest.fixture
def problem():
    """A kernel matrix with a prescribed spectrum, and targets."""
    rng = np.random.default_rng(0)
    return matrix_of_spectrum(np.geomspace(9, 1e-2, 9), rng), rng.standard_normal((9, 2))


def _smoother(k_test, k, t):
    """The matrix that takes targets to predictions, by the matrix exponential."""
    n = len(k)
    learned = np.eye(n) if t == math.inf else np.eye(n) - scipy.linalg.expm(-t * k / n)
    return k_test @ np.linalg.solve(k, learned)


@pytest.fixture(scope="module")
def noisy():
    """Noisy targets on the sphere, new points, and their targets without noise."""
    coefficients = {1: 1.0, 2: 0.5}
    points = data.sphere.load(160, 1000, dim=3, coefficients=coefficients, noise=0.7, seed=2)
    kernel = rntk.ResidualKernel(math.inf, schedules.PowerLaw(1.0))
    k = np.asarray(kernel(points.x_train))
    k_test = np.asarray(kernel(points.x_test, points.x_train))
    return k, points.y_train, k_test, points.y_test


def test_the_grid_of_lanczos_ends_before_infinity_where_predictions_have_converged(noisy):
    k, y, *_ = noisy
    flow = GradientFlow.fit(k, y, solver="lanczos")
    times = time_grid(flow)
    exact = time_grid(GradientFlow.fit(k, y, solver="eigh"))
    assert len(times) == 64
    np.testing.assert_allclose(times[0], exact[0], rtol=1e-4)
    assert times[-1] < math.inf
    assert flow.solve(times).status == "converged"
    with_ridge = GradientFlow.fit(k, y, solver="lanczos", ridge=5.0)
    np.testing.assert_allclose(time_grid(with_ridge)[-1], 10 * len(y) / 5.0)


def test_the_grid_of_times_runs_from_nothing_learned_to_everything(problem):
    k, y = problem
    flow = GradientFlow.fit(k, y)
    times = time_grid(flow)
    assert len(times) == 64
    assert np.all(np.diff(times) > 0)
    assert times[-1] == math.inf
    assert np.linalg.norm(flow.predict(k, times[0])) < 0.02 * np.linalg.norm(y)
    assert np.linalg.norm(flow.predict(k, times[-2]) - y) < 1e-3 * np.linalg.norm(y)


def test_holdout_finds_the_time_of_least_squared_error(problem):
    k, y = problem
    k_val = np.random.default_rng(1).standard_normal((3, 9)) @ k
    flow = GradientFlow.fit(k, y)
    target = flow.predict(k_val, 5.0)
    stopping = holdout(flow, k_val, target, TIMES)
    assert stopping.time == 5.0
    expected = [np.mean((_smoother(k_val, k, t) @ y - target) ** 2) for t in TIMES]
    np.testing.assert_allclose(stopping.errors, expected, rtol=1e-8, atol=1e-20)


def test_holdout_refuses_targets_that_are_missing_or_of_another_length(problem):
    k, y = problem
    flow = GradientFlow.fit(k, y)
    with pytest.raises(ValueError, match="y_val must be finite, got 1 values"):
        holdout(flow, k[:3], np.where(np.arange(6).reshape(3, 2) == 4, np.nan, 1.0))
    with pytest.raises(ValueError, match="y_val must hold at least one target"):
        holdout(flow, k[:0], y[:0])
    with pytest.raises(ValueError, match="k_val_train must be finite, got 9 values"):
        holdout(flow, np.where(np.arange(3)[:, None] == 1, np.nan, k[:3]), y[:3])
    with pytest.raises(ValueError, match=r"y_val must have the shape of the predictions, \(3, 2\)"):
        holdout(flow, k[:3], y)


@pytest.mark.parametrize("outputs", ["vector", "matrix"])
def test_kfold_has_the_errors_of_training_on_all_parts_but_one(problem, outputs):
    k, y = problem
    y = y[:, 0] if outputs == "vector" else y
    expected = np.zeros(len(TIMES))
    for part in np.array_split(np.random.default_rng(7).permutation(9), 4):
        others = [i for i in range(9) if i not in part]
        for i, t in enumerate(TIMES):
            predicted = _smoother(k[part][:, others], k[others][:, others], t) @ y[others]
            expected[i] += np.sum((predicted - y[part]) ** 2) / y.size
    stopping = kfold(k, y, 4, times=TIMES, seed=7)
    np.testing.assert_allclose(stopping.errors, expected, rtol=1e-8)
    assert stopping.time == TIMES[np.argmin(expected)]


def test_kfold_passes_solver_and_ridge_on(noisy):
    k, y = noisy[0][:60, :60], noisy[1][:60]
    times = np.geomspace(1, 1e3, 10)
    exact = kfold(k, y, 3, times=times, ridge=2.0)
    krylov = kfold(k, y, 3, times=times, ridge=2.0, solver="lanczos")
    np.testing.assert_allclose(krylov.errors, exact.errors, rtol=1e-3)
    assert np.any(np.abs(exact.errors / kfold(k, y, 3, times=times).errors - 1) > 0.01)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones((2, 3)), np.ones(2)), ValueError, r"k_train must have shape \(n, n\), n ≥ 2"),
        ((np.eye(4), np.ones(3)), ValueError, r"y must have shape \(n,\).*with n = 4"),
        ((np.eye(4), np.ones(4), 5), ValueError, "n_splits must be at most n = 4, got 5"),
        ((gram.MatrixFree(jnp.dot, np.eye(3)), np.ones(3)), TypeError, "Pass gram.compute"),
    ],
)
def test_kfold_refuses_what_it_cannot_divide(arguments, error, message):
    with pytest.raises(error, match=message):
        kfold(*arguments)


# From the training data alone.


def test_generalized_cross_validation_is_its_definition(problem):
    k, y = problem
    expected = []
    for t in TIMES[:-1]:
        smoother = _smoother(k, k, t)
        mean_square = np.mean((smoother @ y - y) ** 2)
        expected.append(mean_square / (1 - np.trace(smoother) / 9) ** 2)
    stopping = generalized_cross_validation(GradientFlow.fit(k, y), TIMES)
    np.testing.assert_allclose(stopping.errors[:-1], expected, rtol=1e-8)
    assert stopping.errors[-1] == math.inf
    assert stopping.time == TIMES[np.argmin(expected)]


def test_generalized_cross_validation_needs_a_time_at_which_something_is_left(problem):
    flow = GradientFlow.fit(*problem)
    with pytest.raises(ValueError, match=r"times must hold one.*got times from 1e\+09 to inf"):
        generalized_cross_validation(flow, [1e9, math.inf])


def test_leave_one_out_is_the_error_of_predictions_without_each_point(problem):
    k, y = problem
    flow = GradientFlow.fit(k, y)
    expected = np.mean((flow.leave_one_out(TIMES) - y) ** 2, axis=(1, 2))
    np.testing.assert_allclose(leave_one_out(flow, y, TIMES).errors, expected, rtol=1e-12)
    # The same as by division into single points, of which each has n/(n − 1) of the time.
    found = kfold(k, y, 9, times=[math.inf]).errors
    np.testing.assert_allclose(found, expected[-1:], rtol=1e-8)
    with pytest.raises(ValueError, match="y must have the shape of the predictions"):
        leave_one_out(flow, y[:5])


# Discrepancy.


@pytest.mark.parametrize("solver", ["eigh", "lanczos"])
@pytest.mark.parametrize("noise", [0.05, 0.9, 10.0])
def test_the_time_of_discrepancy_is_the_first_with_no_more_residual_than_noise(
    problem, noise, solver
):
    k, y = problem
    times = np.array([0.0, 3.0, 30.0, 1e3, 1e5])
    residuals = [np.mean((_smoother(k, k, t) @ y - y) ** 2) for t in times]
    stopping = discrepancy(GradientFlow.fit(k, y, solver=solver), noise, times)
    np.testing.assert_allclose(stopping.errors, residuals, rtol=1e-4, atol=1e-7)
    assert stopping.time == times[np.array(residuals) <= noise**2][0]


def test_noise_that_is_never_reached_is_reported(problem):
    k, y = problem
    with pytest.raises(ValueError, match=r"is still 0.9201 at t = 0.1, above the noise 0.1"):
        discrepancy(GradientFlow.fit(k, y), 0.1, times=[0.01, 0.1])
    # What a kernel of rank 1 leaves, and a ridge, is never learned.
    for flow in (
        GradientFlow.fit(np.ones((4, 4)), [1.0, -1.0, 1.0, -1.0]),
        GradientFlow.fit(k, y, ridge=1.0),
    ):
        with pytest.raises(ValueError, match="at t = inf, above"):
            discrepancy(flow, 0.1)


def test_results_print_what_was_asked_for_and_not_all_arrays(problem):
    k, y = problem
    flow = GradientFlow.fit(k, y)
    stopping = holdout(flow, k, flow.predict(k, 90.0), TIMES)
    assert repr(stopping) == f"Stopping(time=100, error={stopping.errors[3]:.3g}, one of 5 times)"
    assert stopping.error == stopping.errors[3]
    assert repr(flow) == "GradientFlow(n_train=9, solver='eigh', ridge=0)"
    shown = "Solution(status='converged', residual≤0.0e+00, iterations=0, value of shape (5, 9, 2))"
    assert repr(flow.solve(TIMES)) == shown


@pytest.mark.parametrize("rule", ["holdout", "kfold", "gcv", "loo", "discrepancy"])
def test_every_rule_comes_close_to_the_best_time_on_noisy_data(noisy, rule):
    k, y, k_test, truth = noisy
    flow = GradientFlow.fit(k, y)
    if rule == "holdout":
        part = GradientFlow.fit(k[:120, :120], y[:120])
        found = holdout(part, k[120:, :120], y[120:])
    else:
        found = {
            "kfold": lambda: kfold(k, y),
            "gcv": lambda: generalized_cross_validation(flow),
            "loo": lambda: leave_one_out(flow, y),
            "discrepancy": lambda: discrepancy(flow, noise=0.7),
        }[rule]()
    times = time_grid(flow)
    errors = np.mean((flow.predict(k_test, times) - truth) ** 2, axis=1)
    error = np.mean((flow.predict(k_test, found.time) - truth) ** 2)
    assert error < 2 * np.min(errors)
    assert error < errors[-1] / 4
