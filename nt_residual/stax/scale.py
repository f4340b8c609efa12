# Copyright 2026 The nt_residual Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     https://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Multiplication by a constant."""

import math

import jax
from neural_tangents import Kernel, stax


@stax.layer
@stax.supports_masking(remask_kernel=False)
def Scale(alpha: float):
  r"""Multiplication by a constant, :math:`x \mapsto \alpha x`.

  The NNGP, the NTK and all covariances are multiplied by :math:`\alpha^2`.

  Example:
    >>> from neural_tangents import stax
    >>> from nt_residual.stax import Scale
    >>> import jax.numpy as jnp
    >>> _, _, kernel_fn = stax.serial(stax.Dense(512), Scale(0.5))
    >>> kernel_fn(jnp.ones((1, 3)), None, 'ntk')
    Array([[0.25]], dtype=float32)

  Args:
    alpha:
      the constant, a finite real number. May be a traced JAX scalar.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`.

  Raises:
    TypeError: if `alpha` is not a real scalar.
    ValueError: if `alpha` is NaN or infinite.
  """
  alpha = _check_alpha(alpha)

  def init_fn(rng, input_shape):
    return input_shape, ()

  def apply_fn(params, inputs, **kwargs):
    return alpha * inputs

  def kernel_fn(k: Kernel, **kwargs) -> Kernel:
    square = alpha**2
    return k.replace(
        cov1=square * k.cov1,
        nngp=square * k.nngp,
        cov2=None if k.cov2 is None else square * k.cov2,
        ntk=None if k.ntk is None else square * k.ntk,
    )

  return init_fn, apply_fn, kernel_fn


def _check_alpha(alpha):
  if isinstance(alpha, jax.core.Tracer):
    if alpha.shape:
      raise TypeError(f'`alpha` must be a scalar, got shape {alpha.shape}.')
    return alpha
  try:
    value = float(alpha)
  except (TypeError, ValueError):
    raise TypeError(
        f'`alpha` must be a real scalar, got {alpha!r}. For one value per '
        f'block use `ResidualStack(branch, alphas)`.'
    ) from None
  if not math.isfinite(value):
    raise ValueError(f'`alpha` must be finite, got {value}.')
  return value
