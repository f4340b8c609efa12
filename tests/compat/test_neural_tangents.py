"""A first look at whether neural-tangents works, not only imports."""

import jax
import neural_tangents as nt
import numpy as np
from jax import random
from neural_tangents import stax


def _network(width):
    return stax.serial(stax.Dense(width, W_std=2**0.5), stax.Relu(), stax.Dense(1))


def test_the_closed_form_kernel_of_a_dense_network_is_the_arc_cosine_kernel(x64):
    x = np.array([[1.0, 0.0], [0.6, 0.8]])
    _, _, kernel_fn = _network(1)
    theta = np.arccos(0.6)
    expected = (0.6 * (np.pi - theta) + np.sin(theta)) / np.pi / 2
    np.testing.assert_allclose(kernel_fn(x, None, "nngp")[0, 1], expected, rtol=1e-12)


def test_monte_carlo_and_empirical_kernels_approach_the_closed_form():
    x = random.normal(random.PRNGKey(0), (3, 4))
    init_fn, apply_fn, kernel_fn = _network(2048)
    sampled = nt.monte_carlo_kernel_fn(init_fn, apply_fn, random.PRNGKey(1), 16, vmap_axes=0)
    expected = kernel_fn(x, None, "ntk")
    np.testing.assert_allclose(sampled(x, None, "ntk"), expected, atol=0.05)


def test_predict_interpolates_at_infinite_time():
    x = random.normal(random.PRNGKey(0), (5, 4))
    y = random.normal(random.PRNGKey(1), (5, 1))
    _, _, kernel_fn = _network(1)
    predict_fn = nt.predict.gradient_descent_mse(kernel_fn(x, None, "ntk"), y)
    predicted = predict_fn(None, None, 0.0, kernel_fn(x, None, "ntk"))
    np.testing.assert_allclose(predicted, y, atol=1e-3)


def test_the_kernel_can_be_jitted_and_batched():
    x = random.normal(random.PRNGKey(0), (4, 4))
    _, _, kernel_fn = _network(1)
    expected = kernel_fn(x, None, "ntk")
    jitted = jax.jit(kernel_fn, static_argnums=2)
    np.testing.assert_allclose(jitted(x, x, "ntk"), expected, rtol=1e-4)
    batched = nt.batch(kernel_fn, batch_size=2, device_count=0)
    np.testing.assert_allclose(batched(x, None, "ntk"), expected, rtol=1e-4)
