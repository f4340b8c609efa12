"""The device and the versions of packages, to label results with."""

import importlib.metadata
import pathlib
import platform

import jax

try:
    import resource
except ImportError:  # Windows.
    resource = None

_PACKAGES = (
    "nt-residual",
    "jax",
    "jaxlib",
    "neural-tangents",
    "flax",
    "optax",
    "tensorstore",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
)


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of its dependencies."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def device_name() -> str:
    """Return the kind of the first device; for a CPU its model and number of threads."""
    device = jax.devices()[0]
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if device.platform != "cpu" or not cpuinfo.exists():
        return device.device_kind
    models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else platform.processor()
    return f"{name}, {len(models)} threads"


def devices() -> str:
    """Return the number of devices, their kind and their platform."""
    return f"{jax.device_count()} × {device_name()} ({jax.default_backend()})"


def peak_bytes() -> int | None:
    """Return the most memory that this process has taken at a time, in bytes, if it is known."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else 1024 * peak
