import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import enable_x64, full, matrix_of_spectrum

from nt_residual import data, gram, regression, rntk, schedules
from nt_residual.regression import GradientFlow, gradient_flow

SOLVERS = ["eigh", "lanczos"]
TIMES = np.array([0.0, 0.3, 10.0, 1e3, math.inf])


@pytest.fixture
def problem():
    """A kernel matrix with a prescribed spectrum, new rows in its span, and targets."""
    rng = np.random.default_rng(0)
    k_train = matrix_of_spectrum(np.geomspace(8, 1e-2, 8), rng)
    return k_train, rng.standard_normal((3, 8)) @ k_train, rng.standard_normal((8, 2))


def _linear(a, b):
    return a @ b.T


def _by_matrix_exponential(k_train, k_test, y, t, ridge=0.0):
    n = len(k_train)
    k_train = k_train + ridge * np.eye(n)
    learned = np.eye(n) if t == math.inf else np.eye(n) - scipy.linalg.expm(-t * k_train / n)
    return k_test @ np.linalg.solve(k_train, learned @ y)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("ridge", "outputs"), [(0.0, "matrix"), (0.1, "vector")])
def test_predictions_are_those_of_the_closed_form_at_every_time(problem, outputs, ridge, solver):
    k_train, k_test, y = problem
    y = y[:, 0] if outputs == "vector" else y
    flow = GradientFlow.fit(k_train, y, solver=solver, ridge=ridge, tol=1e-10)
    assert flow.solver == solver
    expected = np.array([_by_matrix_exponential(k_train, k_test, y, t, ridge) for t in TIMES])
    np.testing.assert_allclose(flow.predict(k_test, TIMES), expected, rtol=1e-9, atol=1e-9)
    for t, value in zip(TIMES, expected, strict=True):
        np.testing.assert_allclose(flow.predict(k_test, t), value, rtol=1e-9, atol=1e-9)


def test_a_singular_kernel_gives_the_interpolant_of_least_norm():
    rng = np.random.default_rng(0)
    features, y = rng.standard_normal((6, 3)), rng.standard_normal(6)
    flow = GradientFlow.fit(features @ features.T, y)
    assert flow.degrees_of_freedom(math.inf) == pytest.approx(3)
    weights, *_ = np.linalg.lstsq(features, y)
    new = rng.standard_normal((2, 3))
    np.testing.assert_allclose(flow.predict(new @ features.T, math.inf), new @ weights, rtol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_repeated_inputs_with_different_targets_give_the_mean(solver):
    y = np.arange(100) % 2
    flow = GradientFlow.fit(np.ones((100, 100), np.float32), y, solver=solver)
    new = np.ones((1, 100), np.float32)
    np.testing.assert_allclose(flow.predict(new, math.inf), 0.5, rtol=1e-5)
    if solver == "eigh":
        np.testing.assert_allclose(flow.leave_one_out(math.inf), (50 - y) / 99, rtol=1e-9)


# With a ridge.


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_ridge_at_infinite_time_is_kernel_ridge_regression(problem, solver):
    k_train, _, y = problem
    flow = GradientFlow.fit(k_train, y, solver=solver, ridge=0.3, tol=1e-10)
    solution = flow.solve(math.inf)
    expected = np.linalg.solve(k_train + 0.3 * np.eye(8), y)
    np.testing.assert_allclose(solution.value, expected, rtol=1e-9, atol=1e-10)
    smallest, largest = flow.spectral_range()
    np.testing.assert_allclose([smallest, largest], [0.31, 8.3], rtol=1e-9)


# What is known besides predictions.


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_training_error_is_that_of_predictions_on_the_training_points(problem, ridge, solver):
    k_train, _, y = problem
    flow = GradientFlow.fit(k_train, y, ridge=ridge, solver=solver, tol=1e-10)
    expected = [np.mean((flow.predict(k_train, t) - y) ** 2) for t in TIMES]
    np.testing.assert_allclose(flow.training_error(TIMES), expected, rtol=1e-8, atol=1e-15)
    assert flow.training_error(10.0) == pytest.approx(expected[2])


def test_targets_outside_the_range_of_a_singular_kernel_stay_in_the_training_error():
    flow = GradientFlow.fit(np.diag([1.0, 0.0]), np.array([3.0, 4.0]))
    assert flow.training_error(math.inf) == pytest.approx(8.0)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_degrees_of_freedom_are_the_trace_of_the_map_from_targets_to_predictions(problem, ridge):
    k_train, _, _ = problem
    flow = GradientFlow.fit(k_train, np.eye(8), ridge=ridge)
    expected = [np.trace(flow.predict(k_train, t)) for t in TIMES]
    np.testing.assert_allclose(flow.degrees_of_freedom(TIMES), expected, rtol=1e-9, atol=1e-12)
    assert np.ndim(flow.degrees_of_freedom(1.0)) == 0


@pytest.mark.parametrize("rank", [8, 5])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize("center", [False, True])
def test_leaving_one_out_is_training_without_it(center, ridge, rank):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((8, rank)) * np.geomspace(1, 0.1, rank)
    k_train, y = features @ features.T, np.array([10.0, 0.0]) + rng.standard_normal((8, 2))
    fit = functools.partial(GradientFlow.fit, ridge=ridge, center_targets=center)
    expected = np.empty((len(TIMES), 8, 2))
    for i in range(8):
        others = np.arange(8) != i
        flow = fit(k_train[others][:, others], y[others])
        # The same step on each of the others.
        expected[:, i] = flow.predict(k_train[i : i + 1, others], TIMES * 7 / 8)[:, 0]
    found = fit(k_train, y).leave_one_out(TIMES)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)
    vector = fit(k_train, y[:, 0]).leave_one_out(0.3)
    np.testing.assert_allclose(vector, expected[1, :, 0], atol=1e-7)


