"""What kernels of all architectures need to know of depth and schedule."""

import dataclasses
import functools
import math
import pickle
from typing import ClassVar

import numpy as np

from nt_residual import schedules
from nt_residual.rntk import limits, recursion


class Scheduled:
    """A frozen dataclass with fields `depth`, `schedule` and `effective_time`."""

    depth: int | float
    schedule: schedules.Schedule
    effective_time: float
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]
    # What takes alphas that are not known when a kernel is made.
    _takes_traced_alphas = ""

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self):
        try:
            pickle.dumps(self.schedule)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                "schedule must be one that pickle can find by a name, for a kernel to be pickled, "
                f"got {self.schedule!r}. Use schedules.PowerLaw, schedules.Explicit, a function at "
                "the top level of a module, or a frozen dataclass with a method __call__."
            ) from error
        # Without what is cached: hashes of strings are those of one process.
        return type(self), self._values

    def __copy__(self):
        return self  # It is immutable.

    def __deepcopy__(self, memo):
        return self

    @functools.cached_property
    def _hash(self) -> int:
        # A schedule may hold a million α, and every call looks kernels up by their hash.
        return hash(self._values)

    @property
    def _values(self) -> tuple:
        return tuple(getattr(self, f.name) for f in dataclasses.fields(self))

    @property
    def _n_blocks(self) -> int | float:
        return self.depth

    def _check_schedule(self) -> None:
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
                "schedule must be hashable, since kernels are compared and cached by it, got "
                f"{type(self.schedule).__name__}. A dataclass is with frozen=True."
            ) from None

    def _checked_time(self) -> float:
        """T = Σ log(1 + α²), or its limit at infinite depth."""
        if self._n_blocks == math.inf:
            return schedules.limiting_time(self.schedule, self.effective_time)
        return schedules.check_time(self.effective_time, schedules.effective_time(self._alphas))

    @functools.cached_property
    def _alphas(self) -> np.ndarray:
        return schedules.alphas_of(self.schedule, int(self._n_blocks))

    @functools.cached_property
    def _head_and_rest(self) -> tuple[np.ndarray | None, float]:
        """At infinite depth, the blocks computed one by one, and T of all others."""
        if isinstance(self.schedule, schedules.PowerLaw):
            return None, self.effective_time
        return limits.split(self.schedule, self.effective_time)

    @functools.cached_property
    def _total_share(self) -> float:
        """Σ s_ℓ."""
        if self._n_blocks != math.inf:
            return float(recursion.branch_share(self._alphas).sum())
        head, rest = self._head_and_rest
        return float(rest if head is None else recursion.branch_share(head).sum() + rest)
