import jax.numpy as jnp
import numpy as np
import pytest

from nt_residual.rntk.arccos import arccos

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