def test_a_point_that_no_other_one_says_anything_about_is_predicted_to_be_zero():
    k_train = scipy.linalg.block_diag(np.full((2, 2), 3.0), 1.0)
    flow = GradientFlow.fit(k_train, np.array([1.0, 3.0, 5.0]))
    np.testing.assert_allclose(flow.leave_one_out(math.inf), [3.0, 1.0, 0.0], atol=1e-12)
    with pytest.raises(ValueError, match="leave_one_out with center_targets=True needs at least 2"):
        GradientFlow.fit(np.eye(1), np.ones(1), center_targets=True).leave_one_out(1.0)


# From the mean of the targets.


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_flow_from_the_mean_is_one_from_zero_of_centered_targets(problem, solver):
    k_train, k_test, y = problem
    fit = functools.partial(GradientFlow.fit, solver=solver, ridge=0.1, tol=1e-10)
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


def test_a_mean_that_is_larger_than_the_spread_is_warned_about():
    k_train, rng = np.eye(20), np.random.default_rng(0)
    fit = GradientFlow.fit
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


# Kernel matrices in other forms.


def test_auto_chooses_an_eigendecomposition_for_small_matrices_in_memory():
    x = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    assert GradientFlow.fit(x @ x.T, x[:, 0]).solver == "eigh"
    assert GradientFlow.fit(gram.MatrixFree(_linear, x), x[:, 0]).solver == "lanczos"


def test_auto_changes_to_an_eigendecomposition_when_something_needs_it(monkeypatch):
    rng = np.random.default_rng(0)
    k_train = matrix_of_spectrum(np.geomspace(10, 1e-4, 16), rng).astype(np.float32)
    y = rng.standard_normal((16, 2))
    exact = GradientFlow.fit(k_train, y, solver="eigh")
    monkeypatch.setattr(gradient_flow, "_LARGEST_EIGH", 15)
    fit = functools.partial(GradientFlow.fit, k_train, y)
    early = fit().solve([1.0, 30.0])
    assert early.iterations == 16  # Of Lanczos.
    np.testing.assert_allclose(
        k_train @ early.value, k_train @ exact.solve([1.0, 30.0]).value, atol=1e-4
    )
    for ask, equal in {
        "late": lambda flow: flow.predict(k_train, math.inf),
        "does not converge": lambda flow: flow.predict(k_train, 30.0),
        "degrees": lambda flow: flow.degrees_of_freedom(1.0),
        "leave one out": lambda flow: flow.leave_one_out(1.0),
        "grid": lambda flow: regression.time_grid(flow),
    }.items():
        flow = fit(max_iterations=2 if ask == "does not converge" else None)
        assert flow.solver == "lanczos"
        np.testing.assert_array_equal(equal(flow), equal(exact))
        assert flow.solver == "eigh"
    with_ridge = fit(ridge=1.0)
    with_ridge.predict(k_train, math.inf)
    assert with_ridge.solver == "lanczos"
    monkeypatch.setattr(gradient_flow, "_LARGEST_AUTOMATIC", 15)
    with pytest.raises(ValueError, match="Pass solver='eigh'"):
        fit().degrees_of_freedom(1.0)


