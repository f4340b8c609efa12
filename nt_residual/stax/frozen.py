# Copyright 2026 The nt_residual Authors
# SPDX-License-Identifier: Apache-2.0

"""Layers that are not trained."""

import functools

import jax
import neural_tangents as nt
from jax import lax
from neural_tangents import stax

from .residual import check_layer


@stax.layer
def Frozen(layer):
  """A layer whose parameters are not trained.

  Outputs and NNGP kernel are those of `layer`. The NTK contains only the
  contributions of earlier layers: the gradient with respect to the parameters
  of `layer` is zero.

  Example:
    >>> from nt_residual.stax import Frozen
    >>> from neural_tangents import stax
    >>> import jax.numpy as jnp
    >>> dense = stax.Dense(512)
    >>> _, _, kernel_fn = stax.serial(dense, stax.Relu(), Frozen(dense))
    >>> k = kernel_fn(jnp.ones((1, 3)))
    >>> k.nngp, k.ntk  # The last layer would add the NNGP to the NTK.
    (Array([[0.5]], dtype=float32), Array([[0.5]], dtype=float32))

  Args:
    layer:
      the layer to freeze, an `(init_fn, apply_fn, kernel_fn)` triple.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`.

  Raises:
    TypeError: if `layer` is not a triple.
  """
  check_layer(layer, 'layer')
  init_fn, apply_fn, kernel_fn = layer

  @functools.wraps(apply_fn)
  def frozen_apply_fn(params, inputs, **kwargs):
    return apply_fn(lax.stop_gradient(params), inputs, **kwargs)

  # `wraps` also carries over the requirements that `stax.requires` has set.
  @functools.wraps(kernel_fn)
  def frozen_kernel_fn(k, **kwargs):
    ntk = _ntk(k)
    if all(leaf is None for leaf in ntk):
      return kernel_fn(k, **kwargs)

    def outputs(ntk):
      out = kernel_fn(_with_ntk(k, ntk), **kwargs)
      return _ntk(out), out

    # The output NTK is an affine function of the input NTK: a linear part, and
    # the contribution of the layer's own parameters. Its directional derivative
    # is the linear part alone.
    _, linear_part, out = jax.jvp(outputs, (ntk,), (ntk,), has_aux=True)
    return _with_ntk(out, linear_part)

  # A function of its own: `stax.layer` sets names, those of `layer` not among.
  def frozen_init_fn(rng, input_shape):
    return init_fn(rng, input_shape)

  return frozen_init_fn, frozen_apply_fn, frozen_kernel_fn


def _is_kernel(k) -> bool:
  return isinstance(k, nt.Kernel)


def _ntk(kernels):
  """The NTK of each kernel in a tree of kernels."""
  return [k.ntk for k in jax.tree.leaves(kernels, is_leaf=_is_kernel)]


def _with_ntk(kernels, ntk):
  """Replaces the NTK of each kernel in a tree of kernels."""
  leaves, tree = jax.tree.flatten(kernels, is_leaf=_is_kernel)
  return tree.unflatten([k.replace(ntk=t) for k, t in zip(leaves, ntk)])
