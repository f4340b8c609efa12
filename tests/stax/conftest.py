import jax.numpy as jnp
import pytest
from helpers import enable_x64, full
from jax import random


@pytest.fixture(params=["float32", *full("float64")])
def dtype(request):
    """Runs a test in float32, where it is hard to be exact; in float64 if all are run.

    Laws are checked in float64 in any case, against other networks of the same function.
    """
    with enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


@pytest.fixture
def x1(dtype):
    """Four vectors."""
    return random.normal(random.PRNGKey(0), (4, 3), dtype)


@pytest.fixture
def x2(dtype):
    """Two others."""
    return random.normal(random.PRNGKey(1), (2, 3), dtype)
