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

"""Many residual blocks in one compiled loop."""

import functools

import jax
import numpy as np
from jax import lax, random
from jax import numpy as jnp
from neural_tangents import stax

from nt_residual.stax.residual import Residual, abstract_init


@stax.layer
def ResidualStack(
    branch,
    alphas,
    shortcut=None,
    normalize: bool = False,
    remat: bool = False,
):
  r"""A stack of residual blocks, each with its own :math:`\alpha`.

  Equivalent to `stax.serial(*[Residual(branch, a, ...) for a in alphas])`, with
  independent parameters in each block, but traced and compiled once whatever
  the depth, for the kernel as for the finite network.

  Without `normalize` the kernel of an input with itself grows like
  :math:`\prod_\ell (1 + \alpha_\ell^2)`: at :math:`\alpha = 1` it exceeds the
  range of float32 at depth 128.

  Example:
    >>> from neural_tangents import stax
    >>> from nt_residual.stax import ResidualStack
    >>> import jax.numpy as jnp
    >>> branch = stax.serial(stax.Dense(512, W_std=2**0.5), stax.Relu(),
    ...                      stax.Dense(512))
    >>> _, _, kernel_fn = ResidualStack(branch, jnp.full(1000, 1000**-0.5))
    >>> kernel_fn(jnp.ones((1, 512)), None, 'nngp').round(2)
    Array([[2.72]], dtype=float32)

  Args:
    branch:
      the branch of every block, an `(init_fn, apply_fn, kernel_fn)` triple. See
      `Residual`.

    alphas:
      the scale of the branch in each block, shape `(depth,)`, finite and
      non-negative.

    shortcut:
      the shortcut of every block, an `(init_fn, apply_fn, kernel_fn)` triple;
      `None` for the identity. A block must keep the shape of its input.

    normalize:
      whether to divide the output of each block by :math:`\sqrt{1+\alpha^2}`.

    remat:
      whether the backward pass of `apply_fn` recomputes the inside of each
      block, instead of keeping it in memory.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`. Parameters are those of one block with a
    leading axis of size `depth`.

  Raises:
    TypeError: if `alphas` does not hold real numbers.
    ValueError: if `alphas` is not one-dimensional, is empty, or has a value
      that is NaN, infinite or negative; from `init_fn` and `kernel_fn`, if a
      block changes the shape of its input.
  """
  alphas = _check_alphas(alphas)
  depth = alphas.shape[0]

  def block(alpha):
    return Residual(branch, alpha, shortcut, normalize)

  block_init_fn, _, block_kernel_fn = block(1.0)

  def init_fn(rng, input_shape):
    output_shape, _ = abstract_init(block_init_fn, input_shape)
    if tuple(output_shape) != tuple(input_shape):
      raise ValueError(
          f'a block of `ResidualStack` must keep the shape of its input, got '
          f'{output_shape} for {input_shape}. Change the shape before the '
          f'stack, e.g. with `stax.Dense`.'
      )

    def init_block(rng):
      _, params = block_init_fn(rng, input_shape)
      return params

    # One block after another, since mapping over keys may draw other numbers.
    return output_shape, lax.map(init_block, random.split(rng, depth))

  def apply_fn(params, inputs, rng=None, **kwargs):
    def apply_block(x, block_inputs):
      alpha, block_params, block_rng = block_inputs
      _, block_apply_fn, _ = block(alpha)
      return block_apply_fn(block_params, x, rng=block_rng, **kwargs), None

    if remat:
      apply_block = jax.checkpoint(apply_block, prevent_cse=False)
    rngs = None if rng is None else random.split(rng, depth)
    # Like a Python float, α does not widen what it multiplies.
    dtype = jnp.result_type(0.0, *jax.tree.leaves((inputs, params)))
    blocks = (jnp.asarray(alphas, dtype), params, rngs)

    def apply_first(x, blocks):
      return apply_block(x, jax.tree.map(lambda leaf: leaf[0], blocks))[0]

    like = jax.eval_shape(apply_first, inputs, blocks)
    if _structure(like) == _structure(inputs):
      # A block may promote the dtype of its input; those after it then keep it.
      inputs = jax.tree.map(lambda a, b: a.astype(b.dtype), inputs, like)
    else:
      # The first block turns an array into a `MaskedArray`, which others keep.
      inputs = apply_first(inputs, blocks)
      blocks = jax.tree.map(lambda leaf: leaf[1:], blocks)
    outputs, _ = lax.scan(apply_block, inputs, blocks)
    return outputs

  # `wraps` also carries over the requirements that `stax.requires` has set.
  @functools.wraps(block_kernel_fn)
  def kernel_fn(k, **kwargs):
    def apply_block(k, alpha):
      _, _, kernel_fn = block(alpha)
      out = kernel_fn(k, **kwargs)
      # An odd number of convolutions on the shortcut reverses spatial axes.
      return out.reverse() if out.is_reversed != k.is_reversed else out, None

    # The first block turns an input kernel into one with the metadata (masks,
    # NTK shape) that all others keep.
    shape = k.shape1
    k, _ = apply_block(k, alphas[0])
    if k.shape1 != shape:
      raise ValueError(
          f'a block of `ResidualStack` must keep the shape of its input, got '
          f'{k.shape1} for {shape}. If this is because of the width of the '
          f'input, put a `stax.Dense` before the stack.'
      )
    k, _ = lax.scan(apply_block, k, jnp.asarray(alphas[1:], k.nngp.dtype))
    return k

  return init_fn, apply_fn, kernel_fn


def _structure(x):
  """Tells arrays from `MaskedArray`s, and masks of different shape apart."""
  return jax.tree.structure(x), [leaf.shape for leaf in jax.tree.leaves(x)]


def _check_alphas(alphas):
  if isinstance(alphas, jax.core.Tracer):
    if alphas.ndim != 1 or alphas.size == 0:
      raise ValueError(
          f'`alphas` must have shape (depth,), depth >= 1, got {alphas.shape}.'
      )
    return alphas
  alphas = np.asarray(alphas)
  if alphas.dtype.kind not in 'iuf':
    raise TypeError(f'`alphas` must hold real numbers, got {alphas.dtype}.')
  if alphas.ndim != 1 or alphas.size == 0:
    raise ValueError(
        f'`alphas` must have shape (depth,), depth >= 1, got {alphas.shape}. '
        f'Pass one value per block.'
    )
  bad = ~(np.isfinite(alphas) & (alphas >= 0))
  if bad.any():
    block = int(np.argmax(bad))
    raise ValueError(
        f'`alphas` must be finite and non-negative, got {alphas[block]} in '
        f'block {block}.'
    )
  return alphas.astype(float)
