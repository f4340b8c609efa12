"""Tiles of a Gram matrix: where they lie, and their entries.

Tiles of one matrix are all of one size, so that one compiled program makes every one of
them. Where the size does not divide the number of inputs, the last tile begins earlier and
repeats some rows of the one before it; these are computed twice, and counted once.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Kernel = Callable[..., Any]

# To be said of entries that are NaN or infinite.
WHY_NOT_FINITE = (
    "angles to a zero input are undefined, and large inputs may leave the range of the dtype."
)


@dataclasses.dataclass(frozen=True)
class Cut:
    """The range 0, …, n − 1 cut into pieces of one size.

    Attributes:
      n: the number of inputs.
      size: of each piece, at most n.
    """

    n: int
    size: int

    @property
    def count(self) -> int:
        """The number of pieces."""
        return -(-self.n // self.size)

    def start(self, k: Any) -> Any:
        """Where piece k begins; a NumPy or JAX integer if k is one."""
        if isinstance(k, int):
            return min(k * self.size, self.n - self.size)
        return jnp.minimum(k * self.size, self.n - self.size)

    def own(self, k) -> jax.Array:
        """Which entries of piece k are not those of the piece before it, shape (size, 1)."""
        index = self.start(k) + jnp.arange(self.size)
        return (index >= k * self.size)[:, None]

    def take(self, x: jax.Array, k) -> jax.Array:
        """The rows of piece k."""
        return jax.lax.dynamic_slice_in_dim(x, self.start(k), self.size)


def even_cut(n: int, largest: int) -> Cut:
    """As few pieces as a largest size allows, as equal as can be.

    Example:
      >>> even_cut(2100, 2048)
      Cut(n=2100, size=1050)
    """
    return Cut(n, -(-n // -(-n // largest)))


def upper_pairs(count: int) -> list[tuple[int, int]]:
    """The tiles on and above the diagonal.

    Example:
      >>> upper_pairs(2)
      [(0, 0), (0, 1), (1, 1)]
    """
    return [(i, j) for i in range(count) for j in range(i, count)]


def entries(
    kernel: Kernel, x1: jax.Array, x2: jax.Array, dtype: np.dtype, diagonal=False
) -> jax.Array:
    """The tile k(x1, x2), to be called inside of `jax.jit`.

    Args:
      kernel: a function of two batches.
      x1: shape (m1, …).
      x2: shape (m2, …).
      dtype: that of the result.
      diagonal: whether the two are the same batch, and the tile is to be symmetric: the
        entries below the diagonal are then those above it. May be traced.
    """
    # Once made, the tile is used in several places. Without the barrier XLA would make it
    # anew for each.
    values = jax.lax.optimization_barrier(kernel(x1, x2).astype(dtype))
    if diagonal is False:
        return values
    return jax.lax.cond(diagonal, symmetric, lambda values: values, values)


def symmetric(values: jax.Array) -> jax.Array:
    """The upper triangle and its mirror image."""
    return jnp.triu(values) + jnp.triu(values, 1).T


def tile(kernel, x1, x2, i, j, *, cut1: Cut, cut2: Cut, dtype, same: bool):
    """Tile (i, j) of k(x1, x2), shape (cut1.size, cut2.size), and whether it is finite."""
    a, b = cut1.take(x1, i), cut2.take(x2, j)
    values = entries(kernel, a, b, dtype, diagonal=(i == j) if same else False)
    return values, jnp.isfinite(values).all()
