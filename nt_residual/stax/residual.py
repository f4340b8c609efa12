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

"""A residual block with a scaled branch."""

import functools

import jax
from jax import random
from neural_tangents import Kernel, stax

from nt_residual.stax.scale import Scale


def Residual(
    branch, alpha: float = 1.0, shortcut=None, normalize: bool = False
):
  r"""A residual block with a scaled branch.

  .. math::
    x \mapsto \mathrm{shortcut}(x) + \alpha\,\mathrm{branch}(x)

  Where :obj:`~neural_tangents.stax.FanInSum` needs all its inputs to be
  mean-zero Gaussian, here only the branch must be: its covariance with the
  shortcut is then zero, whatever the shortcut is, so that the covariance of the
  sum is exact. The result is marked Gaussian if the shortcut is.

  Example:
    >>> from neural_tangents import stax
    >>> from nt_residual.stax import Residual
    >>> import jax.numpy as jnp
    >>> branch = stax.serial(stax.Dense(512, W_std=2**0.5), stax.Relu(),
    ...                      stax.Dense(512))
    >>> _, _, kernel_fn = Residual(branch, alpha=0.5)
    >>> kernel_fn(jnp.ones((1, 512)), None, ('nngp', 'ntk'))
    AnalyticKernel(nngp=Array([[1.25]], dtype=float32),
                   ntk=Array([[0.5]], dtype=float32))

  Args:
    branch:
      an `(init_fn, apply_fn, kernel_fn)` triple. Must end in a layer with
      mean-zero Gaussian outputs, such as `Dense` or `Conv`, possibly followed
      by linear layers without parameters. That its input reaches its output
      only through that layer is not verified: a branch that is itself a
      residual block must be followed by a `Dense` or `Conv`.

    alpha:
      the scale of the branch, a finite real number or a traced JAX scalar.

    shortcut:
      an `(init_fn, apply_fn, kernel_fn)` triple; `None` for the identity.

    normalize:
      whether to divide the sum by :math:`\sqrt{1 + \alpha^2}`, which keeps the
      variance constant if the branch does.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`.

  Raises:
    TypeError: if `alpha` is not a real scalar, or a layer is not a triple.
    ValueError: if `alpha` is NaN or infinite, or, from `kernel_fn`, if the
      branch does not end in a mean-zero Gaussian layer or changes the shape.
  """
  shortcut = stax.Identity() if shortcut is None else shortcut
  _check_layer(branch, 'branch')
  _check_layer(shortcut, 'shortcut')
  scaled_branch = stax.serial(_CheckedBranch(branch), Scale(alpha))
  layers = [
      stax.FanOut(2),
      stax.parallel(shortcut, scaled_branch),
      _AddBranch(),
  ]
  if normalize:
    layers += [Scale((1 + alpha**2) ** -0.5)]
  return stax.serial(*layers)


def abstract_init(init_fn, input_shape):
  """The output shape of a layer and its parameters, none of which is drawn."""
  output_shape = None

  def init(rng):
    nonlocal output_shape
    output_shape, params = init_fn(rng, input_shape)
    return params

  params = jax.eval_shape(init, jax.eval_shape(random.PRNGKey, 0))
  return output_shape, params


def _check_layer(layer, name):
  if not (
      isinstance(layer, tuple) and len(layer) == 3 and all(map(callable, layer))
  ):
    raise TypeError(
        f'`{name}` must be a layer, an `(init_fn, apply_fn, kernel_fn)` triple,'
        f' got {layer!r}. Pass `stax.Dense(512)`, say, not `stax.Dense`.'
    )


@stax.layer
def _CheckedBranch(branch):
  """The same layer, refused if it is not mean-zero Gaussian on its own."""
  init_fn, apply_fn, kernel_fn = branch

  # `wraps` also carries over the requirements that `stax.requires` has set.
  @functools.wraps(kernel_fn)
  def checked_kernel_fn(k: Kernel, **kwargs) -> Kernel:
    out = kernel_fn(k, **kwargs)
    if not out.is_gaussian:
      raise ValueError(
          '`branch` must end in a layer with mean-zero Gaussian outputs, such '
          'as `stax.Dense` or `stax.Conv`, got one whose output is not '
          'mean-zero Gaussian (it may end in a nonlinearity). Append '
          '`stax.Dense(width)` to the branch.'
      )
    _, parameters = abstract_init(init_fn, k.shape1)
    if not jax.tree.leaves(parameters):
      raise ValueError(
          '`branch` must have parameters of its own, got one without any, '
          'whose output is not independent of the shortcut. Append '
          '`stax.Dense(width)` to the branch.'
      )
    return out

  return init_fn, apply_fn, checked_kernel_fn


@stax.layer
@stax.supports_masking(remask_kernel=False)
def _AddBranch():
  """The sum of a shortcut and a branch, given as a pair."""

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
    return shortcut + branch

  def kernel_fn(ks, **kwargs) -> Kernel:
    shortcut, branch = ks
    check_shapes(shortcut.shape1, branch.shape1)
    if branch.is_reversed != shortcut.is_reversed:
      branch = branch.reverse()

    def add(a, b):
      return None if a is None else a + b

    return shortcut.replace(
        cov1=shortcut.cov1 + branch.cov1,
        nngp=shortcut.nngp + branch.nngp,
        cov2=add(shortcut.cov2, branch.cov2),
        ntk=add(shortcut.ntk, branch.ntk),
        is_input=shortcut.is_input and branch.is_input,
    )

  def mask_fn(mask, input_shape):
    shortcut, branch = mask
    if shortcut is None or branch is None:
      return shortcut if branch is None else branch
    return shortcut & branch

  return init_fn, apply_fn, kernel_fn, mask_fn
