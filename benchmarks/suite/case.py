"""One measurement of the suite."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nt_residual import compat


class Counts(NamedTuple):
    """The least work that any implementation needs for a result.

    Attributes:
      entries: the number of numbers in the result.
      bytes: bytes read and written: inputs and results once, unless the family says otherwise;
        `None` if bytes are not a useful measure.
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
      counts: returns the least work, given a result.
      jit: whether the runner compiles the function. If not, its first call does.
      program: returns, for devices that this machine need not have, the function to compile and its
        arguments. If it is `None`, `build` is compiled if `jit` is true, or else nothing.
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
        """The family, the sizes and the implementation, in one line."""
        return " ".join([self.family, *(f"{k}={v}" for k, v in self.sizes.items()), self.who])


def distance(got: Any, expected: Any) -> float:
    """Return the largest error divided by the largest expected entry; NaN if an entry is NaN."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def sampled(n: int, count: int = 100) -> np.ndarray:
    """Return indices spread evenly from the first to the last, so that every tile has some."""
    return np.unique(np.linspace(0, n - 1, count).astype(int))


@contextlib.contextmanager
def exactly():
    """Compute in float64, on the CPU of the host if JAX can use it."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out.
        host = None
    with compat.enable_x64(), jax.default_device(host):
        yield
