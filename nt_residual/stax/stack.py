# Copyright 2026 The nt_residual Authors
# SPDX-License-Identifier: Apache-2.0

"""Many residual blocks in one compiled loop."""

import functools
import math
import warnings

import jax
import numpy as np
from jax import lax, random
from jax import numpy as jnp
from neural_tangents import stax

from .. import _checks, schedules
from .residual import Residual, check_not_layer
from .vanishing import abstract_init

# The keyword argument that tells a block its scale.
_ALPHA = 'residual_stack_alpha'


@stax.layer
def ResidualStack(
    branch,
    alphas,
    shortcut=None,
    normalize_blocks: bool = False,
    remat: bool = False,
):
  r"""A stack of residual blocks, each with its own :math:`\alpha`.

  The same as `stax.serial(*[Residual(branch, a, ...) for a in alphas])`, with
  independent parameters in each block, but traced and compiled once whatever
  the depth.

  .. warning::
    Without `normalize_blocks` variances grow like
    :math:`\prod_\ell (1 + \alpha_\ell^2)`, if the branch keeps them: at
    :math:`\alpha = 1` the kernel exceeds the range of float32 at depth 128, and
    the finite network at depth 256. Both raise an `OverflowError`. Inside `jit`
    and other transformations they warn instead, if the product is known.

  Example:
    >>> from nt_residual.stax import ResidualStack
    >>> from neural_tangents import stax
    >>> import jax.numpy as jnp
    >>> branch = stax.serial(stax.Dense(512, W_std=2**0.5), stax.Relu(),
    ...                      stax.Dense(512))
    >>> _, _, kernel_fn = ResidualStack(branch, jnp.full(1000, 1000**-0.5))
    >>> kernel_fn(jnp.ones((1, 512)), None, 'nngp').round(2)
    Array([[2.72]], dtype=float32)

  Args:
    branch:
      see `Residual`.

    alphas:
      the scale of the branch in each block, shape `(depth,)`, finite and
      non-negative. An array, which may be traced, or a sequence of scalars,
      each of which may be.

    shortcut:
      see `Residual`. A block must keep the shape of its input.

    normalize_blocks:
      see `Residual`.

    remat:
      whether reverse-mode derivatives of `apply_fn` and `kernel_fn` recompute
      blocks, each up to three times, instead of keeping what is inside them.
      Memory then grows with the square root of the depth.

  Returns:
    `(init_fn, apply_fn, kernel_fn)`. Parameters are those of one block with a
    leading axis of size `depth`.

  Raises:
    TypeError: as `Residual`; if `alphas` does not hold real numbers.
    ValueError: if `alphas` is not one-dimensional, is empty, or has a value
      that is NaN, infinite or negative; from `init_fn` and `kernel_fn`, if a
      block changes the shape of its input.
    OverflowError: without `normalize_blocks`, from `kernel_fn` and `apply_fn`,
      if finite inputs give infinite or NaN results.
  """
  check_not_layer(alphas, 'alphas')
  alphas = schedules.alphas_of(alphas, name='alphas', traced=True)
  _checks.boolean(remat, 'remat')
  depth = alphas.shape[0]
  block_init_fn, block_apply_fn, block_kernel_fn = Residual(
      branch, _ALPHA, shortcut, normalize_blocks
  )

  def init_fn(rng, input_shape):
    output_shape, _ = abstract_init(block_init_fn, input_shape)
    _check_shapes(output_shape, input_shape)

    def init_block(rng):
      _, params = block_init_fn(rng, input_shape)
      return params

    # One block after another, since mapping over keys may draw other numbers.
    return output_shape, lax.map(init_block, random.split(rng, depth))

  def apply_fn(params, inputs, rng=None, **kwargs):
    def apply_block(x, block):
      alpha, block_params, block_rng = block
      block_kwargs = {**kwargs, 'rng': block_rng, _ALPHA: alpha}
      return block_apply_fn(block_params, x, **block_kwargs)

    rngs = None if rng is None else random.split(rng, depth)
    blocks = (jnp.asarray(alphas), params, rngs)
    first = _part(blocks, 0)
    like = jax.eval_shape(apply_block, inputs, first)
    if _structure(like) == _structure(inputs):
      # A block may promote the dtype of its input; those after it then keep it.
      inputs = jax.tree.map(lambda a, b: a.astype(b.dtype), inputs, like)
      return _scan(apply_block, inputs, blocks, remat)

    # The first block turns an array into a `MaskedArray`, which others keep.
    others = _part(blocks, slice(1, None))
    return _scan(apply_block, apply_block(inputs, first), others, remat)

  # `wraps` also carries over the requirements that `stax.requires` has set.
  @functools.wraps(block_kernel_fn)
  def kernel_fn(k, **kwargs):
    def apply_block(k, alpha):
      out = block_kernel_fn(k, **{**kwargs, _ALPHA: alpha})
      # An odd number of convolutions on the shortcut reverses spatial axes.
      return out.reverse() if out.is_reversed != k.is_reversed else out

    # The first block turns an input kernel into one with the metadata (masks,
    # NTK shape) that all others keep.
    blocks = jnp.asarray(alphas, k.nngp.dtype)
    out = apply_block(k, blocks[0])
    _check_shapes(out.shape1, k.shape1)
    _check_shapes(out.shape2, k.shape2)
    return _scan(apply_block, out, blocks[1:], remat)

  layer = init_fn, apply_fn, kernel_fn
  return layer if normalize_blocks else check_range(layer, alphas)


