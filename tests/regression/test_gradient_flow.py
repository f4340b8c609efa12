import functools
import math

import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
import scipy.linalg
import sklearn.datasets
from helpers import matrix_of_spectrum

from nt_residual import data, gram, regression, rntk, schedules
from nt_residual.regression import solvers

TIMES = np.array([0.0, 0.3, 10.0, 1e3, math.inf])


@pytest.fixture
def problem():
    """A kernel matrix with a prescribed spectrum, new rows in its span, and targets."""
    rng = np.random.default_rng(0)
    k_train = matrix_of_spectrum(np.geomspace(8, 1e-2, 8), rng)
    return k_train, rng.standard_normal((3, 8)) @ k_train, rng.standard_normal((8, 2))


def _by_matrix_exponential(k_train, k_test, y, t, ridge=0.0):
    n = len(k_train)
    k_train = k_train + ridge * np.eye(n)
    learned = np.eye(n) if t == math.inf else np.eye(n) - scipy.linalg.expm(-t * k_train / n)
    return k_test @ np.linalg.solve(k_train, learned @ y)


@pytest.mark.parametrize("solver", ["eigh", "lanczos"])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize("outputs", ["vector", "matrix"])
def test_predictions_are_those_of_the_closed_form_at_every_time(problem, outputs, ridge, solver):
    k_train, k_test, y = problem
    y = y[:, 0] if outputs == "vector" else y
    flow = regression.GradientFlow.fit(k_train, y, solver=solver, ridge=ridge, tol=1e-10)
    assert flow.solver == solver
    expected = np.array([_by_matrix_exponential(k_train, k_test, y, t, ridge) for t in TIMES])
    np.testing.assert_allclose(flow.predict(k_test, TIMES), expected, rtol=1e-9, atol=1e-9)
    for t, value in zip(TIMES, expected, strict=True):
        np.testing.assert_allclose(flow.predict(k_test, t), value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", ["eigh", "lanczos"])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_time_is_that_of_neural_tangents_divided_by_the_number_of_outputs(n_outputs, solver, x64):
    rng = np.random.default_rng(0)
    x_train, x_test = rng.standard_normal((7, 4)), rng.standard_normal((3, 4))
    y = rng.standard_normal((7, n_outputs))
    kernel = rntk.ResidualKernel(30, schedules.PowerLaw(0.5))
    k_train, k_test = kernel(x_train), kernel(x_test, x_train)
    flow = regression.GradientFlow.fit(k_train, y, solver=solver, tol=1e-10)
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


def test_a_float32_kernel_is_factorized_in_float64_and_predictions_are_float32():
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


# With a ridge.


@pytest.mark.parametrize("solver", ["eigh", "lanczos"])
def test_a_ridge_at_infinite_time_is_kernel_ridge_regression(problem, solver):
    k_train, _, y = problem
    flow = regression.GradientFlow.fit(k_train, y, solver=solver, ridge=0.3, tol=1e-10)
    solution = flow.solve(math.inf)
    expected = np.linalg.solve(k_train + 0.3 * np.eye(8), y)
    np.testing.assert_allclose(solution.value, expected, rtol=1e-9, atol=1e-10)
    smallest, largest = flow.spectral_range()
    np.testing.assert_allclose([smallest, largest], [0.31, 8.3], rtol=1e-9)


def test_the_ridge_is_the_variance_of_the_noise_of_a_gaussian_process(x64):
    rng = np.random.default_rng(0)
    x_train, x_test, y = (rng.standard_normal(shape) for shape in ((7, 4), (3, 4), (7, 2)))
    kernel = rntk.ResidualKernel(30, schedules.PowerLaw(0.5), kind="nngp")
    k_train, k_test = kernel(x_train), kernel(x_test, x_train)
    # Their noise is relative to the mean of the diagonal.
    noise = 0.2 / float(jnp.mean(jnp.diagonal(k_train)))
    expected = nt.predict.gp_inference(k_train, y, diag_reg=noise)("nngp", k_test)
    flow = regression.GradientFlow.fit(k_train, y, ridge=0.2)
    np.testing.assert_allclose(flow.predict(k_test, math.inf), expected, rtol=1e-8)


# What is known besides predictions.


@pytest.mark.parametrize("solver", ["eigh", "lanczos"])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_training_error_is_that_of_predictions_on_the_training_points(problem, ridge, solver):
    k_train, _, y = problem
    flow = regression.GradientFlow.fit(k_train, y, ridge=ridge, solver=solver, tol=1e-10)
    expected = [np.mean((flow.predict(k_train, t) - y) ** 2) for t in TIMES]
    np.testing.assert_allclose(flow.training_error(TIMES), expected, rtol=1e-8, atol=1e-15)
    assert flow.training_error(10.0) == pytest.approx(expected[2])


def test_targets_outside_the_range_of_a_singular_kernel_stay_in_the_training_error():
    flow = regression.GradientFlow.fit(np.diag([1.0, 0.0]), np.array([3.0, 4.0]))
    assert flow.training_error(math.inf) == pytest.approx(8.0)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_degrees_of_freedom_are_the_trace_of_the_map_from_targets_to_predictions(problem, ridge):
    k_train, _, _ = problem
    flow = regression.GradientFlow.fit(k_train, np.eye(8), ridge=ridge)
    expected = [np.trace(flow.predict(k_train, t)) for t in TIMES]
    np.testing.assert_allclose(flow.degrees_of_freedom(TIMES), expected, rtol=1e-9, atol=1e-12)
    assert np.ndim(flow.degrees_of_freedom(1.0)) == 0


@pytest.mark.parametrize("rank", [8, 5])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_leaving_one_out_is_training_without_it(ridge, rank):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((8, rank)) * np.geomspace(1, 0.1, rank)
    k_train, y = features @ features.T, rng.standard_normal((8, 2))
    times = np.array([0.0, 0.3, 10.0, 1e4, math.inf])
    expected = np.empty((5, 8, 2))
    for i in range(8):
        others = np.arange(8) != i
        flow = regression.GradientFlow.fit(k_train[others][:, others], y[others], ridge=ridge)
        # The same step on each of the others.
        expected[:, i] = flow.predict(k_train[i : i + 1, others], times * 7 / 8)[:, 0]
    flow = regression.GradientFlow.fit(k_train, y, ridge=ridge)
    np.testing.assert_allclose(flow.leave_one_out(times), expected, rtol=1e-8, atol=1e-8)
    vector = regression.GradientFlow.fit(k_train, y[:, 0], ridge=ridge)
    np.testing.assert_allclose(vector.leave_one_out(0.3), expected[1, :, 0], atol=1e-8)


def test_a_point_that_no_other_one_says_anything_about_is_predicted_to_be_zero():
    k_train = scipy.linalg.block_diag(np.full((2, 2), 3.0), 1.0)
    flow = regression.GradientFlow.fit(k_train, np.array([1.0, 3.0, 5.0]))
    np.testing.assert_allclose(flow.leave_one_out(math.inf), [3.0, 1.0, 0.0], atol=1e-12)


# From the mean of the targets.


@pytest.mark.parametrize("solver", ["eigh", "lanczos"])
def test_a_flow_from_the_mean_is_one_from_zero_of_centered_targets(problem, solver):
    k_train, k_test, y = problem
    fit = functools.partial(regression.GradientFlow.fit, solver=solver, ridge=0.1, tol=1e-10)
    mean = np.array([100.0, -2.0])
    y = y - y.mean(axis=0)
    from_mean, from_zero = fit(k_train, mean + y, center_targets=True), fit(k_train, y)
    np.testing.assert_allclose(from_mean.offset, mean, rtol=1e-12)
    np.testing.assert_array_equal(from_zero.offset, [0, 0])
    predictions = from_mean.predict(k_test, TIMES)
    np.testing.assert_allclose(predictions, mean + from_zero.predict(k_test, TIMES), rtol=1e-9)
    np.testing.assert_array_equal(predictions[0], np.tile(from_mean.offset, (3, 1)))
    errors = from_zero.training_error(TIMES)
    np.testing.assert_allclose(from_mean.training_error(TIMES), errors, rtol=1e-9)
    by_hand = k_test @ from_mean.solve(3.0).value + from_mean.offset
    np.testing.assert_allclose(from_mean.predict(k_test, 3.0), by_hand, rtol=1e-12)
    vector = fit(k_train, mean[0] + y[:, 0], center_targets=True)
    np.testing.assert_allclose(vector.predict(k_test, TIMES), predictions[..., 0], rtol=1e-12)
    assert vector.offset.shape == ()


def test_the_degrees_of_freedom_from_the_mean_count_the_mean(problem):
    k_train = problem[0]
    flow = regression.GradientFlow.fit(k_train, np.eye(8), center_targets=True)
    expected = [np.trace(flow.predict(k_train, t)) for t in TIMES]
    np.testing.assert_allclose(flow.degrees_of_freedom(TIMES), expected, rtol=1e-9)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_a_point_left_out_is_left_out_of_the_mean(problem, ridge):
    k_train, _, y = problem
    y = y + np.array([10.0, 0.0])
    fit = functools.partial(regression.GradientFlow.fit, ridge=ridge, center_targets=True)
    expected = np.empty((len(TIMES), 8, 2))
    for i in range(8):
        others = np.arange(8) != i
        flow = fit(k_train[others][:, others], y[others])
        expected[:, i] = flow.predict(k_train[i : i + 1, others], TIMES * 7 / 8)[:, 0]
    flow = fit(k_train, y)
    np.testing.assert_allclose(flow.leave_one_out(TIMES), expected, rtol=1e-7)
    with pytest.raises(ValueError, match="leave_one_out with center_targets=True needs at least 2"):
        fit(k_train[:1, :1], y[:1]).leave_one_out(1.0)


def test_diabetes_is_learned_better_from_the_mean_than_from_zero():
    x, y = sklearn.datasets.load_diabetes(return_X_y=True)
    k = np.asarray(rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5))(x))
    rest, some, new = np.split(np.random.default_rng(0).permutation(442), [242, 342])
    scores = {}
    for center in (False, True):
        flow = regression.GradientFlow.fit(k[np.ix_(rest, rest)], y[rest], center_targets=center)
        stopping = regression.holdout(flow, k[np.ix_(some, rest)], y[some])
        off = flow.predict(k[np.ix_(new, rest)], stopping.time) - y[new]
        scores[center] = 1 - np.mean(off**2) / np.var(y[new])
    assert scores[True] > 0.35 > scores[False] + 0.1


