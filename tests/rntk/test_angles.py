import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nt_residual.rntk.angles import angle, arccos

ERROR = {"float32": 4e-7, "float64": 3e-14}


def test_it_is_the_arccosine(dtype):
    u = np.cos(np.linspace(0, np.pi, 20001)).astype(dtype)
    expected = np.arccos(u.astype(np.float64))
    got = arccos(jnp.asarray(u))
    assert got.dtype == dtype
    assert np.max(np.abs(np.asarray(got, np.float64) - expected)) < ERROR[dtype.name]


@pytest.mark.parametrize(("u", "expected"), [(1.0, 0), (-1.0, np.pi), (1.001, 0), (-2.0, np.pi)])
def test_cosines_that_rounding_took_beyond_one_are_taken_back(u, expected, dtype):
    np.testing.assert_allclose(arccos(jnp.asarray(u, dtype)), expected, rtol=1e-7)


@pytest.mark.parametrize("theta", [1e-6, 1e-2, 1.0, np.pi - 1e-2, np.pi - 1e-4])
def test_angles_keep_their_accuracy_between_nearly_parallel_inputs(theta, dtype):
    x1 = jnp.array([[2.0, 0.0]], dtype)
    x2 = jnp.array([[math.cos(theta), math.sin(theta)]], dtype)
    got = float(angle(x1, x2)[0, 0])
    assert abs(got - theta) < 8 * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize("theta", [0.0, 1e-4, 1e-2, 1.0, np.pi - 1e-2])
def test_derivatives_keep_their_accuracy_between_nearly_parallel_inputs(theta, dtype):
    x1 = jnp.array([[2.0, 0.0]], dtype)
    x2 = jnp.array([[math.cos(theta), math.sin(theta)]], dtype)
    got = jax.jacobian(lambda *x: angle(*x)[0, 0], argnums=(0, 1))(x1, x2)
    expected = np.array([[0, -0.5], [-math.sin(theta), math.cos(theta)]]) * (theta > 0)
    tol = 8 * float(jnp.finfo(dtype).eps) / max(min(theta, np.pi - theta), 1e-6)
    np.testing.assert_allclose(np.concatenate(got), expected, rtol=0, atol=tol)