def _part(tree, index):
  """The blocks at an index or slice of the leading axes."""
  return jax.tree.map(lambda leaf: leaf[index], tree)


def _scan(fn, x, blocks, remat):
  """Applies `x = fn(x, block)` for all blocks, stacked along leading axes."""

  def body(x, block):
    return fn(x, block), None

  if not remat:
    return lax.scan(body, x, blocks)[0]

  # About as many segments as blocks in each: the inputs of neither take much
  # memory.
  body = jax.checkpoint(body, prevent_cse=False)
  depth = len(jax.tree.leaves(blocks)[0])
  root = max(1, math.isqrt(depth))
  # Without a rest, parameters need not be copied.
  sizes = (n for n in range(root, root // 2, -1) if depth % n == 0)
  size = next(sizes, root)
  rest = depth % size
  segments = jax.tree.map(
      lambda leaf: leaf[rest:].reshape((-1, size, *leaf.shape[1:])), blocks
  )

  @functools.partial(jax.checkpoint, prevent_cse=False)
  def segment_body(x, segment):
    return lax.scan(body, x, segment)

  x, _ = lax.scan(body, x, _part(blocks, slice(rest)))
  return lax.scan(segment_body, x, segments)[0]


def _structure(x):
  """Tells arrays from `MaskedArray`s, and masks of different shape apart."""
  return jax.tree.structure(x), [leaf.shape for leaf in jax.tree.leaves(x)]


def _check_shapes(output_shape, input_shape):
  if tuple(output_shape) != tuple(input_shape):
    raise ValueError(
        f'a block of `ResidualStack` must keep the shape of its input, got '
        f'{output_shape} for {input_shape}. Change the shape before the stack, '
        f'e.g. with `stax.Dense`.'
    )


def check_range(layer, alphas):
  """Returns `layer`, un-normalized blocks, with a check for overflow."""
  init_fn, apply_fn, kernel_fn = layer
  traced = isinstance(alphas, jax.core.Tracer)
  # The logarithm of the growth of variances.
  growth = 0.0 if traced else 2 * float(np.sum(np.log(np.hypot(1, alphas))))

  def check(name, inputs, outputs, growth):
    dtype = jnp.result_type(*outputs)
    remedy = (
        'Pass `normalize_blocks=True`, or alphas that fall with depth, such as '
        'depth**-0.5.'
    )
    if any(isinstance(leaf, jax.core.Tracer) for leaf in inputs + outputs):
      if growth > math.log(jnp.finfo(dtype).max):
        warnings.warn(
            f'{len(alphas)} residual blocks multiply their {name} by up to '
            f'exp({growth:.0f}), beyond the range of {dtype}: it may become '
            f'infinite or NaN. {remedy}',
            stacklevel=2,
        )
    elif _finite(inputs) and not _finite(outputs):
      raise OverflowError(
          f'the {name} of {len(alphas)} residual blocks is infinite or NaN: it '
          f'exceeds the range of {dtype}, unless the branch alone does, too. '
          f'{remedy}'
      )

  def checked_apply_fn(params, inputs, **kwargs):
    outputs = apply_fn(params, inputs, **kwargs)
    check('output', _floats(inputs), _floats(outputs), growth / 2)
    return outputs

  @functools.wraps(kernel_fn)
  def checked_kernel_fn(k, **kwargs):
    out = kernel_fn(k, **kwargs)
    check('kernel', _floats(k), _floats(out), growth)
    return out

  return init_fn, checked_apply_fn, checked_kernel_fn


def _floats(tree):
  """The arrays of floats in a kernel, an array or a `MaskedArray`."""
  leaves = map(jnp.asarray, jax.tree.leaves(tree))
  return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _finite(arrays):
  return all(bool(jnp.isfinite(array).all()) for array in arrays)

