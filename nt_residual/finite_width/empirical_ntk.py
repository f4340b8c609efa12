"""The empirical NTK of a network."""

from collections.abc import Callable
from typing import Any

import jax
import neural_tangents as nt
from jax import lax


def empirical_ntk(
    f: Callable[..., Any], params: Any, x1: jax.Array, x2: jax.Array | None = None
) -> jax.Array:
    """Return the mean over outputs of the empirical NTK of `f(params, x)`, shape (n1, n2).

    It is computed row by row. Products with derivatives hold one or two gradients for each output,
    whatever n1 and n2 are.
    """
    x2 = x1 if x2 is None else x2
    ntk: Any = nt.empirical_ntk_fn(
        f,
        trace_axes=(-1,),
        vmap_axes=0,
        implementation=nt.NtkImplementation.NTK_VECTOR_PRODUCTS,
    )
    return lax.map(lambda row: ntk(row[None], x2, params)[0], x1)
