"""Check cases, time them, and compare their rates with the peak rates of the device."""

import importlib.metadata
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.suite.case import Case
from nt_residual import compat, machine

# The size of the array that is copied; the side of the matrices that are multiplied; and the
# seconds after which a case is not repeated.
SIZES = {
    "quick": (2**23, 1024, 1.0),
    "standard": (2**26, 4096, 3.0),
    "large": (2**28, 8192, 10.0),
}


def described() -> dict[str, Any]:
    """Return the device, the number of devices, and the versions of the packages compared."""
    packages = ("jax", "neural-tangents", "nt-residual")
    return {
        "device": machine.device_name(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "platform": jax.default_backend(),
        "devices": jax.device_count(),
    }


def peaks(size: str, dtypes: Sequence[str]) -> dict[str, Any]:
    """Measure the bytes per second of a copy, and the operations per second of a product."""
    numbers, side, _ = SIZES[size]
    rates = {}
    for dtype in dtypes:
        with compat.enable_x64(dtype == "float64"):
            x = jnp.ones((side, side), dtype)
            product = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
            rates[dtype] = 2 * side**3 / _best_time(product, x)
    x = jnp.ones(numbers, "float32")
    copied = 2 * x.nbytes / _best_time(jax.jit(lambda x: x + 1), x)
    return {"bytes_per_s": copied, "flops_per_s": rates}


def _best_time(function: Callable, x: jax.Array) -> float:
    """Return the seconds of the fastest call after the first."""
    return min(_run_times(function, x, repeats=6)[1:])


def _run_times(
    function: Callable, *arguments: Any, repeats: int, seconds: float = math.inf
) -> list[float]:
    """Return the seconds of `repeats` calls, or of at least three that take `seconds` in all."""
    times = []
    while len(times) < repeats and (len(times) < 3 or sum(times) < seconds):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return times


def row(case: Case, peaks: dict[str, Any], repeats: int, seconds: float) -> dict[str, Any]:
    """Return the row of a case: its numbers, or the reason why there are none."""
    described = {"family": case.family, "who": case.who, **case.sizes}
    try:
        with compat.enable_x64(case.dtype == "float64"):
            return described | measure(case, peaks, repeats, seconds)
    # If one case cannot run on a device, others may.
    except Exception as error:
        return described | {"failed": f"{type(error).__name__}: {error}"}


def measure(case: Case, peaks: dict[str, Any], repeats: int, seconds: float) -> dict[str, Any]:
    """Check a case, then time it.

    Raises:
      ArithmeticError: if its result is further from the reference than the case tolerates.
    """
    function, arguments = case.build()
    xla_flops, temporary = None, None
    if case.jit:
        start = time.perf_counter()
        function = jax.jit(function).lower(*arguments).compile()
        compile_s = time.perf_counter() - start
        xla_flops = (function.cost_analysis() or {}).get("flops")
        if (used := function.memory_analysis()) is not None:
            temporary = used.temp_size_in_bytes
    (first_s,) = _run_times(function, *arguments, repeats=1)
    result = function(*arguments)
    error = case.check(result)
    if not error <= case.tolerance:
        raise ArithmeticError(f"the result is off by {error:.2g}, more than {case.tolerance:g}")
    counts = case.counts(result)
    del result  # Its memory may be needed.
    times = _run_times(function, *arguments, repeats=repeats, seconds=seconds)
    median, q1, q3, least = map(float, np.quantile(times, (0.5, 0.25, 0.75, 0.0)))
    if not case.jit:
        compile_s = max(first_s - median, 0.0)
    found = {
        "error": error,
        "tolerance": case.tolerance,
        "compile_s": compile_s,
        "median_s": median,
        "q1_s": q1,
        "q3_s": q3,
        "min_s": least,
        "repeats": len(times),
        "temporary_bytes": temporary,
        "entries": counts.entries,
        "entries_per_s": counts.entries / median,
        "bytes": counts.bytes,
        "flops": xla_flops if counts.flops is None else counts.flops,
    }
    for name, peak in (
        ("bytes", peaks["bytes_per_s"]),
        ("flops", peaks["flops_per_s"][case.dtype]),
    ):
        rate = None if found[name] is None else found[name] / median
        found[f"{name}_per_s"] = rate
        found[f"{name}_per_s_of_peak"] = None if rate is None else rate / peak
    return found
