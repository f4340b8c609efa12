import math

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import enable_x64

from nt_residual import gram
from nt_residual.regression import GradientFlow, kfold, time_grid
from nt_residual.regression.estimators import RNTKRegressor
from nt_residual.regression.preparation import Preparation

SOLVERS = ["eigh", "lanczos"]


def _linear(a, b):
    return a @ b.T


# Rounding.


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kernel_dtype", [np.float32, np.float64])
def test_repeated_inputs_with_different_targets_give_the_mean(solver, kernel_dtype):
    flow = GradientFlow.fit(np.ones((100, 100), kernel_dtype), np.arange(100) % 2, solver=solver)
    new = np.ones((1, 100), kernel_dtype)
    np.testing.assert_allclose(flow.predict(new, math.inf), 0.5, rtol=1e-5)


def test_left_out_points_among_repeated_inputs_are_predicted_the_mean_of_the_others():
    y = np.arange(100.0) % 2
    flow = GradientFlow.fit(np.ones((100, 100)), y)
    np.testing.assert_allclose(flow.leave_one_out(math.inf), (50 - y) / 99, rtol=1e-9)


def test_a_kernel_of_low_rank_has_that_many_degrees_of_freedom():
    x = np.random.default_rng(0).standard_normal((300, 5))
    assert GradientFlow.fit(x @ x.T, x[:, 0]).degrees_of_freedom(math.inf) == pytest.approx(5)


def test_no_one_is_advised_to_pass_in_float64_what_is_in_float64_already():
    x = np.linspace(-1, 1, 40)
    k_train = np.exp(-((x[:, None] - x) ** 2))
    flow = GradientFlow.fit(k_train, np.sign(x), solver="lanczos", tol=1e-15)
    message = flow.solve(1e12).message
    assert "does not hold more digits" in message
    assert "a kernel matrix in float64" not in message


# Kinds of arrays.


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_matrix_free_kernel_in_float64_predicts_in_any_context(solver):
    x = np.random.default_rng(0).standard_normal((12, 12))
    with enable_x64():
        matrix = gram.MatrixFree(_linear, x)
    flow = GradientFlow.fit(matrix, x[:, 0], solver=solver, ridge=0.1)
    found = flow.predict(x_test=x[:3], t=5.0)
    assert found.dtype == np.float64
    expected = GradientFlow.fit(x @ x.T, x[:, 0], ridge=0.1).predict(x[:3] @ x.T, 5.0)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kernel_dtype", [">f4", ">f8"])
def test_arrays_of_the_other_byte_order_are_taken(solver, kernel_dtype):
    k_train = np.diag([1.0, 2.0]).astype(kernel_dtype)
    found = GradientFlow.fit(k_train, [1.0, -1.0], solver=solver).predict(k_train, math.inf)
    np.testing.assert_allclose(found, [1, -1], rtol=1e-5)
    assert found.dtype == k_train.dtype.newbyteorder("=")


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_integer_kernel_of_jax_is_taken(solver):
    k_train = jnp.array([[2, 1], [1, 2]])
    found = GradientFlow.fit(k_train, [0.4, -0.4], solver=solver).predict(k_train, math.inf)
    np.testing.assert_allclose(found, [0.4, -0.4], rtol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kernel_dtype", [jnp.float16, jnp.bfloat16])
def test_matrices_in_half_precision_are_checked(solver, kernel_dtype):
    off = jnp.eye(50, dtype=kernel_dtype).at[3, 4].set(0.11)
    with pytest.raises(ValueError, match="k_train must be symmetric"):
        GradientFlow.fit(off, np.ones(50), solver=solver)
    negative = jnp.diag(jnp.array([1.0, -0.02], kernel_dtype))
    with pytest.raises(ValueError, match="k_train must be positive semi-definite"):
        GradientFlow.fit(negative, np.ones(2), solver=solver)


# Scales; those of kernels and targets are in `test_scale`.


def test_many_equal_rows_have_no_direction():
    x = np.full((20000, 2), 0.1)
    options = {"center": True, "bias": 0.0, "normalize": True, "dtype": np.dtype(np.float32)}
    preparation = Preparation.fit(x, **options)
    assert not preparation.apply(x)[1].any()


# What is refused.


def test_arguments_that_would_be_ignored_are_refused():
    flow = GradientFlow.fit(np.eye(3), np.ones(3))
    for option in ({"kernel": _linear}, {"x_train": np.eye(3)}, {"tile_size": 2}):
        with pytest.raises(TypeError, match=f"nothing for {next(iter(option))} to do"):
            flow.predict(np.eye(3), 1.0, **option)


def test_a_matrix_free_kernel_is_refused_where_an_array_is_needed():
    matrix = gram.MatrixFree(_linear, np.eye(3, dtype=np.float32))
    flow = GradientFlow.fit(matrix, np.ones(3))
    with pytest.raises(TypeError, match=r"got a gram.MatrixFree\. Pass x_test="):
        flow.predict(matrix, 1.0)
    with pytest.raises(TypeError, match=r"got a gram.MatrixFree.*Pass gram.compute"):
        kfold(matrix, np.ones(3))


def test_times_and_counts_that_are_not_numbers_are_refused():
    with pytest.raises(TypeError, match="times must hold real numbers"):
        kfold(np.eye(6), np.ones(6), times="a")
    with pytest.raises(TypeError, match=r"count must be an integer, got 2\.5"):
        time_grid(GradientFlow.fit(np.eye(3), np.ones(3)), count=2.5)


@pytest.mark.parametrize("stopping", ["gcv", "loo"])
def test_criteria_that_need_all_eigenvalues_refuse_lanczos(stopping):
    x = np.random.default_rng(0).standard_normal((10, 2))
    with pytest.raises(ValueError, match=f"stopping='{stopping}' needs all eigenvalues"):
        RNTKRegressor(stopping=stopping, solver="lanczos").fit(x, x[:, 0])


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_new_input_at_which_the_kernel_is_not_finite_is_refused(solver):
    def cosine(a, b):
        length = jnp.linalg.norm(a, axis=1)[:, None] * jnp.linalg.norm(b, axis=1)
        return a @ b.T / length

    x = np.eye(4, dtype=np.float32)
    flow = GradientFlow.fit(gram.MatrixFree(cosine, x), np.ones(4), solver=solver)
    with pytest.raises(ValueError, match=r"finite|NaN"):
        flow.predict(x_test=np.append(x[:2], np.zeros((1, 4), np.float32), axis=0), t=1.0)
