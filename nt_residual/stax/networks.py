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

from .. import schedules
from .frozen import Frozen
from .relu import Relu
from .residual import Residual, check_layer
from .scale import check_scalar
from .stack import ResidualStack, check_alphas, check_range


def FullyConnectedResNet(
    depth: int,
    width: int,
    out_dim: int = 1,
    schedule=schedules.PowerLaw(0.5),
    trained: str = 'blocks',
    normalize_blocks: bool = False,
    block: str = 'two_layer',
    activation=None,
    W_std: float = 2**0.5,
    remat: bool = False,
):
  r"""The fully-connected residual network of arXiv 2403.04545, and variants.

  .. math::
    x_0 = A x / \sqrt{d}, \quad
    x_\ell = x_{\ell-1} + \alpha_\ell V_\ell\,
      \sigma(\sqrt{2/m}\, W_\ell x_{\ell-1}) / \sqrt{m}, \quad
    f(x) = v^T x_L / \sqrt{m}

  with :math:`\sigma` = ReLU, input dimension :math:`d`, width :math:`m`, all
  entries standard normal, no biases. Without `normalize_blocks` its kernel is
  that of `rntk.ResidualKernel(..., normalize=False)` divided by :math:`d`. With
  it the NNGP is that of `rntk.ResidualKernel(..., kind='nngp')` divided by
  :math:`d`, and the NTK that of `rntk.ResidualKernel(...)` multiplied by
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
      a callable that takes the depth and returns one :math:`\alpha` per block,
      or the alphas themselves, shape `(depth,)`. They may be traced.

    trained:
      `'blocks'` if only the :math:`V_\ell, W_\ell` are trained, as in the
      paper; `'all'` if :math:`A` and :math:`v` are too.

    normalize_blocks:
      whether to divide the output of each block by :math:`\sqrt{1+\alpha^2}`.

    block:
      the branch of each block: `'two_layer'` for layer, activation, layer, as
      above; `'preactivation'` for activation, layer, activation, layer;
      `'one_layer'` for activation, layer.

    activation:
      the layer :math:`\sigma`, such as `stax.Erf()`. `None` for `Relu()`, whose
      kernel is accurate in float32.

    W_std:
      the standard deviation of the weights of the first layer of a two-layer
      branch, and of all layers of the others. The default keeps the variance of
      ReLU networks.

    remat:
      whether reverse-mode derivatives recompute blocks to save memory. See
      `ResidualStack`.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`.

  Raises:
    TypeError: if a size is not an integer, `W_std` not a real number, an option
      not a string or bool, `activation` not a layer, or `schedule` gives no
      real numbers.
    ValueError: if a size is less than 1, `W_std` is NaN, infinite or negative,
      an option is unknown, or the schedule does not give `depth` numbers or one
      that is NaN, infinite or negative.
  """
  depth = _check_size(depth, 'depth')
  width = _check_size(width, 'width')
  out_dim = _check_size(out_dim, 'out_dim')
  freeze = _check_trained(trained)
  alphas = _alphas(schedule, depth)
  branch = _branch(
      block, activation, lambda W_std: stax.Dense(width, W_std=W_std), W_std
  )
  return stax.serial(
      freeze(stax.Dense(width)),
      ResidualStack(
          branch, alphas, normalize_blocks=normalize_blocks, remat=remat
      ),
      freeze(stax.Dense(out_dim)),
  )


