import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from helpers import finite_difference
from jax import random
from neural_tangents import stax as nt_stax

from nt_residual import stax


@pytest.fixture
def x(dtype):
    return random.normal(random.PRNGKey(0), (4, 3), dtype)


@pytest.mark.parametrize("alpha", [0.5, -2.0, 0, np.float32(0.5), jnp.asarray(0.5)])
def test_scale_multiplies_outputs_by_alpha_and_kernels_by_its_square(alpha, x):
    dense = nt_stax.Dense(5)
    init_fn, apply_fn, kernel_fn = nt_stax.serial(dense, stax.Scale(alpha))
    _, params = init_fn(random.PRNGKey(0), x.shape)
    np.testing.assert_allclose(apply_fn(params, x), alpha * dense[1](params[0], x), rtol=1e-6)
    k, expected = kernel_fn(x, x[:2]), dense[2](x, x[:2])
    for name in ("nngp", "ntk", "cov1", "cov2"):
        np.testing.assert_allclose(getattr(k, name), alpha**2 * getattr(expected, name), rtol=1e-6)


def _network(alpha):
    return nt_stax.serial(nt_stax.Dense(5), stax.Scale(alpha), nt_stax.Erf(), nt_stax.Dense(1))


@pytest.mark.parametrize("get", ["nngp", "ntk"])
def test_kernels_are_differentiable_in_alpha(get, x64):
    x = random.normal(random.PRNGKey(0), (2, 3))

    def entry(alpha):
        return _network(alpha)[2](x, None, get)[0, 1]

    derivative = jax.grad(entry)(0.7)
    np.testing.assert_allclose(derivative, finite_difference(entry, 0.7), rtol=1e-7)


def test_alpha_may_be_given_with_each_call(x):
    init_fn, apply_fn, kernel_fn = _network("strength")
    _, params = init_fn(random.PRNGKey(0), x.shape)
    for alpha in (0.3, 1.5):
        _, expected_apply_fn, expected_kernel_fn = _network(alpha)
        expected = expected_kernel_fn(x, None, "ntk")
        for fn in (kernel_fn, nt.batch(kernel_fn, 2, device_count=0)):
            np.testing.assert_allclose(fn(x, None, "ntk", strength=alpha), expected, rtol=1e-5)
        outputs = apply_fn(params, x, strength=alpha)
        np.testing.assert_allclose(outputs, expected_apply_fn(params, x), rtol=1e-5)


def test_an_alpha_that_was_not_given_is_asked_for(x):
    init_fn, apply_fn, kernel_fn = _network("strength")
    _, params = init_fn(random.PRNGKey(0), x.shape)
    for call in (lambda: kernel_fn(x), lambda: apply_fn(params, x)):
        with pytest.raises(TypeError, match=r"`strength`, which was not given.*strength=0.5"):
            call()


def test_a_traced_alpha_does_not_widen_what_it_multiplies(x64):
    _, apply_fn, _ = stax.Scale("alpha")
    scaled = jax.jit(lambda alpha, x: apply_fn((), x, alpha=alpha))
    for dtype in ("bfloat16", "float32", "float64"):
        outputs = scaled(jnp.asarray(0.5, "float64"), jnp.ones((2, 3), dtype))
        assert outputs.dtype == dtype


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), np.float32("inf"), jnp.nan])
def test_an_alpha_that_is_not_finite_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be a number and finite, got"):
        stax.Scale(alpha)
    with pytest.raises(ValueError, match="alpha must be a number and finite, got"):
        _network("strength")[2](jnp.ones((2, 3)), strength=alpha)


@pytest.mark.parametrize("alpha", ["0.5", "rng", "get", [1.0, 2.0], np.ones(1), None, 1j, True])
def test_an_alpha_that_is_no_real_scalar_is_refused(alpha):
    with pytest.raises(TypeError, match=r"alpha must be a real number.* got"):
        stax.Scale(alpha)


def test_a_traced_alpha_that_is_no_scalar_is_refused():
    with pytest.raises(TypeError, match="alpha must be a real number, got"):
        jax.jit(lambda alpha: stax.Scale(alpha)[1]((), alpha))(jnp.ones(2))