def test_a_mean_that_is_larger_than_the_spread_is_warned_about():
    k_train, rng = np.eye(20), np.random.default_rng(0)
    fit = regression.GradientFlow.fit
    far = 3 + rng.standard_normal(20)
    with pytest.warns(
        UserWarning, match=r"mean of y is \d\.\d+ times.*center_targets=True"
    ) as caught:
        fit(k_train, far)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="center_targets") as caught:
        regression.kfold(k_train, far, times=[1.0])
    assert [warning.filename for warning in caught] == [__file__]
    # Not where something was chosen, the mean is small, or may be for all that few targets say,
    # or the targets are classes, or all alike. The scale is immaterial.
    fit(k_train, far, center_targets=False)
    fit(k_train, far, center_targets=True)
    fit(k_train, 0.5 + np.sign(far - 3) * np.arange(20) / 10)
    fit(np.eye(3), far[:3])
    fit(k_train, data.centered_one_hot(np.repeat([0, 1], [18, 2]), 2))
    fit(k_train, np.ones(20))
    with pytest.warns(UserWarning, match="center_targets"):
        fit(k_train, 1e300 * far)


# Kernel matrices in other forms.


def test_auto_says_what_it_chose_and_why(monkeypatch):
    kernel = rntk.ResidualKernel(30, schedules.PowerLaw(0.5))
    x = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    flow = regression.GradientFlow.fit(kernel(x), x[:, 0])
    assert flow.solver == "eigh"
    assert flow.reason == "One eigendecomposition is fast for n = 8 ≤ 2000."
    flow = regression.GradientFlow.fit(gram.MatrixFree(kernel, x), x[:, 0])
    assert (flow.solver, flow.reason) == ("lanczos", "The kernel matrix is never stored.")
    monkeypatch.setattr(solvers, "_LARGEST_EIGH", 7)
    flow = regression.GradientFlow.fit(kernel(x), x[:, 0])
    assert flow.solver == "lanczos"
    assert flow.reason == "An eigendecomposition is slow for n = 8 > 7."


