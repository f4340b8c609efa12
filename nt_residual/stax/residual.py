# Copyright 2026 The nt_residual Authors
# SPDX-License-Identifier: Apache-2.0

"""A residual block with a scaled branch."""

import functools
import math

import neural_tangents as nt
from jax import numpy as jnp
from neural_tangents import stax

from .. import _checks
from .scale import as_factor, scale_getter
from .vanishing import vanishes


@stax.layer
def Residual(branch, alpha=1.0, shortcut=None, normalize_blocks: bool = False):
  r"""A residual block with a scaled branch.

  .. math::
    x \mapsto \mathrm{shortcut}(x) + \alpha\,\mathrm{branch}(x)

  :obj:`~neural_tangents.stax.FanInSum` needs all its inputs to be mean-zero
  Gaussian. Here only the branch must be: its covariance with any shortcut is
  then zero, and the covariance of the sum exact. The result is marked Gaussian
  if the shortcut is.

  Example:
    >>> from nt_residual.stax import Residual
    >>> from neural_tangents import stax
    >>> import jax.numpy as jnp
    >>> branch = stax.serial(stax.Dense(512, W_std=2**0.5), stax.Relu(),
    ...                      stax.Dense(512))
    >>> _, _, kernel_fn = Residual(branch, alpha=0.5)
    >>> kernel_fn(jnp.ones((1, 512)), None, ('nngp', 'ntk'))
    AnalyticKernel(nngp=Array([[1.25]], dtype=float32),
                   ntk=Array([[0.5]], dtype=float32))

  Args:
    branch:
      a triple that ends in a layer with mean-zero Gaussian outputs, such as
      `Dense` or `Conv`. Linear layers without parameters may follow.

    alpha:
      the scale of the branch, as in `Scale`.

    shortcut:
      a triple; `None` for the identity.

    normalize_blocks:
      whether to divide the sum by :math:`\sqrt{1 + \alpha^2}`, the factor by
      which it grows if the branch keeps variances.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`.

  Raises:
    TypeError: as `Scale`; if `normalize_blocks` is not a bool, or a layer not a
      triple.
    ValueError: as `Scale`; from `init_fn` and `kernel_fn`, if shapes of branch
      and shortcut differ; from `kernel_fn`, if the branch ends in a
      nonlinearity or depends on its input without random parameters.
  """
  shortcut = stax.Identity() if shortcut is None else shortcut
  check_layer(branch, 'branch')
  check_not_layer(alpha, 'alpha')
  check_layer(shortcut, 'shortcut')
  _checks.boolean(normalize_blocks, 'normalize_blocks')
  return stax.serial(
      stax.FanOut(2),
      stax.parallel(_without_axes_of(shortcut, branch), _Branch(branch)),
      _Add(alpha, normalize_blocks),
  )


def _Branch(branch):
  """The same layer, whose kernel is refused if no shortcut can be added."""
  init_fn, apply_fn, kernel_fn = branch

  # `wraps` also carries over the requirements that `stax.requires` has set.
  @functools.wraps(kernel_fn)
  def checked_kernel_fn(k: 'nt.Kernel', **kwargs) -> 'nt.Kernel':
    out = kernel_fn(k, **kwargs)
    if not isinstance(out, nt.Kernel) or not out.is_gaussian:
      raise ValueError(
          f'`branch` must end in a layer with mean-zero Gaussian outputs, such '
          f'as `stax.Dense` or `stax.Conv`, got `{kernel_fn.__name__}`, whose '
          f'outputs are not. Append `stax.Dense(width)` to it.'
      )
    _check_independent(branch, k, kwargs)
    return out

  return init_fn, apply_fn, checked_kernel_fn


