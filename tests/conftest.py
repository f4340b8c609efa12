import pathlib

import jax
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
    """Runs a test in float32, and in float64 with x64 enabled; see also `helpers.mainly`."""
    with enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Lets go of compiled programs before there are too many.

    Each takes some of the memory maps of which Linux gives a process 65530. When none is left
    XLA crashes, and all tests together compile more than that.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
