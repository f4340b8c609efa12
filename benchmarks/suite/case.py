"""One measurement of the suite."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nt_residual import compat


class Counts(NamedTuple):
    """The least work that a result takes, by any implementation.

    Attributes:
      entries: numbers in the result.
      bytes: read and written: inputs and results once, unless the family says otherwise; `None`
        where this is no measure.
      flops: floating-point operations; `None` to take XLA's count.
    """

    entries: int
    bytes: float | None = None
    flops: float | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """A function that is checked and timed.

    Attributes:
      family: the name of its file.
      who: the implementation; cases of equal `sizes` are compared.
      sizes: the problem, by name.
      build: returns the function and its arguments.
      check: returns the error of a result, as a fraction of the largest entry of the reference.
      tolerance: the largest error that is accepted.
      counts: returns the work, for a result.
      jit: whether the runner compiles the function. If not, its first call does.
      program: returns what to compile for devices that are not there, and its arguments. If it is
        `None`, that is `build` where `jit`, or else nothing.
    """

    family: str
    who: str
    sizes: Mapping[str, Any]
    build: Callable[[], tuple[Callable, tuple]]
    check: Callable[[Any], float]
    tolerance: float
    counts: Callable[[Any], Counts]
    jit: bool = True
    program: Callable[[Sequence[Any]], tuple[Callable, tuple]] | None = None

    @property
    def dtype(self) -> str:
        """The dtype of the numbers: one of the sizes."""
        return self.sizes["dtype"]

    @property
    def name(self) -> str:
        """The family, the sizes and who computes, in a line."""
        return " ".join([self.family, *(f"{k}={v}" for k, v in self.sizes.items()), self.who])


def distance(got: Any, expected: Any) -> float:
    """Return the largest difference over the largest entry expected; NaN if there is one."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def sampled(n: int, count: int = 100) -> np.ndarray:
    """Return indices from the first to the last, in every tile."""
    return np.unique(np.linspace(0, n - 1, count).astype(int))


@contextlib.contextmanager
def exactly():
    """Compute in float64 on the host, if there is one beside the accelerator."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # Left out by JAX_PLATFORMS.
        host = None
    with compat.enable_x64(), jax.default_device(host):
        yield
