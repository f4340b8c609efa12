"""`neural_tangents.predict` against the formulas in its docstrings."""

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
import scipy.linalg
from neural_tangents import stax
from nt_networks import VECTORS, array

_, _, KERNEL_FN = stax.serial(stax.Dense(1, 1.3, 0.2), stax.Erf(), stax.Dense(1))


@pytest.fixture
def problem(x64):
    x_train, x_test = map(jnp.asarray, VECTORS)
    y = jnp.asarray(array(4, 2, seed=0.4))
    return KERNEL_FN(x_train, None, "ntk"), KERNEL_FN(x_test, x_train, "ntk"), y


def _solution(k, k_test, y, t):
    """K* K⁻¹ (I − exp(−tK/y.size)) y: the loss is a mean over all of y."""
    decay = np.eye(len(k)) - scipy.linalg.expm(-t * np.asarray(k) / y.size)
    return np.asarray(k_test) @ np.linalg.solve(k, decay @ y)


@pytest.mark.parametrize("t", [0.3, 20.0])
def test_mse_is_the_matrix_exponential(problem, t):
    k, k_test, y = problem
    predict_fn = nt.predict.gradient_descent_mse(k, y)
    train, test = predict_fn(t, 0.0, 0.0, k_test)
    np.testing.assert_allclose(train, _solution(k, k, y, t), rtol=1e-8)
    np.testing.assert_allclose(test, _solution(k, k_test, y, t), rtol=1e-8)


def test_a_predictor_may_be_made_and_called_under_vmap_and_jit(problem):
    k, k_test, y = problem

    def final(scale):
        return nt.predict.gradient_descent_mse(scale * k, y)(2.0, 0.0, 0.0, scale * k_test)[1]

    scales = jnp.array([1.0, 2.0])
    expected = jnp.stack([final(scale) for scale in scales])
    np.testing.assert_allclose(jax.vmap(final)(scales), expected, rtol=1e-10)
    np.testing.assert_allclose(jax.jit(jax.vmap(final))(scales), expected, rtol=1e-10)
    # A kernel known in advance is factorized once, outside.
    predict_fn = nt.predict.gradient_descent_mse(k, y)
    jitted = jax.jit(lambda t: predict_fn(t, 0.0, 0.0, k_test)[1])
    np.testing.assert_allclose(jitted(2.0), expected[0], rtol=1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_max_learning_rate_is_two_over_the_largest_eigenvalue(problem, momentum, dtype):
    k, _, y = problem
    k = jnp.asarray(k, dtype)
    rate = nt.predict.max_learning_rate(k, y_train_size=y.size, momentum=momentum)
    expected = 2 * (1 + momentum) * y.size / np.linalg.eigvalsh(k)[-1]
    np.testing.assert_allclose(rate, expected, rtol=1e-5)