@pytest.mark.parametrize("solver", ["eigh", "lanczos"])
@pytest.mark.parametrize("form", ["matrix-free", "stored"])
def test_a_kernel_that_is_not_in_memory_gives_the_same_predictions(form, solver, tmp_path):
    rng = np.random.default_rng(0)
    x, x_test = (rng.standard_normal((n, 3)).astype(np.float32) for n in (21, 5))
    y = rng.standard_normal((21, 2))
    kernel = rntk.ResidualKernel(30, schedules.PowerLaw(0.5))
    times = np.array([1.0, 100.0])
    expected = regression.GradientFlow.fit(kernel(x), y).predict(kernel(x_test, x), times)
    if form == "stored":
        k_train = gram.compute(kernel, x, tile_size=8, store=tmp_path / "train")
        k_test = gram.compute(kernel, x_test, x, tile_size=8, store=tmp_path / "test")
        flow = regression.GradientFlow.fit(k_train, y, solver=solver)
        predictions = [flow.predict(k_test, times)]
        data = {"kernel": kernel, "x_train": x}
    else:
        k_train = gram.MatrixFree(kernel, x, tile_size=8)
        flow = regression.GradientFlow.fit(k_train, y, solver=solver)
        predictions = [flow.predict(kernel(x_test, x), times)]
        data = {}
    predictions.append(flow.predict(x_test=x_test, t=times, tile_size=8, **data))
    for found in predictions:
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-4)


