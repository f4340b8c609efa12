"""The empirical NTK of a network, a few rows at a time."""

from collections.abc import Callable
from typing import Any

import jax
import neural_tangents as nt
from jax import lax


def empirical_ntk(
    f: Callable[..., Any],
    params: Any,
    x1: jax.Array,
    x2: jax.Array | None = None,
    *,
    all_outputs: bool = False,
    implementation: Any = nt.NtkImplementation.NTK_VECTOR_PRODUCTS,
    batch_size: int = 1,
) -> jax.Array:
    """Return the empirical NTK of a network, from products with derivatives.

    The default implementation holds one or two gradients for each output of `batch_size` rows.

    Args:
      f: `f(params, x)`, shape (n, outputs).
      params: a pytree of arrays.
      x1: inputs, shape (n1, …).
      x2: inputs, shape (n2, …); `None` for `x1`.
      all_outputs: whether to return the NTK of each pair of outputs, not the mean over outputs.
      implementation: of neural-tangents.
      batch_size: the number of rows at once.

    Returns:
      Shape (n1, n2), or (n1, n2, outputs, outputs) with `all_outputs`.
    """
    x2 = x1 if x2 is None else x2
    axes = () if all_outputs else (-1,)
    ntk: Any = nt.empirical_ntk_fn(f, trace_axes=axes, vmap_axes=0, implementation=implementation)
    return lax.map(lambda row: ntk(row[None], x2, params)[0], x1, batch_size=batch_size)