@pytest.mark.parametrize("solver", ["lanczos", *full("eigh")])
@pytest.mark.parametrize("form", ["matrix-free", "stored"])
def test_a_kernel_that_is_not_in_memory_gives_the_same_predictions(form, solver, tmp_path):
    rng = np.random.default_rng(0)
    x, x_test = (rng.standard_normal((n, 3)).astype(np.float32) for n in (21, 5))
    y = rng.standard_normal((21, 2))
    kernel = rntk.ResidualKernel(30, schedules.PowerLaw(0.5))
    times = np.array([1.0, 100.0])
    expected = GradientFlow.fit(kernel(x), y).predict(kernel(x_test, x), times)
    if form == "stored":
        k_train = gram.compute(kernel, x, tile_size=8, store=tmp_path / "train")
        k_test = gram.compute(kernel, x_test, x, tile_size=8, store=tmp_path / "test")
    else:
        k_train = gram.MatrixFree(kernel, x, tile_size=8)
        k_test = gram.MatrixFree(kernel, x_test, x, tile_size=8)
    flow = GradientFlow.fit(k_train, y, solver=solver)
    predictions = [flow.predict(k, times) for k in (k_test, kernel(x_test, x))]
    for found in predictions:
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_matrix_free_kernel_in_float64_predicts_in_any_context(solver):
    x = np.random.default_rng(0).standard_normal((12, 12))
    with enable_x64():
        matrix, new = gram.MatrixFree(_linear, x), gram.MatrixFree(_linear, x[:3], x)
    flow = GradientFlow.fit(matrix, x[:, 0], solver=solver, ridge=0.1)
    found = flow.predict(new, 5.0)
    expected = GradientFlow.fit(x @ x.T, x[:, 0], ridge=0.1)
    np.testing.assert_allclose(found, expected.predict(x[:3] @ x.T, 5.0), rtol=1e-3)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kernel_dtype", [">f4", "int32"])
def test_arrays_of_the_other_byte_order_and_of_integers_are_taken(solver, kernel_dtype):
    k_train = np.diag([1, 2]).astype(kernel_dtype)
    flow = GradientFlow.fit(k_train, [1.0, -1.0], solver=solver)
    found = flow.predict(k_train, math.inf)
    np.testing.assert_allclose(found, [1, -1], rtol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_matrices_in_half_precision_are_checked(solver):
    off = jnp.eye(50, dtype=jnp.bfloat16).at[3, 4].set(0.11)
    with pytest.raises(ValueError, match="k_train must be symmetric"):
        GradientFlow.fit(off, np.ones(50), solver=solver)
    negative = jnp.diag(jnp.array([1.0, -0.02], jnp.bfloat16))
    with pytest.raises(ValueError, match="k_train must be positive semi-definite"):
        GradientFlow.fit(negative, np.ones(2), solver=solver)


# Bad input.


@pytest.mark.parametrize(
    ("k_train", "y", "message"),
    [
        (np.ones((2, 3)), np.ones(2), r"k_train must have shape \(n, n\).*got shape \(2, 3\)"),
        (np.ones((0, 0)), np.ones(0), r"k_train must have shape \(n, n\)"),
        (np.eye(3), np.ones(4), r"y must have shape \(n,\).*with n = 3.*got shape \(4,\)"),
        (np.eye(3), np.array([1, np.nan, 2]), r"y must be finite, got 1 .*at index \[1\]"),
        (np.diag([1, np.inf]), np.ones(2), r"k_train must be finite, got 1 .*index \[1, 1"),
        (np.array([[1.0, 0.5], [0.1, 1.0]]), np.ones(2), "k_train must be symmetric, got"),
        (np.diag([1.0, -0.5]), np.ones(2), "k_train must be positive semi-definite, got"),
    ],
)
@pytest.mark.parametrize("solver", SOLVERS)
def test_bad_training_data_is_refused(k_train, y, message, solver):
    with pytest.raises(ValueError, match=message):
        GradientFlow.fit(k_train, y, solver=solver)


def test_bad_requests_for_predictions_are_refused():
    flow = GradientFlow.fit(np.eye(3), np.ones(3))
    for t, message in ((-1.0, "be ≥ 0"), (math.nan, "not be NaN"), ([1.0, -2.0], "be ≥ 0")):
        with pytest.raises(ValueError, match=f"t must {message}, got"):
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


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_new_input_at_which_the_kernel_is_not_finite_is_refused(solver):
    def cosine(a, b):
        length = jnp.linalg.norm(a, axis=1)[:, None] * jnp.linalg.norm(b, axis=1)
        return a @ b.T / length

    x = np.eye(4, dtype=np.float32)
    flow = GradientFlow.fit(gram.MatrixFree(cosine, x), np.ones(4), solver=solver)
    with pytest.raises(ValueError, match=r"finite|NaN"):
        flow.predict(gram.MatrixFree(cosine, np.zeros((1, 4), np.float32), x), 1.0)


def test_what_only_an_eigendecomposition_knows_is_refused_without_one():
    flow = GradientFlow.fit(np.eye(3), np.ones(3), solver="lanczos")
    for name in ("degrees_of_freedom", "leave_one_out"):
        with pytest.raises(ValueError, match=f"{name} needs all eigenvalues.*Pass solver='eigh'"):
            getattr(flow, name)(1.0)
