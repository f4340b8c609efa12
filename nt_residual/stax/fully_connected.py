# Copyright 2026 The nt_residual Authors
# SPDX-License-Identifier: Apache-2.0

"""Fully-connected residual networks."""

from neural_tangents import stax

from .. import _checks, schedules
from .frozen import Frozen
from .relu import Relu
from .residual import check_layer
from .scale import check_scalar
from .stack import ResidualStack


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

  Here :math:`\sigma` is ReLU, :math:`d` the input dimension and :math:`m` the
  width. All entries are standard normal, and there are no biases. The kernel
  is, divided by :math:`d`,

  - without `normalize_blocks` that of `rntk.ResidualKernel(normalize=False)`;
  - with it, for the NNGP, that of `rntk.ResidualKernel(kind='nngp')`;
  - with it, for the NTK, that of `rntk.ResidualKernel()` multiplied by
    :math:`\sum_\ell 2 \alpha_\ell^2 / (1 + \alpha_\ell^2)`, plus 2 if
    `trained='all'`.

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
      or an array of these, shape `(depth,)`. They may be traced.

    trained:
      `'blocks'` if only the :math:`V_\ell, W_\ell` are trained, as in the
      paper; `'all'` if :math:`A` and :math:`v` are too.

    normalize_blocks:
      see `Residual`.

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
      see `ResidualStack`.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`.

  Raises:
    TypeError: if an argument is of the wrong type.
    ValueError: if a size is less than 1, an option is unknown, `W_std` or an
      :math:`\alpha` is NaN, infinite or negative, or there are not `depth` of
      these.
  """
  depth = _checks.integer(depth, 'depth', 1)
  width = _checks.integer(width, 'width', 1)
  out_dim = _checks.integer(out_dim, 'out_dim', 1)
  freeze = freezer(trained)
  alphas = schedules.alphas_of(schedule, depth, traced=True)
  branch = make_branch(
      block, activation, lambda W_std: stax.Dense(width, W_std=W_std), W_std
  )
  return stax.serial(
      freeze(stax.Dense(width)),
      ResidualStack(
          branch, alphas, normalize_blocks=normalize_blocks, remat=remat
      ),
      freeze(stax.Dense(out_dim)),
  )


def make_branch(block, activation, layer, W_std):
  """A branch of one or two layers, each made by `layer` from its `W_std`."""
  activation = Relu() if activation is None else activation
  check_layer(activation, 'activation')
  _checks.choice(block, 'block', ('two_layer', 'preactivation', 'one_layer'))
  W_std = check_scalar(W_std, 'W_std', negative=False)
  if block == 'two_layer':
    return stax.serial(layer(W_std), activation, layer(1.0))
  if block == 'one_layer':
    return stax.serial(activation, layer(W_std))
  return stax.serial(activation, layer(W_std), activation, layer(W_std))


def freezer(trained):
  """Return the wrapper of layers that only `trained='all'` trains."""
  _checks.choice(trained, 'trained', ('blocks', 'all'))
  return Frozen if trained == 'blocks' else lambda layer: layer