def ConvResNet(
    depth,
    channels: int,
    out_dim: int = 10,
    schedule=schedules.PowerLaw(0.5),
    pooling: str = 'flatten',
    trained: str = 'blocks',
    normalize_blocks: bool = False,
    block: str = 'two_layer',
    activation=None,
    W_std: float = 2**0.5,
    filter_shape=(3, 3),
    padding: str = 'SAME',
    remat: bool = False,
):
  r"""A convolutional residual network.

  A convolution to `channels` channels, the blocks, pooling, and a dense layer.
  With several stages each but the first begins with a block that halves the
  resolution and doubles the channels, by a stride of two in the first
  convolution of its branch and in a 1x1 convolution on its shortcut. There are
  no biases. `nt_residual.conv.ResidualKernel` computes the same kernel faster.

  Example:
    >>> from nt_residual import schedules
    >>> from nt_residual.stax import ConvResNet
    >>> import jax
    >>> import jax.numpy as jnp
    >>> # As many blocks in each stage as a ResNet-34 has.
    >>> _, _, kernel_fn = ConvResNet(depth=(3, 4, 6, 3), channels=64)
    >>> ntk_fn = jax.jit(lambda x1, x2: kernel_fn(x1, x2, 'ntk'))
    >>> ntk_fn(jnp.ones((2, 16, 16, 3)), None).shape
    (2, 2)

  Args:
    depth:
      the number of residual blocks, at least 1: an integer, or one for each
      stage.

    channels:
      the number of channels of the first stage, at least 1. The kernel does not
      depend on it.

    out_dim:
      the number of outputs.

    schedule:
      a callable that takes the number of all blocks and returns one
      :math:`\alpha` per block, or the alphas themselves. They may be traced.

    pooling:
      `'flatten'` for a dense layer on all pixels, whose kernel needs memory of
      order `n1 * n2 * height * width`; `'gap'` for global average pooling,
      which needs its square in `height * width`.

    trained:
      `'blocks'` if only the branches are trained; `'all'` if the first and the
      last layer and the shortcuts are too.

    normalize_blocks:
      whether to divide the output of each block by :math:`\sqrt{1+\alpha^2}`.

    block:
      `'two_layer'`, `'preactivation'` or `'one_layer'`. See
      `FullyConnectedResNet`.

    activation:
      a layer such as `stax.Erf()`. `None` for `Relu()`.

    W_std:
      the standard deviation of the weights of the first layer of a two-layer
      branch, and of all layers of the others.

    filter_shape:
      the shape of all filters, one number for each spatial axis of the input.

    padding:
      `'SAME'` for zeros around the image, `'CIRCULAR'` for its other side.

    remat:
      whether reverse-mode derivatives recompute blocks to save memory. See
      `ResidualStack`.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`, for inputs of shape
    `(batch_size, height, width, channels)`.

  Raises:
    TypeError: as `FullyConnectedResNet`.
    ValueError: as `FullyConnectedResNet`.
  """
  channels = _check_size(channels, 'channels')
  depths = tuple(depth) if isinstance(depth, (tuple, list)) else (depth,)
  if not depths:
    raise ValueError('`depth` must hold one number for each stage, got none.')
  if not isinstance(filter_shape, (tuple, list)):
    raise TypeError(
        f'`filter_shape` must be a tuple, one number for each spatial axis, got'
        f' {filter_shape!r}. For images pass `(3, 3)`.'
    )
  if not filter_shape:
    raise ValueError('`filter_shape` must have a spatial axis, got none.')
  filter_shape = tuple(_check_size(n, 'filter_shape') for n in filter_shape)
  one = (1,) * len(filter_shape)
  stages = [
      (blocks, channels * 2**i, 2 if i else 1, one if i else None)
      for i, blocks in enumerate(depths)
  ]
  return _conv_resnet(
      channels,
      stages,
      filter_shape=filter_shape,
      padding=padding,
      pooling=pooling,
      out_dim=out_dim,
      schedule=schedule,
      trained=trained,
      normalize_blocks=normalize_blocks,
      block=block,
      activation=activation,
      W_std=W_std,
      remat=remat,
  )


def WideResNet(
    block_size: int,
    k: int,
    out_dim: int = 10,
    schedule=schedules.PowerLaw(0.5),
    pooling: str = 'gap',
    trained: str = 'blocks',
    normalize_blocks: bool = False,
    block: str = 'preactivation',
    activation=None,
    W_std: float = 2**0.5,
    remat: bool = False,
):
  r"""A wide residual network for images, with scaled branches.

  A convolution to 16 channels, three stages of `block_size` blocks with
  `16 * k`, `32 * k` and `64 * k` channels, pooling, and a dense layer. The
  first block of each stage has a 3x3 convolution on its shortcut; the second
  and the third stage halve the resolution. With `schedule=Constant(1.0)`,
  `trained='all'` and `W_std=1.0` it is the network of the documentation of
  `neural_tangents`.

  Example:
    >>> from nt_residual import schedules
    >>> from nt_residual.stax import WideResNet
    >>> import jax
    >>> import jax.numpy as jnp
    >>> # WRN-28-10
    >>> init_fn, apply_fn, kernel_fn = WideResNet(block_size=4, k=10)
    >>> ntk_fn = jax.jit(lambda x1, x2: kernel_fn(x1, x2, 'ntk'))
    >>> ntk_fn(jnp.ones((2, 8, 8, 3)), None).shape
    (2, 2)

  Args:
    block_size: the number of blocks in each of the three stages, at least 1.
    k: the factor by which channels are multiplied, at least 1.
    out_dim: the number of outputs.
    schedule: see `ConvResNet`; it is given `3 * block_size`.
    pooling: see `ConvResNet`.
    trained: see `ConvResNet`.
    normalize_blocks: see `ConvResNet`.
    block: see `ConvResNet`.
    activation: see `ConvResNet`.
    W_std: see `ConvResNet`.
    remat: see `ConvResNet`.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`, for inputs of shape
    `(batch_size, height, width, channels)`.

  Raises:
    TypeError: as `FullyConnectedResNet`.
    ValueError: as `FullyConnectedResNet`.

  See "`Wide Residual Networks <https://arxiv.org/abs/1605.07146>`_".
  """
  block_size = _check_size(block_size, 'block_size')
  k = _check_size(k, 'k')
  filter_shape = (3, 3)
  stages = [
      (block_size, 16 * k, 1, filter_shape),
      (block_size, 32 * k, 2, filter_shape),
      (block_size, 64 * k, 2, filter_shape),
  ]
  return _conv_resnet(
      16,
      stages,
      filter_shape=filter_shape,
      padding='SAME',
      pooling=pooling,
      out_dim=out_dim,
      schedule=schedule,
      trained=trained,
      normalize_blocks=normalize_blocks,
      block=block,
      activation=activation,
      W_std=W_std,
      remat=remat,
  )


