"""The memory that is free, and the error when it is not enough."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psutil

try:
    import resource
except ImportError:  # Windows has no limits of this kind.
    resource = None

_WORTH_A_LOOK = 2**28
_REMEDIES = (
    "Use gram: compute(kernel, x1, x2, store=PATH) puts the matrix on disk, mesh= spreads it over "
    "devices, and MatrixFree(kernel, x) does not store it."
)
_CGROUPS = (
    # Version 2, then version 1: the limit, and the file that says how much of it is in use.
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def available(device: Any = None) -> int:
    """Return the number of bytes that can still be allocated.

    For the host, this is the least of the free memory of the machine and of what the limits of
    the container and of the process leave; for an accelerator, what its allocator has free.

    Args:
      device: a `jax.Device`; `None`, or a CPU device, for the host.
    """
    stats = None if device is None or device.platform == "cpu" else device.memory_stats()
    if stats and "bytes_limit" in stats:
        return max(int(stats["bytes_limit"] - stats.get("bytes_in_use", 0)), 0)
    return max(min(_of_the_host()), 0)


def share(devices: Sequence[Any]) -> tuple[int, str]:
    """Return the bytes that each of several devices can still allocate, and their name.

    CPU devices, which may be simulated ones, share the memory of the host.
    """
    least, count = min(map(available, devices)), len(devices)
    if devices[0].platform != "cpu":
        return least, str(devices[0])
    return (
        least // count,
        f"each of {count} devices of this machine" if count > 1 else "this machine",
    )


def _of_the_host() -> Iterable[int]:
    yield psutil.virtual_memory().available
    if resource is not None:
        process = psutil.Process().memory_info()
        for limit, used in ((resource.RLIMIT_AS, process.vms), (resource.RLIMIT_DATA, process.rss)):
            soft, _ = resource.getrlimit(limit)
            if soft != resource.RLIM_INFINITY:
                yield soft - used
    for limit, used in _CGROUPS:
        try:
            yield int(pathlib.Path(limit).read_text()) - int(pathlib.Path(used).read_text())
        except (OSError, ValueError):
            continue  # No such cgroup, or no limit ("max").


def check(parts: Mapping[str, int], limit: int, where: str, remedies: str) -> None:
    """Raise `MemoryError` if the bytes needed, by name, exceed what a device has free.

    `where` is the name of the device, and `remedies` tells what to do instead.
    """
    needed = sum(parts.values())
    if needed > limit:
        listed = ", ".join(f"{name} {size(count)}" for name, count in parts.items())
        raise MemoryError(
            f"needs {size(needed)} of memory ({listed}), but {where} has {size(limit)} free. "
            f"{remedies}"
        )


def check_call(parts: Mapping[str, int], devices: Iterable[Any]) -> None:
    """Raise `MemoryError` before the eager call of a kernel that does not fit on its devices.

    JAX would allocate later, and fail where the error cannot be caught. A call of less than 2^28
    bytes is not checked: the look-up of free memory takes 0.1 ms.
    """
    if sum(parts.values()) >= _WORTH_A_LOOK:
        check(parts, *share(list(devices)), _REMEDIES)


def size(count: float) -> str:
    """Return a number of bytes with a unit."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} bytes"