# Bad input.


@pytest.mark.parametrize(
    ("k_train", "y", "message"),
    [
        (np.ones((2, 3)), np.ones(2), r"k_train must have shape \(n, n\).*got shape \(2, 3\)"),
        (np.ones(4), np.ones(4), r"k_train must have shape \(n, n\)"),
        (np.ones((0, 0)), np.ones(0), r"k_train must have shape \(n, n\)"),
        (np.eye(3), np.ones(4), r"y must have shape \(n,\).*with n = 3.*got shape \(4,\)"),
        (np.eye(3), np.ones((3, 1, 1)), r"y must have shape"),
        (np.eye(3), np.array([1, np.nan, 2]), "y must be finite, got 1 values.*first in row 1"),
        (
            np.diag([1, np.inf]),
            np.ones(2),
            "k_train must be finite, got 1 values that are NaN or infinite, the first in row 1, "
            "column 1",
        ),
        (np.array([[1.0, 0.5], [0.1, 1.0]]), np.ones(2), "k_train must be symmetric, got"),
        (np.diag([1.0, -0.5]), np.ones(2), "k_train must be positive semi-definite, got"),
        (np.zeros((2, 2)), np.ones(2), "k_train must be positive semi-definite, got"),
    ],
)
@pytest.mark.parametrize("solver", ["eigh", "lanczos"])
def test_bad_training_data_is_refused(k_train, y, message, solver):
    with pytest.raises(ValueError, match=message):
        regression.GradientFlow.fit(k_train, y, solver=solver)