# INTERNAL UTILITIES


def _conv_resnet(
    stem_channels,
    stages,
    filter_shape,
    padding,
    pooling,
    out_dim,
    schedule,
    trained,
    normalize_blocks,
    block,
    activation,
    W_std,
    remat,
):
  """Stages are tuples: blocks, channels, stride, filter of the projection."""
  out_dim = _check_size(out_dim, 'out_dim')
  freeze = _check_trained(trained)
  _check_choice(pooling, 'pooling', ('flatten', 'gap'))
  _check_choice(padding, 'padding', ('SAME', 'CIRCULAR'))
  sizes = [_check_size(blocks, 'depth') for blocks, *_ in stages]
  alphas = all_alphas = _alphas(schedule, sum(sizes))

  def conv(channels, filter_shape, W_std=1.0, stride=1):
    strides = (stride,) * len(filter_shape)
    return stax.Conv(channels, filter_shape, strides, padding, W_std)

  def branch(channels, stride):
    strides = iter([stride])  # That of the first convolution alone.
    return _branch(
        block,
        activation,
        lambda W_std: conv(channels, filter_shape, W_std, next(strides, 1)),
        W_std,
    )

  layers = []
  for size, (_, channels, stride, projection) in zip(sizes, stages):
    blocks, alphas = alphas[:size], alphas[size:]
    if projection is not None:
      shortcut = freeze(conv(channels, projection, stride=stride))
      first = branch(channels, stride)
      layers += [Residual(first, blocks[0], shortcut, normalize_blocks)]
      blocks = blocks[1:]
    if len(blocks):
      layers += [
          ResidualStack(
              branch(channels, 1),
              blocks,
              normalize_blocks=normalize_blocks,
              remat=remat,
          )
      ]
  blocks = stax.serial(*layers)
  return stax.serial(
      _Inputs(2 + len(filter_shape)),
      freeze(conv(stem_channels, filter_shape)),
      # Each stack checks itself, and none the growth over all stages.
      blocks if normalize_blocks else check_range(blocks, all_alphas),
      stax.Flatten() if pooling == 'flatten' else stax.GlobalAvgPool(),
      freeze(stax.Dense(out_dim)),
  )


@stax.layer
def _Inputs(ndim):
  """The identity, for inputs that have `ndim` axes."""
  init_fn, apply_fn, kernel_fn = stax.Identity()

  def check(shape):
    if len(shape) != ndim:
      raise ValueError(
          f'inputs must have {ndim} axes, (batch_size, height, width, channels)'
          f' for images, got shape {tuple(shape)}. Add an axis for channels, '
          f'e.g. `x[..., None]`, or set `filter_shape` to one number for each '
          f'spatial axis.'
      )

  def checked_init_fn(rng, input_shape):
    check(input_shape)
    return init_fn(rng, input_shape)

  def checked_kernel_fn(k, **kwargs):
    check(k.shape1)
    return kernel_fn(k, **kwargs)

  return checked_init_fn, apply_fn, checked_kernel_fn


def _branch(block, activation, layer, W_std):
  """A branch of one or two layers, each made by `layer` from its `W_std`."""
  activation = Relu() if activation is None else activation
  check_layer(activation, 'activation')
  _check_choice(block, 'block', ('two_layer', 'preactivation', 'one_layer'))
  W_std = check_scalar(W_std, 'W_std')
  if isinstance(W_std, float) and W_std < 0:
    raise ValueError(f'`W_std` must not be negative, got {W_std}.')
  if block == 'two_layer':
    return stax.serial(layer(W_std), activation, layer(1.0))
  if block == 'one_layer':
    return stax.serial(activation, layer(W_std))
  return stax.serial(activation, layer(W_std), activation, layer(W_std))


def _alphas(schedule, depth):
  alphas = schedule(depth) if callable(schedule) else schedule
  if not callable(schedule) and not hasattr(schedule, '__len__'):
    raise TypeError(
        f'`schedule` must be a callable depth -> alphas, or the alphas, got '
        f'{schedule!r}.'
    )
  alphas = check_alphas(alphas)
  if len(alphas) != depth:
    raise ValueError(
        f'`schedule` must give one value per block, got {len(alphas)} for '
        f'depth {depth}.'
    )
  return alphas


def _check_trained(trained):
  """What is done to the layers that only `trained='all'` trains."""
  _check_choice(trained, 'trained', ('blocks', 'all'))
  return Frozen if trained == 'blocks' else lambda layer: layer


def _check_choice(value, name, choices):
  if value not in choices:
    error = ValueError if isinstance(value, str) else TypeError
    listed = ', '.join(map(repr, choices[:-1])) + f' or {choices[-1]!r}'
    raise error(f'`{name}` must be {listed}, got {value!r}.')


def _check_size(value, name):
  try:
    if isinstance(value, bool):
      raise TypeError
    size = operator.index(value)
  except TypeError:
    raise TypeError(f'`{name}` must be an integer, got {value!r}.') from None
  if size < 1:
    raise ValueError(f'`{name}` must be at least 1, got {size}.')
  return size
