"""Compilation for chips that this machine need not have, and analysis of the programs."""

import functools
import importlib.metadata
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks.program_text import Program
from benchmarks.suite.case import Case


class Chip(NamedTuple):
    """A chip, with the numbers that its maker publishes.

    Attributes:
      name, platform: as JAX calls them.
      bytes_per_s: the rate of main memory.
      flops_per_s: the rate of matrix products of float32 with precision 'highest'.
      memory, cache: sizes in bytes. Arrays up to the size of the cache may stay in it.
    """

    name: str
    platform: str
    bytes_per_s: float
    flops_per_s: float
    memory: float
    cache: float = 0.0


# A TPU takes six products of bfloat16 for one of float32. Programs manage its on-chip memory.
CHIPS = {
    "v5e": Chip("TPU v5e", "tpu", 819e9, 197e12 / 6, 16e9),
    "v6e": Chip("TPU v6e", "tpu", 1640e9, 918e12 / 6, 32e9),
    "h100": Chip("NVIDIA H100 SXM", "cuda", 3.35e12, 67e12, 80e9, 50e6),
    "h200": Chip("NVIDIA H200 SXM", "cuda", 4.8e12, 67e12, 141e9, 50e6),
}
_WHEELS = {
    "tpu": ("libtpu",),
    "cuda": (
        *("jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12"),
        *("nvidia-cuda-runtime-cu12", "nvidia-cuda-cupti-cu12", "nvidia-nvjitlink-cu12"),
    ),
}
# XLA's description of a GPU of compute capability 9.0, Hopper.
_HOPPER = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth:.0f} l2_cache_size: {cache:.0f} clock_rate_ghz: 1.98
  device_memory_size: {memory:.0f} shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 minor: 0 }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA" device_description_str: "{name}"
dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 12 minor: 9 }}
"""


@functools.cache
def devices(target: str, topology: str = "2x2") -> tuple[Any, ...]:
    """Return the TPUs of a topology, or as many GPUs, that this machine need not have.

    Args:
      target: one of `CHIPS`, or another TPU as its compiler calls it, such as 'v2'.
      topology: the chips along each axis.

    Raises:
      ModuleNotFoundError: if a package that compiles for the chip is missing.
    """
    chip = CHIPS.get(target, Chip(target, "tpu", math.nan, math.nan, math.nan))
    if missing := [wheel for wheel in _WHEELS[chip.platform] if not _installed(wheel)]:
        raise ModuleNotFoundError(
            f"compiling for {chip.name} needs these packages: {', '.join(missing)}. Install them "
            "with `uv sync --group accelerators`."
        )
    if chip.platform == "tpu":
        # There may be no metadata server, and several processes may compile at once.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        options = {"topology_name": f"{target}:{topology}"}
    else:
        jax.local_devices(backend="cpu")  # This registers the compiler for GPUs too.
        count = math.prod(map(int, topology.split("x")))
        text = _HOPPER.format(
            name=chip.name, bandwidth=chip.bytes_per_s, cache=chip.cache, memory=chip.memory
        )
        options = {"topology_name": "", "target_config": text, "topology": f"1x1x{count}"}
    return tuple(topologies.get_topology_desc(platform=chip.platform, **options).devices)


def _installed(wheel: str) -> bool:
    return any(importlib.metadata.distributions(name=wheel))


def compiled(function: Callable, arguments: Sequence[Any], device: Any) -> Any:
    """Return `function`, compiled for a device and for the shapes of `arguments`.

    Leaves of `arguments` that are arrays or `jax.ShapeDtypeStruct` are placed on `device`, unless
    they have a sharding over devices of the target. Other leaves are passed unchanged.
    """

    def absent(leaf: Any) -> Any:
        if not hasattr(leaf, "dtype"):
            return leaf
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        own = leaf.sharding if isinstance(leaf, jax.ShapeDtypeStruct) else None
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=own or SingleDeviceSharding(device))

    function = function if hasattr(function, "trace") else jax.jit(function)
    traced = function.trace(*jax.tree.map(absent, tuple(arguments)))
    if device.platform == "tpu":
        return traced.lower(lowering_platforms=("tpu",)).compile()
    # Without a chip, the compiler cannot time variants.
    options = {"xla_gpu_autotune_level": 0}
    return traced.lower(lowering_platforms=("cuda",)).compile(options)


def described(target: str) -> dict[str, Any]:
    """Return the chip with its published peak rates, and the versions of the packages used."""
    chip = CHIPS[target]
    compiler = {"tpu": "libtpu", "cuda": "jax-cuda12-plugin"}[chip.platform]
    packages = ("jax", compiler, "neural-tangents", "nt-residual")
    return {
        "device": chip.name,
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "platform": chip.platform,
        "devices": 0,
        "peaks": {"bytes_per_s": chip.bytes_per_s, "flops_per_s": {"float32": chip.flops_per_s}},
        "cache_bytes": chip.cache,
    }


def row(case: Case, target: str) -> dict[str, Any]:
    """Return the analysis of a compiled case, or the reason why it does not compile."""
    described = {"family": case.family, "who": case.who, **case.sizes}
    try:
        program = case.program(devices(target)) if case.program else case.build()
        # A case that is compiled in part counts the work of the whole.
        least = case.counts(None).bytes if case.jit else None
        return described | analysis(*program, target) | {"least_bytes": least}
    # If one case cannot be compiled, others may be.
    except Exception as error:
        return described | {"failed": f"{type(error).__name__}: {error}"}


def analysis(function: Callable, arguments: Sequence[Any], target: str) -> dict[str, Any]:
    """Compile a function, and return what its program does on each device.

    `passes` counts kernels over arrays of n × n entries, or their part on one device, for n rows
    of the first argument. XLA's own counts are `None` if XLA has none.
    """
    chip = CHIPS[target]
    start = time.perf_counter()
    program = compiled(function, arguments, devices(target)[0])
    compile_s = time.perf_counter() - start
    memory, counted = program.memory_analysis(), program.cost_analysis() or {}
    text = Program(program.as_text())
    first = jax.tree.leaves(arguments)[0]
    share = len(first.sharding.device_set) if hasattr(first, "sharding") else 1
    passes, passes_in_loops = text.passes(len(first) ** 2 / share)
    outside = memory.argument_size_in_bytes + memory.output_size_in_bytes
    moved, flops = max(outside, text.bytes(chip.cache)), text.flops()
    return {
        "bound_s": max(moved / chip.bytes_per_s, flops / chip.flops_per_s),
        "compile_s": compile_s,
        "temporary_bytes": memory.temp_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "passes": passes,
        "passes_in_loops": passes_in_loops,
        "bytes": text.bytes(),
        "flops": flops,
        "xla_bytes": counted.get("bytes accessed"),
        "xla_flops": counted.get("flops"),
        "collectives": text.collectives(),
    }
