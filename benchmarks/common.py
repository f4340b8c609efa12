"""What every benchmark says of the machine it ran on, and how it times and stores."""

import importlib.metadata
import json
import math
import time

import jax
import jax.numpy as jnp

from nt_residual import _files
from nt_residual.machine import device_name


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


def run_times(compiled, *arguments, repeats=5, seconds=math.inf):
    """Seconds of each of several calls; of three, if they take longer than `seconds` in all."""
    times = []
    while len(times) < repeats and (len(times) < 3 or sum(times) < seconds):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - start)
    return times


def best_time(compiled, *arguments, repeats=5):
    """Seconds of the fastest of several calls of a function that has been called before."""
    return min(run_times(compiled, *arguments, repeats=repeats))


def copy_bandwidth(size=2**26):
    """Bytes per second that a copy of an array of so many numbers reads and writes."""
    x = jnp.ones(size, "float32")
    compiled, _ = compile_timed(lambda x: x + 1, x)
    return 2 * x.nbytes / best_time(compiled, x)


def matmul_rate(dtype="float32", n=4096):
    """Floating-point operations per second of a square product, precision 'highest'."""
    x = jnp.ones((n, n), dtype)
    compiled, _ = compile_timed(lambda x: jnp.matmul(x, x, precision="highest"), x)
    return 2 * n**3 / best_time(compiled, x)


def write(result, path):
    """Writes a result as JSON in one step, if there is a path for it."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        _files.replace(path, json.dumps(result, indent=1) + "\n")
