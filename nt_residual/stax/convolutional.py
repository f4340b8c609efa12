# Copyright 2026 The nt_residual Authors
# SPDX-License-Identifier: Apache-2.0

"""Convolutional residual networks."""

from neural_tangents import stax

from .. import _checks, schedules
from .fully_connected import freezer, make_branch
from .residual import Residual
from .stack import ResidualStack, check_range


def ConvResNet(
    depth,
    channels: int,
    out_dim: int = 10,
    schedule=schedules.PowerLaw(0.5),
    pooling: str = 'flatten',
    filter_shape=(3, 3),
    **options,
):
  r"""A convolutional residual network.

  It has a convolution, the blocks, pooling, and a dense layer, without biases.
  Each stage after the first begins with a block that halves the resolution and
  doubles the channels, with a stride of two in the first convolution of its
  branch and in a 1x1 convolution on its shortcut.
  `nt_residual.conv.ResidualKernel` computes the same kernel faster.

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
      the width: the number of channels of the first stage, at least 1. The
      kernel does not depend on it.

    out_dim:
      the number of outputs.

    schedule:
      a callable of the number of all blocks, or an array with one
      :math:`\alpha` per block, as for `FullyConnectedResNet`.

    pooling:
      `'flatten'` for a dense layer on all pixels, whose kernel needs memory of
      order `n1 * n2 * height * width`; `'gap'` for global average pooling,
      which needs its square in `height * width`.

    filter_shape:
      the shape of all filters, one number for each spatial axis of the input.

    options:
      `padding`, `'SAME'` for zeros around the image or `'CIRCULAR'` for
      periodic images; and `trained` (shortcuts are trained if the first and the
      last layer are), `normalize_blocks`, `block`, `activation`, `W_std` and
      `remat` of `FullyConnectedResNet`.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`, for inputs of shape
    `(batch_size, height, width, in_channels)`.

  Raises:
    TypeError, ValueError: as `FullyConnectedResNet`.
  """
  channels = _checks.integer(channels, 'channels', 1)
  depths = depth if isinstance(depth, (tuple, list)) else (depth,)
  if not isinstance(filter_shape, (tuple, list)):
    raise TypeError(
        f'filter_shape must be a tuple, one number for each spatial axis, got'
        f' {filter_shape!r}. For images pass `(3, 3)`.'
    )
  for name, value in (('depth', depths), ('filter_shape', filter_shape)):
    if not value:
      raise ValueError(f'{name} must hold a number, got none. Pass one.')
  filter_shape = tuple(
      _checks.integer(n, 'filter_shape', 1) for n in filter_shape
  )
  one = (1,) * len(filter_shape)
  stages = [
      (blocks, channels * 2**i, 2 if i else 1, one if i else None)
      for i, blocks in enumerate(depths)
  ]
  return _conv_resnet(
      channels,
      stages,
      out_dim,
      schedule=schedule,
      pooling=pooling,
      filter_shape=filter_shape,
      **options,
  )


def WideResNet(
    block_size: int,
    k: int,
    out_dim: int = 10,
    schedule=schedules.PowerLaw(0.5),
    pooling: str = 'gap',
    block: str = 'preactivation',
    **options,
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
    out_dim: see `ConvResNet`.
    schedule: see `ConvResNet`; it is given `3 * block_size`.
    pooling: see `ConvResNet`.
    block: see `ConvResNet`.
    options: see `ConvResNet`.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`, for inputs of shape
    `(batch_size, height, width, in_channels)`.

  Raises:
    TypeError, ValueError: as `FullyConnectedResNet`.

  See "`Wide Residual Networks <https://arxiv.org/abs/1605.07146>`_".
  """
  block_size = _checks.integer(block_size, 'block_size', 1)
  width = 16 * _checks.integer(k, 'k', 1)
  stages = [
      (block_size, width * 2**i, 2 if i else 1, (3, 3)) for i in range(3)
  ]
  options.update(schedule=schedule, pooling=pooling, block=block)
  return _conv_resnet(16, stages, out_dim, filter_shape=(3, 3), **options)


def _conv_resnet(
    stem_channels,
    stages,
    out_dim,
    *,
    schedule,
    pooling,
    filter_shape,
    block='two_layer',
    trained='blocks',
    normalize_blocks=False,
    activation=None,
    W_std=2**0.5,
    padding='SAME',
    remat=False,
):
  """Stages are tuples: blocks, channels, stride, filter of the projection."""
  out_dim = _checks.integer(out_dim, 'out_dim', 1)
  freeze = freezer(trained)
  _checks.choice(pooling, 'pooling', ('flatten', 'gap'))
  _checks.choice(padding, 'padding', ('SAME', 'CIRCULAR'))
  _checks.boolean(normalize_blocks, 'normalize_blocks')
  _checks.boolean(remat, 'remat')
  sizes = [_checks.integer(blocks, 'depth', 1) for blocks, *_ in stages]
  alphas = all_alphas = schedules.alphas_of(schedule, sum(sizes), traced=True)

  def conv(channels, filter_shape, W_std=1.0, stride=1):
    strides = (stride,) * len(filter_shape)
    return stax.Conv(channels, filter_shape, strides, padding, W_std)

  def branch(channels, stride):
    strides = iter([stride])  # That of the first convolution alone.
    return make_branch(
        block,
        activation,
        lambda W_std: conv(channels, filter_shape, W_std, next(strides, 1)),
        W_std,
    )

  layers = []
  normalized = {'normalize_blocks': normalize_blocks}
  for size, (_, channels, stride, projection) in zip(sizes, stages):
    blocks, alphas = alphas[:size], alphas[size:]
    if projection is not None:
      shortcut = freeze(conv(channels, projection, stride=stride))
      first = branch(channels, stride)
      layers.append(Residual(first, blocks[0], shortcut, **normalized))
      blocks = blocks[1:]
    if len(blocks):
      others = branch(channels, 1)
      layers.append(ResidualStack(others, blocks, remat=remat, **normalized))
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
          f'inputs must have {ndim} axes, (batch_size, height, width, '
          f'in_channels) for images, got shape {tuple(shape)}. Add an axis, '
          f'e.g. `x[..., None]`, or change `filter_shape`.'
      )

  def checked_init_fn(rng, input_shape):
    check(input_shape)
    return init_fn(rng, input_shape)

  def checked_kernel_fn(k, **kwargs):
    check(k.shape1)
    return kernel_fn(k, **kwargs)

  return checked_init_fn, apply_fn, checked_kernel_fn


