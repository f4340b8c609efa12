"""The residual connection for networks of one's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from nt_residual import schedules
from nt_residual.finite_width.residual import scaled_residual

DEPTH = 3


class Block(nnx.Module):
    def __init__(self, alpha, *, rngs):
        self.alpha = alpha
        self.linear = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        return scaled_residual(x, self.linear, self.alpha)


class ResNet(linen.Module):
    normalize_blocks: bool = False

    def setup(self):
        self.layers = [linen.Dense(4) for _ in range(DEPTH)]

    def __call__(self, x):
        alphas = schedules.PowerLaw(0.5)(DEPTH)
        for layer, alpha in zip(self.layers, alphas, strict=True):
            x = scaled_residual(x, layer, alpha, normalize_blocks=self.normalize_blocks)
        return x


def test_it_is_the_formula_and_keeps_the_dtype(dtype):
    x = jnp.linspace(-1, 1, 5, dtype=dtype)
    # float64, which must not make a float32 network one of float64.
    alpha = schedules.PowerLaw(0.5)(2)[0]
    out = scaled_residual(x, jnp.sin, alpha)
    rounding = 1e-6 if dtype == "float32" else 1e-15
    np.testing.assert_allclose(out, x + np.sqrt(0.5) * np.sin(x), atol=rounding)
    assert out.dtype == dtype
    normalized = scaled_residual(x, jnp.sin, alpha, normalize_blocks=True)
    np.testing.assert_allclose(normalized, out / np.sqrt(1.5), atol=rounding)
    assert normalized.dtype == dtype


def test_half_precision_rounds_once():
    x = jnp.ones(3, jnp.bfloat16)
    assert scaled_residual(x, jnp.square, 0.5).dtype == jnp.bfloat16
    # Rounded after each operation it would be 1.0625.
    out = scaled_residual(x, lambda x: x, 0.06, normalize_blocks=True)
    np.testing.assert_array_equal(out, jnp.asarray(1.06 / np.sqrt(1 + 0.06**2), jnp.bfloat16))


@pytest.mark.parametrize("normalize_blocks", [False, True])
def test_a_linen_network_can_use_it(normalize_blocks):
    x = jnp.ones((2, 4))
    out, variables = jax.jit(ResNet(normalize_blocks).init_with_output)(jax.random.key(0), x)
    expected = np.asarray(x)
    for i in range(DEPTH):
        layer = variables["params"][f"layers_{i}"]
        expected = expected + (expected @ layer["kernel"] + layer["bias"]) / np.sqrt(DEPTH)
        expected = expected / np.sqrt(1 + 1 / DEPTH if normalize_blocks else 1)
    np.testing.assert_allclose(out, expected, rtol=1e-5)


def test_alpha_can_be_learned_and_change_its_sign():
    block = Block(nnx.Param(jnp.array(-0.5)), rngs=nnx.Rngs(0))
    x = jnp.ones((1, 4))
    gradient = nnx.jit(nnx.grad(lambda block: jnp.sum(block(x))))(block)
    np.testing.assert_allclose(gradient["alpha"][...], jnp.sum(block.linear(x)), rtol=1e-5)
    np.testing.assert_allclose(block(x), x - 0.5 * block.linear(x), rtol=1e-6)


def test_alpha_can_be_traced_and_its_derivative_taken():
    x = jnp.ones(3)
    connect = functools.partial(scaled_residual, x, jnp.exp, normalize_blocks=True)
    slope = jax.jit(jax.grad(lambda alpha: jnp.sum(connect(alpha))))(0.5)
    # d/dα (1 + α e) / √(1 + α²) = (e − α) / (1 + α²)^(3/2)
    np.testing.assert_allclose(slope, 3 * (np.e - 0.5) / 1.25**1.5, rtol=1e-5)


@pytest.mark.parametrize("alpha", [-0.1, np.nan, np.inf, jnp.array(-1.0)])
def test_it_refuses_an_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match="alpha must be finite and ≥ 0"):
        scaled_residual(jnp.ones(2), jnp.sin, alpha)


@pytest.mark.parametrize("alpha", [schedules.PowerLaw(0.5)(3), "0.5", True, 1j, None])
def test_it_refuses_an_alpha_of_another_type(alpha):
    with pytest.raises(TypeError, match="alpha must be a real number"):
        scaled_residual(jnp.ones(2), jnp.sin, alpha)


def test_it_refuses_a_branch_that_changes_the_shape():
    # It could be broadcast, which would hide the mistake.
    with pytest.raises(ValueError, match=r"\(2, 3\), got \(2, 1\).*projection on the shortcut"):
        scaled_residual(jnp.ones((2, 3)), lambda x: x[:, :1], 0.5)


def test_it_refuses_outputs_for_branches_and_integers_for_inputs():
    x = jnp.ones(2)
    with pytest.raises(TypeError, match="branch must be a function"):
        scaled_residual(x, jnp.sin(x), 0.5)
    with pytest.raises(TypeError, match="x must hold floats, got dtype int32"):
        scaled_residual(jnp.arange(2), jnp.sin, 0.5)
