import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import finite_difference

from nt_residual import rntk, schedules

ALPHAS = [0.3, 1.0, 0.0, 0.7]


def _inputs(n=4, dim=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim))


@pytest.mark.parametrize(
    ("kind", "trained", "normalize"),
    [("ntk", "all", False), ("ntk", "blocks", True), ("nngp", "all", True)],
)
def test_it_equals_the_compiled_kernel(kind, trained, normalize, dtype):
    options = {"kind": kind, "trained": trained, "normalize": normalize}
    kernel = rntk.ResidualKernel(4, schedules.Explicit(ALPHAS), **options)
    x = jnp.asarray(_inputs(), dtype)
    tol = {"float32": 3e-6, "float64": 1e-10}[dtype.name]
    for x2 in (None, x[:2]):
        got = rntk.recursive_kernel(x, x2, schedule=ALPHAS, **options)
        assert got.dtype == dtype
        expected = np.asarray(kernel(x, x2))
        np.testing.assert_allclose(got, expected, rtol=0, atol=tol * np.max(np.abs(expected)))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_a_thousand_blocks_in_float32_are_as_accurate_as_one(gamma):
    alphas = schedules.PowerLaw(gamma)(1000)
    kernel = rntk.ResidualKernel(1000, schedules.PowerLaw(gamma))
    theta = np.linspace(0, np.pi, 50).astype(np.float32)
    expected = kernel.at_angle(np.minimum(theta.astype(float), np.pi))
    got = rntk.block_sums(jnp.asarray(theta), jnp.asarray(alphas, jnp.float32)).blocks
    assert np.max(np.abs(got - expected)) < 2e-6


def test_derivatives_in_alpha_agree_with_finite_differences(x64):
    # Ten blocks are in segments of two by two, of which the last is filled up.
    x, direction = _inputs(), jnp.linspace(-1.0, 2.0, 10)

    def total(t):
        alphas = jnp.linspace(1.2, 0.3, 10) + t * direction
        return jnp.sum(rntk.recursive_kernel(x, schedule=alphas, trained="all") ** 2)

    derivative = jax.grad(total)(0.0)
    np.testing.assert_allclose(derivative, finite_difference(total, 0.0), rtol=1e-8)


def test_the_gradient_in_alpha_keeps_few_blocks():
    depth, n = 216, 32

    def total(alphas):
        x = np.random.default_rng(0).standard_normal((n, 3), np.float32)
        return rntk.recursive_kernel(x, schedule=alphas).sum()

    alphas = jax.ShapeDtypeStruct((depth,), np.float32)
    memory = jax.jit(jax.grad(total)).lower(alphas).compile().memory_analysis()
    # A block and entry took 95 bytes when all were kept.
    assert memory.temp_size_in_bytes < 0.2 * 95 * depth * n**2


def test_block_sums_refuse_what_are_no_angles_and_alphas():
    with pytest.raises(ValueError, match="theta must hold angles in radians"):
        rntk.block_sums([4.0], [1.0])
    with pytest.raises(TypeError, match="theta must hold real numbers"):
        rntk.block_sums(np.array(["a"]), [1.0])
    with pytest.raises(ValueError, match="schedule must hold finite"):
        rntk.block_sums([1.0], [np.nan])
