"""`neural_tangents.predict` under the transformations of JAX."""

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
from neural_tangents import stax
from nt_networks import VECTORS, array


def test_a_predictor_may_be_made_and_called_under_vmap_and_jit(x64):
    x_train, x_test, y = map(jnp.asarray, (*VECTORS, array(4, 2, seed=0.4)))
    _, _, kernel_fn = stax.serial(stax.Dense(1, 1.3, 0.2), stax.Erf(), stax.Dense(1))
    k, k_test = kernel_fn(x_train, None, "ntk"), kernel_fn(x_test, x_train, "ntk")

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
