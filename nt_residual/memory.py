"""How much memory there is, and what to say when it is not enough."""

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
    """The number of bytes that can still be allocated.

    On the host, that is the least of what the machine has free, what the limit of the
    container leaves and what the limits of the process leave; on an accelerator, what its
    allocator has not given away.

    Args:
      device: a `jax.Device`; `None`, and devices that are the host's own CPU, for the host.

    Example:
      >>> available() > 2**20
      True
    """
    stats = None if device is None or device.platform == "cpu" else device.memory_stats()
    if stats and "bytes_limit" in stats:
        return max(int(stats["bytes_limit"] - stats.get("bytes_in_use", 0)), 0)
    return max(min(_of_the_host()), 0)


def share(devices: Sequence[Any]) -> tuple[int, str]:
    """What each of several devices of this process can still allocate, and what to call it.

    Those that are the host's own CPU, simulated ones, share its memory.

    Args:
      devices: `jax.Device`s, at least one.
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
    """Refuses what cannot fit, before any of it is allocated.

    Args:
      parts: what is needed, in bytes, by name.
      limit: the bytes there are.
      where: what has that many, to be named in the error.
      remedies: what can be done.

    Raises:
      MemoryError: if the parts are more than the limit.
    """
    needed = sum(parts.values())
    if needed > limit:
        listed = ", ".join(f"{name} {size(count)}" for name, count in parts.items())
        raise MemoryError(
            f"needs {size(needed)} of memory ({listed}), and {where} has {size(limit)} free. "
            f"{remedies}"
        )


def check_call(parts: Mapping[str, int], devices: Iterable[Any]) -> None:
    """Refuse the eager call of a kernel that cannot fit, before any of it is allocated.

    JAX allocates later, when nobody is there to catch the error. A call of less than 2^28 bytes
    is not checked: to look up what is free takes 0.1 ms.

    Args:
      parts: what each device needs, in bytes, by name.
      devices: those the call runs on.

    Raises:
      MemoryError: if the parts are more than what is free.
    """
    if sum(parts.values()) >= _WORTH_A_LOOK:
        check(parts, *share(list(devices)), _REMEDIES)


def size(count: float) -> str:
    """A number of bytes in words.

    Example:
      >>> size(14.4e9)
      '14.4 GB'
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} bytes"
