import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import finite_difference, full, mainly
from jax import random
from neural_tangents import Kernel
from neural_tangents import stax as nt_stax

from nt_residual import stax

SLOPES = [(0, 1), (-0.5, 0.7)]
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


def _kernel(nngp, cov1, cov2):
    """Return the kernel after a dense layer, with the given covariances and an NTK of one."""
    n1, n2 = nngp.shape
    _, _, kernel_fn = nt_stax.Dense(8)
    k = kernel_fn(jnp.ones((n1, 3), nngp.dtype), 2 * jnp.ones((n2, 3), nngp.dtype))
    return k.replace(nngp=nngp, cov1=cov1, cov2=cov2, ntk=jnp.ones_like(nngp))


def _exact(nngp, cov1, cov2, a, b):
    """The same in extended precision, in which products of floats are exact to 2⁻⁶⁴."""
    k, q1, q2 = (np.asarray(c, np.longdouble) for c in (nngp, cov1[:, None], cov2[None, :]))
    root = np.sqrt(np.maximum(q1 * q2 - k * k, 0))
    angle = np.arctan2(root, k)
    weight = np.longdouble(a - b) ** 2 / (2 * np.arctan2(np.longdouble(0), np.longdouble(-1)))
    mean_square = np.longdouble(a**2 + b**2) / 2
    return mean_square * k + weight * (root - angle * k), mean_square - weight * angle


@pytest.mark.parametrize(("a", "b"), SLOPES)
@pytest.mark.parametrize(
    ("scale", "compiled"), [(1.0, False), (1.0, True), (1e-15, True), (1e15, True)]
)
def test_it_is_exact_for_the_covariances_it_is_given(a, b, scale, compiled, dtype):
    rng = np.random.default_rng(0)
    angles = np.concatenate([[0, 1e-7, 3.14159], np.geomspace(1e-5, 3.1, 97)])
    cov1, cov2 = (scale * rng.uniform(0.2, 5, n).astype(dtype) for n in (100, 10))
    deviations = np.sqrt(cov1.astype(float)[:, None] * cov2)
    nngp = (deviations * np.cos(angles)[:, None]).astype(dtype)
    _, _, kernel_fn = stax.ABRelu(a, b)
    kernel_fn = jax.jit(kernel_fn) if compiled else kernel_fn
    k = kernel_fn(_kernel(*map(jnp.asarray, (nngp, cov1, cov2))))
    covariance, slope = _exact(nngp, cov1, cov2, a, b)
    tolerance = TOLERANCE[dtype.name]
    if dtype == jnp.float64:
        # Extended precision knows products of doubles to 2⁻⁶⁴ only, and so small angles to 2⁻³².
        nearly_parallel = np.minimum(angles, np.pi - angles)[:, None] < 1e-4
        slope, got_slope = (np.where(nearly_parallel, 0, s) for s in (slope, k.ntk))
    else:
        got_slope = k.ntk
    np.testing.assert_allclose(k.nngp / deviations, covariance / deviations, atol=tolerance)
    np.testing.assert_allclose(got_slope, slope, atol=tolerance)


@mainly("float32")
@pytest.mark.parametrize("spatial", [(), *full((3,), (3, 2))], ids=str)
def test_the_diagonal_is_exact_in_deep_networks(spatial, dtype):
    # neural-tangents' own ReLU is off by 1e-4 in float32.
    x = random.normal(random.PRNGKey(0), (6, *spatial, 10), dtype)
    layers = [nt_stax.Dense(8, W_std=2**0.5), stax.Relu()] * 20
    k = nt_stax.serial(*layers, nt_stax.Dense(1))[2](x)
    axes = "".join("abc"[: len(spatial)])
    pick = f"ii{''.join(2 * axis for axis in axes)}->i{axes}"
    variance = np.einsum(pick, k.nngp)
    np.testing.assert_allclose(variance, np.mean(np.square(x), -1), rtol=20 * TOLERANCE[dtype.name])
    expected = 21 * variance
    np.testing.assert_allclose(np.einsum(pick, k.ntk), expected, rtol=TOLERANCE[dtype.name])


@pytest.mark.parametrize("get", [*full("nngp"), "ntk"])
@pytest.mark.parametrize("entry", [(0, 0), (0, 1), *full((0, 2)), (0, 3)])
def test_kernels_are_differentiable_everywhere(get, entry, x64):
    x = jnp.array([[1.0, 0.0, 0.5], [0.3, 1.0, -0.2], [2.0, 0.0, 1.0], [-1.0, 0.0, -0.5]])

    def kernel(W_std):
        layers = [nt_stax.Dense(8, W_std, b_std=0.3), stax.ABRelu(0.1, 1.0), nt_stax.Dense(8)]
        return nt_stax.serial(*layers)[2](x, None, get)[entry]

    derivative = jax.grad(kernel)(1.3)
    np.testing.assert_allclose(derivative, finite_difference(kernel, 1.3), rtol=1e-6)


