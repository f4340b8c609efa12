import os
import pathlib

_CACHE = pathlib.Path(__file__).parent.parent / ".pytest_cache" / "programs"
# Both before JAX is imported. Most of the time goes into compiling: workers, and later runs, load
# what one has compiled.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# These put the path of the cache into its keys, so that no other clone could use it.
os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

# isort: split

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
