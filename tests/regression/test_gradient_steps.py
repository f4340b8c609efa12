import math

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import optax
import pytest

from nt_residual.regression import GradientFlow, steps_of_time, time_of_steps

LOSSES = {
    "mse": lambda f, y: optax.squared_error(f, y).mean(),
    "half_mse": lambda f, y: optax.l2_loss(f, y).mean(),
    "half_norm": lambda f, y: optax.l2_loss(f, y).sum(axis=-1).mean(),
}


@pytest.fixture
def linear_model():
    """Features of training and of new points, and targets of three outputs."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((8, 5)), rng.standard_normal((4, 5)), rng.standard_normal((8, 3))


@pytest.mark.parametrize("loss", LOSSES)
def test_sgd_of_optax_arrives_where_the_flow_does(linear_model, loss, x64):
    features, new, y = linear_model
    steps, learning_rate = 2000, 2e-3
    optimizer = optax.sgd(learning_rate)

    def step(_, state):
        weights, memory = state
        gradient = jax.grad(lambda w: LOSSES[loss](features @ w, y))(weights)
        updates, memory = optimizer.update(gradient, memory)
        return optax.apply_updates(weights, updates), memory

    weights = jnp.zeros((5, 3))
    state = weights, optimizer.init(weights)
    weights, _ = jax.jit(lambda state: jax.lax.fori_loop(0, steps, step, state))(state)
    flow = GradientFlow.fit(features @ features.T, y)
    time = time_of_steps(steps, learning_rate, loss=loss, n_outputs=3)
    expected = flow.predict(new @ features.T, time)
    np.testing.assert_allclose(new @ weights, expected, rtol=2e-3, atol=2e-3)
    # No other loss has that time.
    others = [time_of_steps(steps, learning_rate, loss=k, n_outputs=3) for k in LOSSES if k != loss]
    for other in others:
        assert np.max(np.abs(new @ weights - flow.predict(new @ features.T, other))) > 0.05


@pytest.mark.parametrize("learning_rate", [0.1, 3.0])
def test_steps_of_neural_tangents_are_those_of_half_the_mean_squared_error(
    linear_model, learning_rate, x64
):
    features, new, y = linear_model
    k_train, k_test = features @ features.T + np.eye(8), new @ features.T
    predict_fn = nt.predict.gradient_descent_mse(k_train, y, learning_rate)
    flow = GradientFlow.fit(k_train, y)
    for steps in (0, 1, 20, 1000):
        time = time_of_steps(steps, learning_rate, loss="half_mse", n_outputs=3)
        expected = predict_fn(float(steps), None, 0.0, k_test)
        np.testing.assert_allclose(flow.predict(k_test, time), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_steps_and_times_are_each_others_inverse(loss):
    times = np.array([0.0, 0.3, 1e5, math.inf])
    steps = steps_of_time(times, 0.01, loss=loss, n_outputs=10)
    back = time_of_steps(steps, 0.01, loss=loss, n_outputs=10)
    np.testing.assert_allclose(back, times, rtol=1e-14)
    assert isinstance(steps_of_time(1, 0.01, loss=loss), float)


def test_bad_arguments_are_refused():
    for steps, message in ((-1, "≥ 0, got -1"), (math.nan, "not be NaN, got")):
        with pytest.raises(ValueError, match=f"steps must .*{message}"):
            time_of_steps(steps, 0.1, loss="mse")
    with pytest.raises(TypeError, match="steps must hold real numbers"):
        time_of_steps("1", 0.1, loss="mse")
