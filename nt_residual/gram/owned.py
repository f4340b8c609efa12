"""Functions compiled for a kernel, such that JAX keeps no kernel and no data for ever.

JAX keeps what it compiles, with static arguments and constants, as long as the compiled function
lives. Kernels that are compared by value, frozen dataclasses, share one function: there is one
program for all that are equal. Any other kernel may close over data, and may change. It is `Owned`:
the functions compiled for it are its own, and die with it.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import jax

# One for all that is compared by value. It holds functions of this package, no program.
shared = functools.cache(jax.jit)


def new_jit() -> Callable[..., Any]:
    """Return a `jax.jit` that returns the same in each call, as long as it lives itself."""

    @functools.cache
    def jit(function, **options):
        # A new object, to which JAX's caches hold weak references only.
        return jax.jit(functools.partial(function), **options)

    return jit


class Owned:
    """A kernel that is known by identity, and the functions compiled for it.

    Attributes:
      reference: stands for it in static arguments and in pytrees, without keeping it alive.
      jit: see `jit`.
    """

    def __init__(self, kernel: Callable[..., Any]):
        self._kernel = kernel
        self.reference = Reference(self)
        self.jit = new_jit()

    def __call__(self, x1, x2):
        """Calls the kernel."""
        return self._kernel(x1, x2)

    def __reduce__(self):
        return Owned, (self._kernel,)


class Reference:
    """An `Owned` kernel, not kept alive: caches of JAX may hold this."""

    def __init__(self, owned: Owned):
        self._owned = weakref.ref(owned)

    def owned(self) -> Owned:
        """Return the kernel.

        Raises:
          ReferenceError: if it is gone.
        """
        owned = self._owned()
        if owned is None:
            raise ReferenceError(
                "the kernel of this gram.MatrixFree is gone. Keep the MatrixFree that it was made "
                "with as long as what was flattened from it."
            )
        return owned

    def __call__(self, x1, x2):
        """Calls the kernel."""
        return self.owned()(x1, x2)


def own(kernel: Any) -> Any:
    """Return the kernel itself if it is compared by value, or `Owned`, else an `Owned` of it."""
    frozen = getattr(getattr(kernel, "__dataclass_params__", None), "frozen", False)
    by_value = frozen and type(kernel).__hash__ not in (None, object.__hash__)
    return kernel if by_value or isinstance(kernel, Owned) else Owned(kernel)


def static(kernel: Any) -> Any:
    """Return what stands for a kernel that `own` returned in static arguments and pytrees."""
    return kernel.reference if isinstance(kernel, Owned) else kernel


def from_static(kernel: Any) -> Any:
    """Return the kernel that `static` was given."""
    return kernel.owned() if isinstance(kernel, Reference) else kernel


def jit(kernel: Any, function: Callable[..., Any], **options: Any) -> Any:
    """Return `jax.jit(function, **options)`, that of the kernel if it is `Owned`.

    Args:
      kernel: one that `own` returned.
      function: one of a module, to which the kernel is an argument, as `static` returns it.
      **options: hashable.
    """
    return (kernel.jit if isinstance(kernel, Owned) else shared)(function, **options)
