"""What one measurement of the suite is."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from nt_residual import compat


class Counts(NamedTuple):
    """The least work that a result takes, whoever computes it.

    Attributes:
      entries: numbers in the result.
      bytes: inputs read once, results written once, if the family does not say otherwise;
        `None` where this says nothing.
      flops: floating-point operations; `None` for those that XLA counts.
    """

    entries: int
    bytes: float | None = None
    flops: float | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """A function that is checked and timed.

    Attributes:
      family: the file it is from.
      who: whose implementation it is; cases of equal `sizes` are compared.
      sizes: what is computed, by name.
      build: makes the function and its arguments.
      check: how far a result is from the reference, as a fraction of the largest entry.
      tolerance: the largest error with which it is timed.
      counts: the work, of a result.
      jit: whether the function is to be compiled. If not, it does so itself when first called.
    """

    family: str
    who: str
    sizes: Mapping[str, Any]
    build: Callable[[], tuple[Callable, tuple]]
    check: Callable[[Any], float]
    tolerance: float
    counts: Callable[[Any], Counts]
    jit: bool = True

    @property
    def dtype(self) -> str:
        """That of the numbers: one of the sizes."""
        return self.sizes["dtype"]

    @property
    def name(self) -> str:
        """All that tells it from others, in a line."""
        return " ".join([self.family, *(f"{k}={v}" for k, v in self.sizes.items()), self.who])


def distance(got: Any, expected: Any) -> float:
    """The largest difference as a fraction of the largest entry expected; NaN if there is one."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def sampled(n: int, count: int = 100) -> np.ndarray:
    """Indices from the first to the last, in every tile."""
    return np.unique(np.linspace(0, n - 1, count).astype(int))


@contextlib.contextmanager
def exactly():
    """Computes in float64 on the host, where there is one beside the accelerator."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # Left out by JAX_PLATFORMS.
        host = None
    with compat.enable_x64(), jax.default_device(host):
        yield