def test_training_data_that_are_not_numbers_are_refused():
    with pytest.raises(TypeError, match="y must hold real numbers, got dtype <U1"):
        regression.GradientFlow.fit(np.eye(2), ["a", "b"])
    with pytest.raises(TypeError, match="y must hold real numbers, got dtype bool"):
        regression.GradientFlow.fit(np.eye(2), [True, False])
    with pytest.raises(TypeError, match="k_train must hold real numbers, got dtype complex128"):
        regression.GradientFlow.fit(np.eye(2) * 1j, [1, 2])


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"solver": "svd"}, ValueError, "solver must be 'auto', 'eigh' or 'lanczos', got 'svd'"),
        ({"ridge": -0.1}, ValueError, "ridge must be ≥ 0 and finite, got -0.1"),
        ({"ridge": "1"}, TypeError, "ridge must be a real number, got '1'"),
        ({"ridge": True}, TypeError, "ridge must be a real number, got True"),
        ({"tol": 0}, ValueError, "tol must be positive and finite, got 0"),
        ({"tol": math.nan}, ValueError, "tol must be positive and finite, got nan"),
        ({"max_iterations": 0}, ValueError, "max_iterations must be at least 1, got 0"),
        ({"max_iterations": 1.5}, TypeError, "max_iterations must be an integer, got 1.5"),
        ({"max_iterations": True}, TypeError, "max_iterations must be an integer, got True"),
        ({"progress": 1}, TypeError, "progress must be True or False, got 1"),
        ({"center_targets": 0}, TypeError, "center_targets must be True or False, got 0"),
    ],
)
def test_bad_options_are_refused(option, error, message):
    with pytest.raises(error, match=message):
        regression.GradientFlow.fit(np.eye(2), np.ones(2), **option)


def test_bad_requests_for_predictions_are_refused():
    flow = regression.GradientFlow.fit(np.eye(3), np.ones(3))
    for t in (-1.0, math.nan, [1.0, -2.0]):
        with pytest.raises(ValueError, match="t must be ≥ 0 and not NaN, got"):
            flow.predict(np.eye(3), t)
    with pytest.raises(ValueError, match=r"t must not decrease, got t\[1\] = 5 and t\[2\] = 2"):
        flow.predict(np.eye(3), [1.0, 5.0, 2.0])
    for t in ([[1.0]], []):
        with pytest.raises(ValueError, match="t must be a scalar or have shape"):
            flow.predict(np.eye(3), t)
    with pytest.raises(TypeError, match="t must hold real numbers"):
        flow.predict(np.eye(3), "1")
    with pytest.raises(ValueError, match=r"k_test_train must have shape \(n_test, 3\)"):
        flow.predict(np.ones((2, 4)), 1.0)
    with pytest.raises(ValueError, match="k_test_train must be finite"):
        flow.predict(np.full((2, 3), np.nan), 1.0)
    for arguments in ({"t": 1.0}, {"k_test_train": np.eye(3)}, {"x_test": np.eye(3)}):
        with pytest.raises(TypeError, match="predict needs t, and either k_test_train or x_test"):
            flow.predict(**arguments)
    with pytest.raises(TypeError, match="predict needs kernel and x_train with x_test, unless"):
        flow.predict(x_test=np.eye(3), t=1.0)
    with pytest.raises(ValueError, match="x_train must hold the 3 training inputs, got 2"):
        flow.predict(x_test=np.eye(2), x_train=np.eye(2), kernel=lambda a, b: a @ b.T, t=1.0)


def test_what_only_an_eigendecomposition_knows_is_refused_without_one():
    flow = regression.GradientFlow.fit(np.eye(3), np.ones(3), solver="lanczos")
    for name in ("degrees_of_freedom", "leave_one_out"):
        with pytest.raises(ValueError, match=f"{name} needs all eigenvalues.*Pass solver='eigh'"):
            getattr(flow, name)(1.0)
    with pytest.raises(AttributeError, match="eigenvalues exists with solver='eigh' only"):
        _ = flow.eigenvalues


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
    np.testing.assert_allclose(stopping.errors, expected, rtol=1e-12, atol=1e-24)


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
