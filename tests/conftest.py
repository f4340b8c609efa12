import jax.numpy as jnp
import pytest
from helpers import enable_x64

import nt_residual  # noqa: F401  From here on test modules can import neural_tangents.


@pytest.fixture
def x64():
    """Runs a test with float64 enabled in JAX."""
    with enable_x64():
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Runs a test in float32, and in float64 with x64 enabled."""
    with enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)
