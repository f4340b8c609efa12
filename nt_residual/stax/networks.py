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

"""Residual networks ready to use."""

import operator

from neural_tangents import stax

from nt_residual import schedules
from nt_residual.stax.frozen import Frozen
from nt_residual.stax.stack import ResidualStack


def FullyConnectedResNet(
    depth: int,
    width: int,
    out_dim: int = 1,
    schedule: schedules.Schedule = schedules.PowerLaw(0.5),
    trained: str = 'blocks',
    normalize: bool = False,
):
  r"""The fully-connected residual network of arXiv 2403.04545.

  .. math::
    x_0 = A x / \sqrt{d}, \quad
    x_\ell = x_{\ell-1} + \alpha_\ell V_\ell\,
      \sigma(\sqrt{2/m}\, W_\ell x_{\ell-1}) / \sqrt{m}, \quad
    f(x) = v^T x_L / \sqrt{m}

  with :math:`\sigma` = ReLU, input dimension :math:`d`, width :math:`m`, all
  entries standard normal, no biases. Without `normalize` its kernel is that of
  `rntk.ResidualKernel(..., normalize=False)` divided by :math:`d`. With it the
  NNGP is that of `rntk.ResidualKernel(..., kind='nngp')` divided by :math:`d`,
  and the NTK that of `rntk.ResidualKernel(...)` multiplied by
  :math:`\sum_\ell 2 \alpha_\ell^2 / (1 + \alpha_\ell^2)`, plus 2 if
  `trained='all'`, and divided by :math:`d`.

  Example:
    >>> from nt_residual import schedules
    >>> from nt_residual.stax import FullyConnectedResNet
    >>> import jax.numpy as jnp
    >>> _, _, kernel_fn = FullyConnectedResNet(
    ...     depth=1000, width=512, schedule=schedules.PowerLaw(0.5))
    >>> kernel_fn(jnp.ones((1, 3)), None, ('nngp', 'ntk'))[0].round(2)
    Array([[2.72]], dtype=float32)

  Args:
    depth:
      the number of residual blocks, at least 1.

    width:
      the number of units of each hidden layer, at least 1. The kernel does not
      depend on it.

    out_dim:
      the number of outputs.

    schedule:
      a callable that takes the depth and returns one :math:`\alpha` per block.

    trained:
      `'blocks'` if only the :math:`V_\ell, W_\ell` are trained, as in the
      paper; `'all'` if :math:`A` and :math:`v` are too.

    normalize:
      whether to divide the output of each block by :math:`\sqrt{1+\alpha^2}`.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`.

  Raises:
    TypeError: if a size is not an integer or `schedule` not callable.
    ValueError: if a size is less than 1, `trained` is unknown, or the schedule
      gives an :math:`\alpha` that is NaN, infinite or negative.
  """
  depth = _check_size(depth, 'depth')
  width = _check_size(width, 'width')
  out_dim = _check_size(out_dim, 'out_dim')
  if trained not in ('blocks', 'all'):
    raise ValueError(f"`trained` must be 'blocks' or 'all', got {trained!r}.")
  if not callable(schedule):
    raise TypeError(
        f'`schedule` must be a callable depth -> alphas, got {schedule!r}.'
    )
  alphas = schedules.check_alphas(schedule(depth))
  if len(alphas) != depth:
    raise ValueError(
        f'`schedule` must give one value per block, got {len(alphas)} for '
        f'depth {depth}.'
    )
  branch = stax.serial(
      stax.Dense(width, W_std=2**0.5), stax.Relu(), stax.Dense(width)
  )
  first, last = stax.Dense(width), stax.Dense(out_dim)
  if trained == 'blocks':
    first, last = Frozen(first), Frozen(last)
  blocks = ResidualStack(branch, alphas, normalize=normalize)
  return stax.serial(first, blocks, last)


def _check_size(value, name):
  try:
    if isinstance(value, bool):
      raise TypeError
    size = operator.index(value)
  except TypeError:
    error = ValueError if isinstance(value, float) else TypeError
    raise error(f'`{name}` must be an integer, got {value!r}.') from None
  if size < 1:
    raise ValueError(f'`{name}` must be at least 1, got {size}.')
  return size