@stax.layer
@stax.supports_masking(remask_kernel=False)
def _Add(alpha, normalize_blocks):
  """The scaled sum of a shortcut and a branch, given as a pair."""
  get_alpha = scale_getter(alpha)

  def init_fn(rng, input_shape):
    shortcut, branch = input_shape
    check_shapes(shortcut, branch)
    return shortcut, ()

  def check_shapes(shortcut, branch):
    if tuple(shortcut) != tuple(branch):
      raise ValueError(
          f'`branch` and `shortcut` must have the same output shape, got '
          f'{branch} and {shortcut}. Give `Residual` a `shortcut` that maps '
          f'its input to the shape of the branch, e.g. `stax.Dense`.'
      )

  def apply_fn(params, inputs, **kwargs):
    shortcut, branch = inputs
    scale = get_alpha(kwargs)
    if not normalize_blocks:
      return shortcut + as_factor(scale, branch) * branch
    norm = _hypot(scale)
    return (
        as_factor(1 / norm, shortcut) * shortcut
        + as_factor(scale / norm, branch) * branch
    )

  def kernel_fn(ks, **kwargs) -> 'nt.Kernel':
    shortcut, branch = ks
    check_shapes(shortcut.shape1, branch.shape1)
    check_shapes(shortcut.shape2, branch.shape2)
    if branch.is_reversed != shortcut.is_reversed:
      branch = branch.reverse()

    scale = get_alpha(kwargs)
    root = scale / _hypot(scale) if normalize_blocks else scale
    square = root * root

    def add(a, b):
      if a is None:
        return None
      # A convex combination in this form keeps the variance to the last digit
      # where the branch has that of the shortcut.
      return a + square * (b - a) if normalize_blocks else a + square * b

    return shortcut.replace(
        cov1=add(shortcut.cov1, branch.cov1),
        nngp=add(shortcut.nngp, branch.nngp),
        cov2=add(shortcut.cov2, branch.cov2),
        ntk=add(shortcut.ntk, branch.ntk),
        is_input=shortcut.is_input and branch.is_input,
    )

  def mask_fn(mask, input_shape):
    shortcut, branch = mask
    if shortcut is None or branch is None:
      return shortcut if branch is None else branch
    # A branch masks all channels of a pixel alike, and so does the sum then,
    # which layers such as `GlobalAvgPool` need.
    one = tuple(i for i, n in enumerate(branch.shape) if n == 1)
    return jnp.all(shortcut, one, keepdims=True) & branch

  return init_fn, apply_fn, kernel_fn, mask_fn


def check_layer(layer, name):
  """Raises a `TypeError` if `layer` is not a triple of functions."""
  if not (
      isinstance(layer, tuple) and len(layer) == 3 and all(map(callable, layer))
  ):
    got = getattr(layer, '__name__', type(layer).__name__)
    raise TypeError(
        f'`{name}` must be a layer, an `(init_fn, apply_fn, kernel_fn)` triple,'
        f' got {got}. Pass `stax.Dense(512)`, say, not `stax.Dense`, and join'
        ' several layers by `stax.serial`.'
    )


def check_not_layer(value, name):
  """Raises a `TypeError` if a layer is in the place of a number."""
  if isinstance(value, tuple) and value and all(map(callable, value)):
    raise TypeError(
        f'{name} must be real, got a layer. Join the layers of a branch by '
        f'`stax.serial`, and pass a shortcut by name: `shortcut=layer`.'
    )


def _without_axes_of(layer, other):
  """`layer`, without those requirements on axes that `other` states as well.

  `stax.parallel` compares them as they are written and warns of -1 against 3.
  The layers within compare them with the kernel, and raise an error.
  """
  init_fn, apply_fn, kernel_fn = layer
  # `stax.requires` sets this attribute.
  own, stated = (getattr(f[2], 'input_req', {}) for f in (layer, other))
  kept = {
      key: value
      for key, value in own.items()
      if key not in ('batch_axis', 'channel_axis') or key not in stated
  }
  return init_fn, apply_fn, stax.requires(**kept)(kernel_fn)


def _hypot(scale):
  """The square root of `1 + scale**2`, without overflow."""
  if isinstance(scale, float):
    return math.hypot(1, scale)
  return jnp.hypot(1.0, scale)


def _check_independent(layer, k: 'nt.Kernel', kwargs):
  kwargs = {
      key: value[0] if key == 'pattern' and value is not None else value
      for key, value in kwargs.items()
      if key not in ('mask_constant', 'diagonal_batch', 'diagonal_spatial')
  }
  if not vanishes(layer, k.shape1, **kwargs):
    raise ValueError(
        f'`branch` must depend on its input only through layers with random '
        f'parameters, got `{layer[2].__name__}`, which is not zero when all '
        f'its parameters are. Append `stax.Dense(width)` to it, or put it, if '
        f'it is a residual block, before this one.'
    )
