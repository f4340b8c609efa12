"""What every benchmark says of the machine it ran on, and how it times and stores."""

import importlib.metadata
import json
import pathlib
import platform
import time

import jax
import jax.numpy as jnp


def device_name():
    """The accelerator, or the processor where there is none."""
    device = jax.devices()[0]
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if device.platform != "cpu" or not cpuinfo.exists():
        return device.device_kind
    models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else platform.processor()
    return f"{name}, {len(models)} threads"


def machine():
    """The device, the versions of what is compared, and the default dtype."""
    packages = ("jax", "neural-tangents", "nt-residual")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"device": device_name(), "versions": versions, "dtype": str(jnp.zeros(()).dtype)}


def compile_timed(fn, *arguments):
    """Returns the compiled function, and the seconds it took to trace and compile it."""
    start = time.perf_counter()
    compiled = jax.jit(fn).lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def best_time(compiled, *arguments, repeats=5):
    """Seconds of the fastest of several calls of a function that has been called before."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)


def write(result, path):
    """Writes a result as JSON, if there is a path for it."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
