import math

import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
import scipy.linalg

from nt_residual import data, regression, rntk, schedules

TIMES = np.array([0.0, 0.3, 10.0, 1e3, math.inf])


@pytest.fixture
def problem():
    """A kernel matrix with a prescribed spectrum, new rows in its span, and targets."""
    rng = np.random.default_rng(0)
    vectors, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    k_train = vectors * np.geomspace(8, 1e-2, 8) @ vectors.T
    k_train = (k_train + k_train.T) / 2
    return k_train, rng.standard_normal((3, 8)) @ k_train, rng.standard_normal((8, 2))


def _by_matrix_exponential(k_train, k_test, y, t):
    n = len(k_train)
    learned = np.eye(n) if t == math.inf else np.eye(n) - scipy.linalg.expm(-t * k_train / n)
    return k_test @ np.linalg.solve(k_train, learned @ y)


@pytest.mark.parametrize("outputs", ["vector", "matrix"])
def test_predictions_are_those_of_the_closed_form_at_every_time(problem, outputs):
    k_train, k_test, y = problem
    y = y[:, 0] if outputs == "vector" else y
    flow = regression.GradientFlow.fit(k_train, y)
    expected = np.array([_by_matrix_exponential(k_train, k_test, y, t) for t in TIMES])
    np.testing.assert_allclose(flow.predict(k_test, TIMES), expected, rtol=1e-9, atol=1e-9)
    for t, value in zip(TIMES, expected, strict=True):
        np.testing.assert_allclose(flow.predict(k_test, t), value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_time_is_that_of_neural_tangents_divided_by_the_number_of_outputs(n_outputs, x64):
    rng = np.random.default_rng(0)
    x_train, x_test = rng.standard_normal((7, 4)), rng.standard_normal((3, 4))
    y = rng.standard_normal((7, n_outputs))
    kernel = rntk.ResidualKernel(30, schedules.PowerLaw(0.5))
    k_train, k_test = kernel(x_train), kernel(x_test, x_train)
    flow = regression.GradientFlow.fit(k_train, y)
    predict_fn = nt.predict.gradient_descent_mse(k_train, y)
    for t in (0.1, 3.0, 100.0, None):
        expected = predict_fn(None if t is None else t * n_outputs, None, 0.0, k_test)
        got = flow.predict(k_test, math.inf if t is None else t)
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-9)


def test_gradient_descent_takes_the_flow_a_step_at_a_time(problem):
    k_train, k_test, y = problem
    step, n = 1e-3, len(k_train)
    on_train, on_test = np.zeros_like(y), np.zeros((3, 2))
    for _ in range(2000):
        residual = y - on_train
        on_train = on_train + step * k_train @ residual / n
        on_test = on_test + step * k_test @ residual / n
    flow = regression.GradientFlow.fit(k_train, y)
    np.testing.assert_allclose(flow.predict(k_test, 2000 * step), on_test, rtol=2e-3)


def test_infinite_time_interpolates_and_time_zero_predicts_nothing(problem):
    k_train, _, y = problem
    flow = regression.GradientFlow.fit(k_train, y)
    np.testing.assert_allclose(flow.predict(k_train, math.inf), y, rtol=1e-9)
    np.testing.assert_array_equal(flow.predict(k_train, 0), np.zeros_like(y))


def test_a_singular_kernel_gives_the_interpolant_of_least_norm():
    rng = np.random.default_rng(0)
    features, y = rng.standard_normal((6, 3)), rng.standard_normal(6)
    flow = regression.GradientFlow.fit(features @ features.T, y)
    assert flow.eigenvalues.shape == (3,)
    weights, *_ = np.linalg.lstsq(features, y)
    new = rng.standard_normal((2, 3))
    np.testing.assert_allclose(flow.predict(new @ features.T, math.inf), new @ weights, rtol=1e-9)


def test_a_float32_kernel_is_factorised_in_float64_and_predictions_are_float32():
    x = np.random.default_rng(0).standard_normal((50, 5)).astype(np.float32)
    kernel = rntk.ResidualKernel(100, schedules.PowerLaw(1.0))
    y = x[:, 0]
    flow = regression.GradientFlow.fit(kernel(x), y)
    assert flow.eigenvalues.dtype == np.float64
    predictions = flow.predict(kernel(x), math.inf)
    assert predictions.dtype == np.float32
    np.testing.assert_allclose(predictions, y, atol=1e-4)


def test_the_errors_of_a_degenerate_kernel_are_those_of_the_mean():
    # With k = 1/4 off the diagonal nothing but the mean of y reaches a new input.
    rng = np.random.default_rng(0)
    x, new = (data.sphere.uniform(n, dim=5, seed=n) for n in (400, 20))
    y = rng.standard_normal(400)
    kernel = rntk.ResidualKernel(math.inf, schedules.Constant(1.0))
    flow = regression.GradientFlow.fit(kernel(x), y)
    predictions = flow.predict(kernel(new, x), math.inf)
    np.testing.assert_allclose(predictions, y.mean() * 100 / 100.75, rtol=1e-3)


# Bad input.


