"""The empirical NTK of a network, a few rows at a time."""

from collections.abc import Callable
from typing import Any

import jax
import neural_tangents as nt
from jax import lax


def empirical_ntk(
    f: Callable[..., Any],
    params: Any,
    x: jax.Array,
    *,
    implementation: Any = nt.NtkImplementation.NTK_VECTOR_PRODUCTS,
    batch_size: int = 1,
) -> jax.Array:
    """The NTK of a network, averaged over its outputs, a few rows at a time.

    Of one output of a row it keeps a gradient or two, of more that many times as much.

    Args:
      f: `f(params, x)`, shape (n, outputs).
      params: a pytree of arrays.
      x: inputs, shape (n, …).
      implementation: of neural-tangents.
      batch_size: the number of rows at once.

    Returns:
      Shape (n, n).
    """
    ntk: Any = nt.empirical_ntk_fn(f, trace_axes=(-1,), vmap_axes=0, implementation=implementation)
    return lax.map(lambda row: ntk(row[None], x, params)[0], x, batch_size=batch_size)
