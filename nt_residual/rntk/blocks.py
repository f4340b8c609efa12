"""The base class of the residual kernels: depth, schedule and effective time of the blocks."""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import numpy as np

from nt_residual import schedules
from nt_residual.rntk import recursion

# At infinite depth, this many blocks are computed one by one if their α do not depend on depth.
_HEAD = 16384


class KernelOfBlocks:
    """The base of kernels that are frozen dataclasses and compare by value.

    A subclass sets `__hash__ = KernelOfBlocks.__hash__`: `dataclass` would generate another one.
    """

    depth: int | float
    schedule: Any  # A `schedules.Schedule`; a callable once the kernel is constructed.
    effective_time: float
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]
    # For an error: the function that takes α traced by JAX.
    _takes_traced_alphas = ""

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self):
        # Cached properties are left out: the hash of a string differs between processes.
        return type(self), self._values

    @functools.cached_property
    def _hash(self) -> int:
        # Cached, since a schedule may hold a million α and every call needs the kernel's hash.
        return hash(self._values)

    @property
    def _values(self) -> tuple:
        return tuple(getattr(self, f.name) for f in dataclasses.fields(self))

    @property
    def _n_blocks(self) -> int | float:
        return self.depth

    def _check_blocks(self) -> None:
        """Check the schedule, convert an array to a callable, and set `effective_time`."""
        if not callable(self.schedule):
            explicit = schedules.Explicit(schedules.alphas_of(self.schedule))
            object.__setattr__(self, "schedule", explicit)
        try:
            hash(self.schedule)
        except TypeError:
            if any(map(schedules.is_traced, getattr(self.schedule, "__dict__", {}).values())):
                raise TypeError(
                    "schedule must be known when the kernel is made, got one with values traced by "
                    f"JAX. {self._takes_traced_alphas} takes traced alphas."
                ) from None
            raise TypeError(
                "schedule must be hashable, since kernels are compared and cached by value, got "
                f"{type(self.schedule).__name__}. Make a dataclass hashable with frozen=True."
            ) from None
        if self._n_blocks == math.inf:
            schedule: Any = self.schedule
            time = schedules.limiting_time(schedule, self.effective_time)
        else:
            if self._equal_alpha is None:
                own = schedules.effective_time(self._alphas)
            else:
                own = self._n_blocks * schedules.effective_time([self._equal_alpha])
            time = schedules.check_time(self.effective_time, own)
        object.__setattr__(self, "effective_time", time)

    @functools.cached_property
    def _alphas(self) -> np.ndarray:
        return schedules.alphas_of(self.schedule, int(self._n_blocks))

    @functools.cached_property
    def _equal_alpha(self) -> float | None:
        """The common α of all blocks of a finite network; `None` if they differ."""
        if isinstance(self.schedule, schedules.PowerLaw):
            # Computed without an array of all α, since there may be 10^12 blocks.
            return self.schedule.c * float(self._n_blocks) ** -self.schedule.gamma
        equal = np.all(self._alphas == self._alphas[0])
        return float(self._alphas[0]) if equal else None

    @functools.cached_property
    def _head_and_rest(self) -> tuple[np.ndarray | None, float]:
        """The α of the blocks computed one by one, or `None`; and T of all other blocks."""
        if self._n_blocks != math.inf:
            return self._alphas, 0.0
        if isinstance(self.schedule, schedules.PowerLaw):
            return None, self.effective_time
        return _split(self.schedule, self.effective_time)

    @functools.cached_property
    def _total_share(self) -> float:
        """The sum Σ s_ℓ over all blocks, with s_ℓ = α_ℓ²/(1 + α_ℓ²)."""
        if self._n_blocks != math.inf and self._equal_alpha is not None:
            return self._n_blocks * float(recursion.branch_share(np.float64(self._equal_alpha)))
        head, rest = self._head_and_rest
        return float(rest if head is None else recursion.branch_share(head).sum() + rest)

    def _check_not_zero(self, total: float) -> None:
        """Raise `ValueError` if the NTK is zero and no limit of the normalized NTK exists."""
        if total > 0:
            return
        if not self.normalize:  # type: ignore[attr-defined]
            raise ValueError(
                "the NTK of the blocks is zero: every α is zero, or vanishes at infinite depth. "
                "Pass normalize=True for the limit of the normalized kernel, or trained='all'."
            )
        if self._n_blocks != math.inf and self._equal_alpha == 0:
            raise ValueError(
                "every α is zero, so the NTK of the blocks is zero and cannot be normalized. Pass "
                "at least one positive α, kind='nngp', or trained='all'."
            )


def _split(schedule: schedules.Schedule, effective_time: float) -> tuple[np.ndarray | None, float]:
    """Return the α of the first blocks, if they do not depend on depth, and T of the others."""
    if effective_time == math.inf:
        return None, math.inf
    head, more = (schedules.alphas_of(schedule, depth) for depth in (_HEAD, 2 * _HEAD))
    if not np.array_equal(head, more[:_HEAD]):
        if effective_time > 0 and more.max() > 0.99 * head.max():
            raise ValueError(
                "α must fall in all blocks as depth grows, or each must stay the same, got "
                f"{more} at depth {2 * _HEAD} and {head} at depth {_HEAD}. effective_time does "
                "not describe single blocks with a large α: pass a large finite depth."
            )
        return None, effective_time
    if not head.any():
        return None, effective_time
    rest = effective_time - schedules.effective_time(head)
    if rest < -1e-9 * effective_time:
        raise ValueError(
            f"effective_time={effective_time} is less than Σ log(1 + α²) of the first {len(head)} "
            f"blocks alone, {effective_time - rest}. Pass the sum over all blocks, or math.inf if "
            "it diverges."
        )
    return head, max(rest, 0.0)
