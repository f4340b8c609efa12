# Copyright 2026 The nt_residual Authors
# SPDX-License-Identifier: Apache-2.0

"""ReLU with a kernel that loses no digits between nearly parallel inputs."""

import math

import jax
import neural_tangents as nt
from jax import lax
from jax import numpy as jnp
from neural_tangents import stax

from .scale import check_scalar


def Relu():
  r"""ReLU nonlinearity, :math:`\max(x, 0)`, with an accurate kernel.

  See `ABRelu`.

  Example:
    >>> from nt_residual.stax import Relu
    >>> from neural_tangents import stax
    >>> import jax.numpy as jnp
    >>> _, _, kernel_fn = stax.serial(stax.Dense(512), Relu())
    >>> kernel_fn(jnp.ones((1, 3)), None, 'nngp')
    Array([[0.5]], dtype=float32)

  Returns:
    `(init_fn, apply_fn, kernel_fn)`.
  """
  return ABRelu(0, 1)


@stax.layer
@stax.supports_masking(remask_kernel=False)
def ABRelu(a, b):
  r"""ABReLU nonlinearity, `a * min(x, 0) + b * max(x, 0)`, in full precision.

  The angle between two inputs comes from :math:`\sigma_1^2 \sigma_2^2 - k^2`.
  :obj:`~neural_tangents.stax.ABRelu` rounds both products first: its NTK is off
  by up to 1e-3 on the diagonal in float32. Here the products have twice the
  working precision, an input has angle zero with itself, no variance is too
  large or too small to be squared, and derivatives are finite. Covariances
  (relative to :math:`\sigma_1 \sigma_2`) and NTK factors are within 1e-6 of the
  exact values for the covariances given in float32, within 1e-14 in float64.

  The layers before round these covariances: in float32 the angle between inputs
  or pixels that nearly coincide is off by up to 3e-4. Where that matters, use
  float64 or the kernels of `nt_residual.rntk`.

  Example:
    >>> from nt_residual.stax import ABRelu
    >>> from neural_tangents import stax
    >>> import jax.numpy as jnp
    >>> _, _, kernel_fn = stax.serial(stax.Dense(512), ABRelu(-1, 1))
    >>> kernel_fn(jnp.ones((1, 3)), None, ('nngp', 'ntk'))
    AnalyticKernel(nngp=Array([[1.]], dtype=float32),
                   ntk=Array([[1.]], dtype=float32))

  Args:
    a: slope for `x < 0`, a real scalar.
    b: slope for `x > 0`, a real scalar.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`.

  Raises:
    TypeError: if a slope is not a real scalar.
    ValueError: if a slope is NaN or infinite; from `kernel_fn`, if the input is
      not Gaussian.

  See "`Invariance of Weight Distributions in Rectified MLPs
  <https://arxiv.org/abs/1711.09090>`_" for the kernel.
  """
  a, b = check_scalar(a, 'a'), check_scalar(b, 'b')

  def init_fn(rng, input_shape):
    return input_shape, ()

  def apply_fn(params, inputs, **kwargs):
    return a * jnp.minimum(inputs, 0) + b * jnp.maximum(inputs, 0)

  mean_square = (a**2 + b**2) / 2
  weight = (a - b) ** 2 / (2 * math.pi)

  def second_moment(cov, var1, var2):
    root, _, angle = _polar(cov, var1, var2)
    return mean_square * cov + weight * root, mean_square - weight * angle

  @stax.requires(diagonal_spatial=stax.Diagonal())
  def kernel_fn(k: 'nt.Kernel', **kwargs) -> 'nt.Kernel':
    if not k.is_gaussian:
      raise ValueError(
          'The input to the activation function must be Gaussian, i.e. a '
          'random affine transform is required before the activation function.'
      )
    var1, var2 = _variances(k.cov1, k), _variances(k.cov2, k)

    def cov_fn(cov, var):
      if cov is None:
        return None
      if k.diagonal_batch and k.diagonal_spatial:
        return mean_square * cov
      return second_moment(cov, *_pairs(var, var, k, k.diagonal_batch))[0]

    rows = _own_variances(k, var1)
    columns = rows if var2 is None else _own_variances(k, var2)
    nngp, slope = second_moment(k.nngp, *_pairs(rows, columns, k, False))
    return k.replace(
        cov1=cov_fn(k.cov1, var1),
        nngp=nngp,
        cov2=cov_fn(k.cov2, var2),
        ntk=None if k.ntk is None else slope * k.ntk,
        is_gaussian=False,
    )

  return init_fn, apply_fn, kernel_fn


