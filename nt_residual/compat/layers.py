"""Layers of neural-tangents on masks and on inputs of two sizes.

neural-tangents 0.6.5 gets these wrong on any JAX: it raises an error of JAX, or returns numbers
where there is no kernel.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def without_mask_of_scalars(mean_and_var: Callable) -> Callable:
    """Wraps `mean_and_var` of neural-tangents for the NTK of an input, the scalar zero."""

    @functools.wraps(mean_and_var)
    def wrapped(x: Any, *args: Any, mask: jax.Array | None = None, **kwargs: Any) -> Any:
        return mean_and_var(x, *args, mask=mask if np.ndim(x) else None, **kwargs)

    return wrapped


def trace(x: jax.Array, axis1: int, axis2: int) -> jax.Array:
    """Return `jnp.trace`, having checked for `Flatten` that both inputs have the same size."""
    if x.shape[axis1] != x.shape[axis2]:
        raise ValueError(
            f"Flatten needs inputs x1 and x2 of the same size, got {x.shape[axis1]} and "
            f"{x.shape[axis2]} pixels along an axis. Use stax.GlobalAvgPool for inputs of "
            f"different size."
        )
    return jnp.trace(x, axis1=axis1, axis2=axis2)


def with_checked_sizes(inputs_to_kernel: Callable) -> Callable:
    """Wraps `_inputs_to_kernel` of neural-tangents, for networks that pair equal pixels alone."""

    @functools.wraps(inputs_to_kernel)
    def wrapped(x1: Any, x2: Any, **options: Any) -> Any:
        if x2 is not None and (options["diagonal_spatial"] or options["channel_axis"] is None):
            size1, size2 = (np.delete(x.shape, options["batch_axis"]).tolist() for x in (x1, x2))
            if size1 != size2:
                raise ValueError(
                    f"this network needs inputs x1 and x2 of the same size, since it pairs each "
                    f"pixel with the same pixel alone, as Flatten does; got shapes {x1.shape} and "
                    f"{x2.shape}. Use stax.GlobalAvgPool for inputs of different size."
                )
        return inputs_to_kernel(x1, x2, **options)

    return wrapped
