import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import full

import nt_residual
from nt_residual import rntk, schedules

# isort: split

from neural_tangents import stax

Dense = stax.Dense


def _residual(relu, depth, layers=1):
    inner = [layer for _ in range(layers) for layer in (Dense(1, W_std=2**0.5), relu)]
    alphas = schedules.PowerLaw(0.5)(depth)
    branch = stax.serial(*inner, Dense(1))
    stack = nt_residual.stax.ResidualStack(branch, alphas, normalize_blocks=True)
    return stax.serial(Dense(1), stack, Dense(1))


MANY = "residual, two leaky layers a block"
NETWORKS = {
    "plain": stax.serial(Dense(1), stax.Relu(), Dense(1, W_std=1.5)),
    "leaky": stax.serial(*[Dense(1), stax.LeakyRelu(0.1)] * 4, Dense(1)),
    "absolute value": stax.serial(Dense(1), stax.Abs(), Dense(1)),
    "square": stax.serial(Dense(1), stax.Monomial(2), Dense(1)),
    "residual": _residual(nt_residual.stax.Relu(), 100),
    MANY: _residual(nt_residual.stax.ABRelu(0.1, 1.0), 20, 2),
}
NOT_HOMOGENEOUS = {
    "bias": stax.serial(Dense(1, b_std=0.1), stax.Relu(), Dense(1)),
    "Erf": stax.serial(Dense(1), stax.Erf(), Dense(1)),
}


def _inputs(dim=7, n=12):
    x = np.random.default_rng(0).standard_normal((n, dim))
    x[1] = x[0] * 2 + 1e-4
    x[2] = -x[3]
    return x


@pytest.fixture(scope="module")
def compiled():
    """Kernels by network and kind, each compiled once."""
    cache = {}

    def get(name, kind):
        if (name, kind) not in cache:
            cache[name, kind] = rntk.compile_homogeneous(NETWORKS[name][2], get=kind)
        return cache[name, kind]

    return get


@pytest.mark.parametrize("kind", ["ntk", *full("nngp")])
@pytest.mark.parametrize(
    "name", ["square", "residual", *full("plain", "leaky", "absolute value", MANY)]
)
def test_the_kernel_is_that_of_the_network(name, kind, compiled, x64):
    kernel, x = compiled(name, kind), _inputs()
    expected = np.asarray(NETWORKS[name][2](x, x[:5], kind))
    deviations = np.sqrt(np.diag(NETWORKS[name][2](x, None, kind)))
    scale = np.outer(deviations, deviations[:5])
    assert np.max(np.abs(kernel(x, x[:5]) - expected) / scale) < 1e-7
    single = kernel(x.astype(np.float32), x[:5].astype(np.float32))
    assert single.dtype == np.float32
    assert np.max(np.abs(single - expected) / scale) < kernel.error_bound
    assert kernel.degree == (2 if name == "square" else 1)
    symmetric = np.asarray(kernel(x))
    np.testing.assert_array_equal(symmetric, symmetric.T)
    np.testing.assert_allclose(np.diag(symmetric), deviations**2, rtol=1e-7)


def test_it_agrees_with_the_residual_kernel(compiled):
    kernel = compiled("residual", "ntk")
    ours = rntk.ResidualKernel(100, schedules.PowerLaw(0.5), trained="all")
    theta = np.linspace(0, np.pi, 20)
    np.testing.assert_allclose(kernel.at_angle(theta), ours.at_angle(theta), atol=1e-7)


def test_a_smaller_tolerance_takes_more_coefficients(compiled):
    coarse = rntk.compile_homogeneous(NETWORKS["plain"][2], tol=1e-3)
    fine = compiled("plain", "ntk")
    assert len(coarse.fit.coefficients) < len(fine.fit.coefficients)
    assert fine.fit.error < 1e-7


def test_the_kernel_passes_through_jit_and_has_a_gradient(compiled):
    kernel, x = compiled("plain", "ntk"), jnp.asarray(_inputs(), jnp.float32)
    jitted = jax.jit(lambda kernel, x: kernel(x))(kernel, x)
    np.testing.assert_allclose(jitted, kernel(x), rtol=1e-6)
    assert np.all(np.isfinite(jax.grad(lambda x: kernel(x).sum())(x)))


@pytest.mark.parametrize("name", NOT_HOMOGENEOUS)
def test_a_network_that_is_not_homogeneous_is_refused_but_for_inputs_of_one_norm(name, x64):
    kernel_fn = NOT_HOMOGENEOUS[name][2]
    with pytest.raises(ValueError, match=r"is not .* it is off by .* Biases .* pass norm="):
        rntk.compile_homogeneous(kernel_fn)
    kernel = rntk.compile_homogeneous(kernel_fn, norm=2.0, dim=7)
    x = _inputs()
    with pytest.raises(ValueError, match=r"x1 must have rows of norm 2.0.*Normalize them"):
        kernel(x)
    x = 2 * x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = np.asarray(kernel_fn(x, None, "ntk"))
    np.testing.assert_allclose(kernel(x), expected, rtol=0, atol=1e-7 * expected[0, 0])
    with pytest.raises(ValueError, match=r"x2 must have the 7 features .* dim=6"):
        rntk.compile_homogeneous(kernel_fn, norm=2.0, dim=7)._check_shape_and_norm(
            jnp.ones((2, 6)), "x2"
        )


def test_what_is_no_kernel_of_a_fully_connected_network_is_refused():
    with pytest.raises(ValueError, match="norm needs dim"):
        rntk.compile_homogeneous(NETWORKS["plain"][2], norm=1.0)
    convolutional = stax.serial(stax.Conv(1, (3,)), stax.Flatten(), Dense(1))[2]
    with pytest.raises(ValueError, match="Pass the kernel_fn of a fully-connected network"):
        rntk.compile_homogeneous(convolutional)
    with pytest.raises(ValueError, match=r"must return real floats of shape \(1, 1\)"):
        rntk.compile_homogeneous(lambda x1, x2, get: jnp.zeros(3))

    def weighted(x1, x2, get):
        return x1 * jnp.arange(1, x1.shape[1] + 1) @ x2.T

    with pytest.raises(ValueError, match=r"is not \(\|x\| \|x'\|\)\^1 times a function"):
        rntk.compile_homogeneous(weighted)
    with pytest.raises(ValueError, match="must be finite, got NaN or infinity"):
        rntk.compile_homogeneous(lambda x1, x2, get: x1 @ x2.T * jnp.inf)
    with pytest.raises(ValueError, match="must be positive between an input and itself"):
        rntk.compile_homogeneous(lambda x1, x2, get: -x1 @ x2.T)

    def kinked(x1, x2, get):
        norms = jnp.linalg.norm(x1, axis=1)[:, None] * jnp.linalg.norm(x2, axis=1)
        return norms * (1 + jnp.abs(x1 @ x2.T / norms - 0.5))

    with pytest.raises(ValueError, match=r"no series of up to 1024 coefficients reaches tol=1e-07"):
        rntk.compile_homogeneous(kinked)