@pytest.mark.parametrize(
    ("k_train", "y", "message"),
    [
        (np.ones((2, 3)), np.ones(2), r"k_train must have shape \(n, n\).*got shape \(2, 3\)"),
        (np.ones(4), np.ones(4), r"k_train must have shape \(n, n\)"),
        (np.ones((0, 0)), np.ones(0), r"k_train must have shape \(n, n\)"),
        (np.eye(3), np.ones(4), r"y must have shape \(n,\).*with n = 3.*got shape \(4,\)"),
        (np.eye(3), np.ones((3, 1, 1)), r"y must have shape"),
        (np.eye(3), np.array([1, np.nan, 2]), "y must be finite, got 1 values"),
        (np.diag([1, np.inf]), np.ones(2), "k_train must be finite, got 1 values"),
        (np.array([[1.0, 0.5], [0.1, 1.0]]), np.ones(2), "k_train must be symmetric, got"),
        (np.diag([1.0, -0.5]), np.ones(2), "k_train must be positive semi-definite, got"),
        (np.zeros((2, 2)), np.ones(2), "k_train must be positive semi-definite, got"),
    ],
)
def test_bad_training_data_is_refused(k_train, y, message):
    with pytest.raises(ValueError, match=message):
        regression.GradientFlow.fit(k_train, y)


def test_training_data_that_are_not_numbers_are_refused():
    with pytest.raises(TypeError, match="y must hold real numbers, got dtype <U1"):
        regression.GradientFlow.fit(np.eye(2), ["a", "b"])
    with pytest.raises(TypeError, match="k_train must hold real numbers, got dtype complex128"):
        regression.GradientFlow.fit(np.eye(2) * 1j, [1, 2])


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match="solver must be 'auto' or 'eigh', got 'lanczos'"):
        regression.GradientFlow.fit(np.eye(2), np.ones(2), solver="lanczos")


def test_bad_requests_for_predictions_are_refused():
    flow = regression.GradientFlow.fit(np.eye(3), np.ones(3))
    for t in (-1.0, math.nan, [1.0, -2.0]):
        with pytest.raises(ValueError, match="t must be ≥ 0 and not NaN, got"):
            flow.predict(np.eye(3), t)
    for t in ([[1.0]], []):
        with pytest.raises(ValueError, match="t must be a scalar or have shape"):
            flow.predict(np.eye(3), t)
    with pytest.raises(TypeError, match="t must hold real numbers"):
        flow.predict(np.eye(3), "1")
    with pytest.raises(ValueError, match=r"k_test_train must have shape \(n_test, 3\)"):
        flow.predict(np.ones((2, 4)), 1.0)
    with pytest.raises(ValueError, match="k_test_train must be finite"):
        flow.predict(np.full((2, 3), np.nan), 1.0)


# Stopping.


def test_the_grid_of_times_runs_from_nothing_learned_to_everything(problem):
    k_train, _, y = problem
    flow = regression.GradientFlow.fit(k_train, y)
    times = regression.time_grid(flow)
    assert len(times) == 64
    assert np.all(np.diff(times) > 0)
    assert times[-1] == math.inf
    assert np.linalg.norm(flow.predict(k_train, times[0])) < 0.02 * np.linalg.norm(y)
    assert np.linalg.norm(flow.predict(k_train, times[-2]) - y) < 1e-3 * np.linalg.norm(y)
    with pytest.raises(ValueError, match="count must be at least 3, got 2"):
        regression.time_grid(flow, count=2)


def test_holdout_finds_the_time_of_least_squared_error(problem):
    k_train, k_val, y = problem
    flow = regression.GradientFlow.fit(k_train, y)
    target = flow.predict(k_val, 3.0)
    times = np.array([0.5, 1.0, 3.0, 10.0, math.inf])
    stopping = regression.holdout(flow, k_val, target, times)
    assert stopping.time == 3.0
    expected = [np.mean((flow.predict(k_val, t) - target) ** 2) for t in times]
    np.testing.assert_allclose(stopping.errors, expected, rtol=1e-12)


def test_early_stopping_beats_interpolation_on_noisy_data():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((300, 3)), jnp.float32)
    x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    y = np.asarray(x[:, 0]) + rng.standard_normal(300)
    kernel = rntk.ResidualKernel(math.inf, schedules.PowerLaw(1.0))
    flow = regression.GradientFlow.fit(kernel(x[:200]), y[:200])
    stopping = regression.holdout(flow, kernel(x[200:], x[:200]), np.asarray(x[200:, 0]))
    assert stopping.time < math.inf
    assert np.min(stopping.errors) < stopping.errors[-1] / 5


def test_an_integer_kernel_gives_float_predictions():
    flow = regression.GradientFlow.fit(np.array([[2, 1], [1, 2]]), [0.4, -0.4])
    np.testing.assert_allclose(flow.predict(np.array([[2, 1]]), math.inf), [0.4])


def test_holdout_refuses_targets_that_are_missing(problem):
    k_train, k_val, y = problem
    flow = regression.GradientFlow.fit(k_train, y)
    with pytest.raises(ValueError, match="y_val must be finite, got 1 values"):
        regression.holdout(flow, k_val, np.where(np.arange(6).reshape(3, 2) == 4, np.nan, 1.0))
    with pytest.raises(ValueError, match="y_val must hold at least one target"):
        regression.holdout(flow, k_val[:0], y[:0])
    with pytest.raises(TypeError, match="y_val must hold real numbers, got dtype complex128"):
        regression.holdout(flow, k_val, np.ones((3, 2)) * 1j)


def test_holdout_refuses_targets_of_another_length(problem):
    k_train, k_val, y = problem
    flow = regression.GradientFlow.fit(k_train, y)
    with pytest.raises(ValueError, match=r"y_val must have the shape of the predictions, \(3, 2\)"):
        regression.holdout(flow, k_val, y)
