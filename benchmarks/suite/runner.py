"""Checks cases, times them, and compares them with what the device can do."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import common
from benchmarks.suite.case import Case
from nt_residual import compat

# For the bandwidth, numbers in the array; for the rate of products, its side; and after how many
# seconds a case is not repeated.
SIZES = {
    "quick": (2**23, 1024, 1.0),
    "standard": (2**26, 4096, 10.0),
    "large": (2**28, 8192, 10.0),
}


def peaks(size: str, dtypes: Sequence[str]) -> dict[str, Any]:
    """Bytes per second of a copy, operations per second of a product, measured now."""
    numbers, side, _ = SIZES[size]
    rates = {}
    for dtype in dtypes:
        with compat.enable_x64(dtype == "float64"):
            rates[dtype] = common.matmul_rate(dtype, side)
    return {"bytes_per_s": common.copy_bandwidth(numbers), "flops_per_s": rates}


def row(case: Case, peaks: dict[str, Any], repeats: int, seconds: float) -> dict[str, Any]:
    """What is written of a case: its numbers, or why there are none."""
    described = {"family": case.family, "who": case.who, **case.sizes}
    try:
        with compat.enable_x64(case.dtype == "float64"):
            return described | measure(case, peaks, repeats, seconds)
    # Whatever keeps one case from running on some device, others may run there.
    except Exception as error:
        return described | {"failed": f"{type(error).__name__}: {error}"}


def measure(case: Case, peaks: dict[str, Any], repeats: int, seconds: float) -> dict[str, Any]:
    """Checks a case, then times it.

    Raises:
      ArithmeticError: if its result is further from the reference than the case tolerates.
    """
    function, arguments = case.build()
    xla_flops = None
    if case.jit:
        function, compile_s = common.compile_timed(function, *arguments)
        xla_flops = (function.cost_analysis() or {}).get("flops")
    (first_s,) = common.run_times(function, *arguments, repeats=1)
    result = function(*arguments)
    error = case.check(result)
    if not error <= case.tolerance:
        raise ArithmeticError(f"the result is off by {error:.2g}, more than {case.tolerance:g}")
    counts = case.counts(result)
    del result  # Its memory may be needed.
    times = common.run_times(function, *arguments, repeats=repeats, seconds=seconds)
    spread = np.quantile(times, (0.5, 0.25, 0.75, 0.0))
    median = float(spread[0])
    if not case.jit:
        compile_s = max(first_s - median, 0.0)
    flops = xla_flops if counts.flops is None else counts.flops
    rates = _rates(counts.bytes, flops, median, peaks, case.dtype)
    return {
        "error": error,
        "tolerance": case.tolerance,
        "compile_s": compile_s,
        **dict(zip(("median_s", "q1_s", "q3_s", "min_s"), map(float, spread), strict=True)),
        "repeats": len(times),
        "entries": counts.entries,
        "entries_per_s": counts.entries / median,
        "bytes": counts.bytes,
        "flops": flops,
        **rates,
    }


def _rates(moved, flops, seconds, peaks, dtype):
    """Achieved rates, and as fractions of what the device can do."""
    result = {}
    for name, count, peak in (
        ("bytes_per_s", moved, peaks["bytes_per_s"]),
        ("flops_per_s", flops, peaks["flops_per_s"][dtype]),
    ):
        result[name] = None if count is None else count / seconds
        result[f"{name}_of_peak"] = None if count is None else count / seconds / peak
    return result


def described() -> dict[str, Any]:
    """The device, what runs on it, and how many there are."""
    return {
        **common.machine(),
        "platform": jax.default_backend(),
        "devices": jax.device_count(),
    }
