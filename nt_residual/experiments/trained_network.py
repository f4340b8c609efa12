"""Measurements on one network: its NTK, and the gradient of each block."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from nt_residual.finite_width.empirical_ntk import empirical_ntk
from nt_residual.finite_width.networks import Network


def mean_ntk(network: Network, x: Any) -> np.ndarray:
    """`empirical_ntk` of a network with its parameters, in float32 precision on every device."""
    with jax.default_matmul_precision("highest"):
        return np.asarray(_mean_ntk(network.apply, network.params, network.rest, jnp.asarray(x)))


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
