"""The residual connection for networks of one's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nt_residual import schedules
from nt_residual.finite_width.residual import scaled_residual


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


def test_alpha_can_be_learned_or_traced_and_its_derivative_taken():
    x = jnp.ones(3)
    learned = scaled_residual(x, jnp.exp, nnx.Param(jnp.array(-0.5)))
    np.testing.assert_allclose(learned, x - 0.5 * jnp.exp(x), rtol=1e-6)
    connect = functools.partial(scaled_residual, x, jnp.exp, normalize_blocks=True)
    slope = jax.jit(jax.grad(lambda alpha: jnp.sum(connect(alpha))))(0.5)
    # d/dα (1 + α e) / √(1 + α²) = (e − α) / (1 + α²)^(3/2)
    np.testing.assert_allclose(slope, 3 * (np.e - 0.5) / 1.25**1.5, rtol=1e-5)


X = jnp.ones((2, 3))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        *[((X, jnp.sin, a), ValueError, "alpha must be finite and ≥ 0") for a in (-0.1, np.inf)],
        *[
            ((X, jnp.sin, a), TypeError, "alpha must be a real number")
            for a in (np.ones(3), "0.5", True, 1j)
        ],
        # It could be broadcast, which would hide the mistake.
        ((X, lambda x: x[:, :1], 0.5), ValueError, r"\(2, 3\), got \(2, 1\).*projection"),
        ((X, X, 0.5), TypeError, "branch must be a function"),
        ((jnp.arange(2), jnp.sin, 0.5), TypeError, "x must hold real floats, got dtype int32"),
    ],
)
def test_invalid_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        scaled_residual(*arguments)