@jax.custom_jvp
def _polar(cov, var1, var2):
  """Two correlated Gaussians, in polar coordinates.

  With `t` the angle whose cosine is their correlation, returns
  `sin(t) - t * cos(t)` and `sin(t)`, times their deviations, and `t`.
  """
  scale1, scale2 = _power_of_two(var1), _power_of_two(var2)
  cosine = cov / scale1 / scale2
  sine = _root_of_difference(
      var1 / scale1 / scale1, var2 / scale2 / scale2, cosine
  )
  zero = (sine == 0) & (cosine == 0)
  angle = jnp.arctan2(sine, jnp.where(zero, 1, cosine))
  angle = jnp.where(zero, jnp.pi / 2, angle)
  root = (sine - angle * cosine) * scale1 * scale2
  return root, sine * scale1 * scale2, angle


@_polar.defjvp
def _polar_jvp(primals, tangents):
  cov, var1, var2 = primals
  cov_dot, var1_dot, var2_dot = tangents
  root, height, angle = _polar(cov, var1, var2)
  var_dot = _divide(var1_dot, var1) + _divide(var2_dot, var2)
  root_dot = height * var_dot / 2 - angle * cov_dot
  # Where the angle is zero this derivative is infinite, unless the angle stays
  # zero, as that of an input with itself does. Zero is taken there.
  angle_dot = _divide(cov * var_dot / 2 - cov_dot, height)
  height_dot = height * var_dot / 2 + cov * angle_dot
  return (root, height, angle), (root_dot, height_dot, angle_dot)


def _divide(x, y):
  """The quotient, or zero where `y` is not positive."""
  positive = y > 0
  return jnp.where(positive, x / jnp.where(positive, y, 1), 0)


def _power_of_two(var):
  """A power of two near the square root of `var`; 1 if that is zero."""
  bits = jnp.finfo(var.dtype)
  # Whatever the power, results and hence derivatives are the same.
  deviation = jnp.sqrt(lax.stop_gradient(var))
  power = lax.reduce_precision(deviation, bits.nexp, 0)
  return jnp.where(var > 0, power, 1)


def _root_of_difference(x, y, z):
  """The square root of `x * y - z**2`, with products to twice the precision."""
  (x1, x2), (y1, y2), (z1, z2) = map(_split, (x, y, z))
  # Products of halves are exact. Each difference is of one order of magnitude.
  difference = (
      (x1 * y1 - z1 * z1)
      + ((x1 * y2 - z1 * z2) + (x2 * y1 - z1 * z2))
      + (x2 * y2 - z2 * z2)
  )
  # The side of `where` that is not taken must have a derivative, too.
  positive = difference > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, difference, 1)), 0)


def _split(x):
  """The two summands of `x` that have half its digits each."""
  bits = jnp.finfo(x.dtype)
  high = lax.reduce_precision(x, bits.nexp, (bits.nmant - 1) // 2)
  return high, x - high


def _variances(cov, k: 'nt.Kernel', diagonal_batch=None):
  """The variances of a batch, shape `(batch_size, height, width, ...)`."""
  if cov is None:
    return None
  if not (k.diagonal_batch if diagonal_batch is None else diagonal_batch):
    cov = jnp.moveaxis(jnp.diagonal(cov, axis1=0, axis2=1), -1, 0)
  if not k.diagonal_spatial:
    for _ in range((cov.ndim - 1) // 2):
      cov = jnp.diagonal(cov, axis1=1, axis2=2)
  return cov


def _pairs(var1, var2, k: 'nt.Kernel', diagonal_batch):
  """Variances that broadcast to the two sides of a covariance matrix."""
  rows, columns = [], []
  for axis in range(var1.ndim):
    diagonal = k.diagonal_spatial if axis else diagonal_batch
    rows += [slice(None)] if diagonal else [slice(None), None]
    columns += [slice(None)] if diagonal else [None, slice(None)]
  return var1[tuple(rows)], var2[tuple(columns)]


def _own_variances(k: 'nt.Kernel', var):
  """Variances from the diagonal of the NNGP, if both batches are the same.

  Those of `cov1` were summed in another order, and differ in the last digits.
  Where they differ by more, rows and columns of the NNGP are not the same, as
  when each batch has its own graph. Images may differ in size, too.
  """
  paired = k.nngp.shape[: 2 if k.diagonal_spatial else None]
  if paired[::2] != paired[1::2]:
    return var
  own = _variances(k.nngp, k, False)
  rounding = 64 * jnp.finfo(var.dtype).eps * var
  return jnp.where(k.x1_is_x2 & (jnp.abs(own - var) <= rounding), own, var)
