# Copyright 2026 The nt_residual Authors
# SPDX-License-Identifier: Apache-2.0

"""Multiplication by a constant."""

import jax
import neural_tangents as nt
from jax import numpy as jnp
from neural_tangents import stax

from .. import _checks


@stax.layer
@stax.supports_masking(remask_kernel=False)
def Scale(alpha):
  r"""Multiplication by a constant, :math:`x \mapsto \alpha x`.

  The NNGP, the NTK and all covariances are multiplied by :math:`\alpha^2`, and
  are differentiable in :math:`\alpha`.

  Example:
    >>> from nt_residual.stax import Scale
    >>> from neural_tangents import stax
    >>> import jax.numpy as jnp
    >>> _, _, kernel_fn = stax.serial(stax.Dense(512), Scale(0.5))
    >>> kernel_fn(jnp.ones((1, 3)), None, 'ntk')
    Array([[0.25]], dtype=float32)
    >>> # A value that is chosen with each call:
    >>> _, _, kernel_fn = stax.serial(stax.Dense(512), Scale('alpha'))
    >>> kernel_fn(jnp.ones((1, 3)), None, 'ntk', alpha=2.0)
    Array([[4.]], dtype=float32)

  Args:
    alpha:
      the constant: a real number, a JAX scalar (which may be traced), or the
      name of the keyword argument of `kernel_fn` and `apply_fn` that holds one.
      For `nt.batch` that must be a Python float.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`.

  Raises:
    TypeError: if `alpha` is not a real scalar, or, from `kernel_fn` and
      `apply_fn`, if it names a keyword argument that is not given.
    ValueError: if `alpha` is NaN or infinite.
  """
  get_alpha = scale_getter(alpha)

  def init_fn(rng, input_shape):
    return input_shape, ()

  def apply_fn(params, inputs, **kwargs):
    return as_factor(get_alpha(kwargs), inputs) * inputs

  def kernel_fn(k: 'nt.Kernel', **kwargs) -> 'nt.Kernel':
    alpha = get_alpha(kwargs)
    square = alpha * alpha
    return k.replace(
        cov1=square * k.cov1,
        nngp=square * k.nngp,
        cov2=None if k.cov2 is None else square * k.cov2,
        ntk=None if k.ntk is None else square * k.ntk,
    )

  return init_fn, apply_fn, kernel_fn


_REMEDY = 'For one value per block use `ResidualStack(branch, alphas)`.'
# Arguments of `kernel_fn`, `apply_fn` and empirical kernels.
_RESERVED = (
    *('x1_or_kernel', 'x1', 'x2', 'get', 'params', 'inputs', 'rng'),
    *('mask', 'pattern', 'mask_constant', 'diagonal_batch', 'diagonal_spatial'),
    *('batch_axis', 'channel_axis', 'use_dropout'),
)


def scale_getter(alpha):
  """Returns the function that finds a scale among the keywords of a call."""
  if not isinstance(alpha, str):
    alpha = check_scalar(alpha, 'alpha', _REMEDY)
    return lambda kwargs: alpha

  if not alpha.isidentifier() or alpha in _RESERVED:
    raise TypeError(
        f'alpha must be a real number, or the name of the keyword argument '
        f'that holds it and that has no other meaning, got {alpha!r}.'
    )

  def get_alpha(kwargs):
    if kwargs.get(alpha) is None:
      raise TypeError(
          f'the scale of this layer is the keyword argument `{alpha}`, which '
          f'was not given. Pass it: `kernel_fn(x1, x2, {alpha}=0.5)`, and '
          f'likewise to `apply_fn`.'
      )
    return check_scalar(kwargs[alpha], 'alpha', _REMEDY)

  return get_alpha


def as_factor(scale, inputs):
  """A scale that, like a Python float, does not widen what it multiplies."""
  if isinstance(scale, float):
    return scale
  return jnp.asarray(scale, jnp.result_type(inputs, 0.0))


def check_scalar(value, name, remedy='', negative=True):
  """Returns a finite real number as a float, a traced one as it is."""
  if not isinstance(value, jax.core.Tracer):
    return _checks.number(value, name, negative=negative, remedy=remedy)
  if value.ndim:
    raise TypeError(f'{name} must be a real number, got {value!r}. {remedy}')
  _checks.real_dtype(value.dtype, name, remedy)
  return value
