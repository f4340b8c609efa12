"""What depth does to one network: its NTK, and gradients block by block."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import optax
from jax import lax

from nt_residual.finite_width.descent import hashable
from nt_residual.finite_width.networks import Network


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


def mean_ntk(network: Network, x: Any) -> np.ndarray:
    """`empirical_ntk` of a network with its parameters, in float32 precision on every device."""
    with jax.default_matmul_precision("highest"):
        return np.asarray(
            _mean_ntk(hashable(network.apply), network.params, network.rest, jnp.asarray(x))
        )


@functools.partial(jax.jit, static_argnums=0)
def _mean_ntk(apply, params, rest, x):
    outputs = jax.eval_shape(apply, params, rest, x).shape[-1]

    def of_one(output):
        def f(params, inputs):
            return lax.dynamic_slice_in_dim(apply(params, rest, inputs), output, 1, axis=1)

        return empirical_ntk(f, params, x)

    return jnp.mean(lax.map(of_one, jnp.arange(outputs)), axis=0)


def gradient_norms(network: Network, x: Any, y: Any, *, axis: int) -> np.ndarray:
    """How large the gradient of the squared loss is in each block.

    Args:
      network: of which all trained weights belong to blocks, and are stacked along `axis`.
      x: inputs, shape (n, …).
      y: targets, shape (n, outputs).
      axis: that of the blocks.

    Returns:
      The norm for each block, shape (blocks,), divided by their root mean square.
    """
    with jax.default_matmul_precision("highest"):
        norms = _block_norms(axis, network.apply, network.params, network.rest, x, y)
    return np.asarray(norms)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _block_norms(axis, apply, params, rest, x, y):
    def loss(params):
        return jnp.mean(jnp.sum(optax.l2_loss(apply(params, rest, x), y), axis=-1))

    def squares(leaf):
        return jnp.sum(leaf**2, axis=[i for i in range(leaf.ndim) if i != axis])

    total = sum(map(squares, jax.tree.leaves(jax.grad(loss)(params))))
    return jnp.sqrt(total / jnp.mean(total))