def test_derivatives_in_the_inputs_are_finite(x64):
    x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    _, _, kernel_fn = nt_stax.serial(nt_stax.Dense(8), stax.Relu(), nt_stax.Dense(8))
    for get in ("nngp", "ntk"):
        gradient = jax.grad(lambda x, get=get: jnp.sum(kernel_fn(x, x + 0.0, get)))(x)
        assert np.all(np.isfinite(gradient))


def test_inputs_that_are_zero_have_a_kernel_of_zero():
    x = jnp.array([[0.0, 0.0], [1.0, 2.0]])
    k = nt_stax.serial(nt_stax.Dense(8), stax.Relu(), nt_stax.Dense(8))[2](x)
    assert isinstance(k, Kernel)
    np.testing.assert_array_equal(k.nngp[0], 0)
    np.testing.assert_array_equal(k.ntk[0], 0)


@pytest.mark.parametrize("slope", [np.nan, np.inf, True, "1", None, 1j, [0.5, 1.0]])
@pytest.mark.parametrize("name", ["a", "b"])
def test_slopes_that_are_not_finite_real_numbers_are_refused(name, slope):
    error = ValueError if isinstance(slope, float) else TypeError
    with pytest.raises(error, match=f"{name} must be a (number and finite|real number), got"):
        stax.ABRelu(**{"a": 0.1, "b": 1.0, name: slope})


def test_an_input_that_is_not_gaussian_is_refused():
    with pytest.raises(ValueError, match="must be Gaussian"):
        stax.Relu()[2](jnp.ones((2, 3)))


def test_rows_and_columns_of_a_kernel_may_differ_where_inputs_do_not(x64):
    # Each of two equal batches has its own graph.
    x = random.normal(random.PRNGKey(0), (3, 5, 4))
    patterns = [
        (random.uniform(random.PRNGKey(i), (3, 5, 5)) < 0.5).astype(float) + jnp.eye(5)
        for i in range(2)
    ]
    kernels = []
    for relu in (stax.Relu(), nt_stax.Relu()):
        aggregate = nt_stax.Aggregate(aggregate_axis=1, batch_axis=0, channel_axis=-1)
        layers = [nt_stax.Dense(8), aggregate, relu, nt_stax.Dense(8), nt_stax.GlobalAvgPool()]
        kernels.append(nt_stax.serial(*layers)[2](x, x, ("nngp", "ntk"), pattern=tuple(patterns)))
    for ours, theirs in zip(*kernels, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7)


def test_compiled_derivatives_in_float32_are_finite_between_opposite_inputs():
    def entry(W_std, x):
        net = nt_stax.serial(nt_stax.Dense(8, W_std), stax.Relu(), nt_stax.Dense(1))
        return net[2](x, -x, "ntk")[0, 0]

    derivative = jax.jit(jax.vmap(jax.grad(entry), (None, 0)))
    x = random.normal(random.PRNGKey(0), (200, 1, 10))
    # An angle that is off by the root of machine epsilon has such a derivative.
    np.testing.assert_allclose(derivative(1.4, x), 0, atol=1e-3)


def test_second_derivatives_are_those_of_the_kernel(x64):
    x = random.normal(random.PRNGKey(0), (3, 4)).at[2].set(0)
    alphas = jnp.array([0.5, 0.8])

    def total(alphas):
        branch = nt_stax.serial(nt_stax.Dense(8), stax.Relu(), nt_stax.Dense(8))
        net = nt_stax.serial(nt_stax.Dense(8), stax.ResidualStack(branch, alphas), nt_stax.Dense(1))
        return jnp.sum(net[2](x, None, "ntk"))

    hessian = jax.jit(jax.hessian(total))(alphas)
    reverse = jax.jit(jax.jacrev(jax.jacrev(total)))(alphas)
    np.testing.assert_allclose(reverse, hessian, rtol=1e-10)
    gradient = jax.jit(jax.grad(total))
    for i in range(2):
        row = finite_difference(lambda a, i=i: gradient(alphas.at[i].set(a)), alphas[i])
        np.testing.assert_allclose(hessian[i], row, rtol=1e-6)
