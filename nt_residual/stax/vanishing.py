# Copyright 2026 The nt_residual Authors
# SPDX-License-Identifier: Apache-2.0

"""A test of layers: does the output vanish with the parameters?"""

import enum

import jax
import numpy as np
from jax import numpy as jnp
from jax import random
from neural_tangents import stax


def vanishes(layer, input_shape, **kwargs):
  """Tells if a layer maps every input to zero when all its parameters are.

  Then each path from its input to its output multiplies by parameters: if these
  are random, independent and of mean zero, the output is not correlated with
  the input. The operations of `apply_fn` are followed but not carried out. The
  values of `kwargs`, which it gets, do not matter. The answer is `True` as well
  if it is not implemented.
  """
  init_fn, apply_fn, _ = layer
  _, params = abstract_init(init_fn, input_shape)

  def network(params, inputs, rng, arrays):
    keywords = {**kwargs, **arrays, 'rng': rng}
    return stax.unmask_fn(apply_fn)(params, inputs, **keywords)

  rng = jax.eval_shape(random.PRNGKey, 0)
  arrays = {
      key: value
      for key, value in kwargs.items()
      if isinstance(value, (int, float, np.ndarray, np.number, jax.Array))
      and not isinstance(value, bool)
  }
  inputs = jax.ShapeDtypeStruct(input_shape, jnp.result_type(float))
  try:
    jaxpr = jax.make_jaxpr(network)(params, inputs, rng, arrays).jaxpr
  except NotImplementedError:
    return True
  values = [_Value.ZERO] * len(jax.tree.leaves(params))
  values += [_Value.LIVE] + [_Value.CONSTANT] * (1 + len(arrays))
  return _Value.LIVE not in _outputs(jaxpr, values)


def abstract_init(init_fn, input_shape):
  """The output shape of a layer and its parameters, none of which is drawn."""
  output_shape = None

  def init(rng):
    nonlocal output_shape
    output_shape, params = init_fn(rng, input_shape)
    return params

  params = jax.eval_shape(init, jax.eval_shape(random.PRNGKey, 0))
  return output_shape, params


class _Value(enum.IntEnum):
  """The known facts about an array when all parameters are zero."""

  ZERO = 0
  CONSTANT = 1  # It does not depend on the inputs.
  LIVE = 2  # It may.


# Operations that are zero where one of their first one or two operands is.
_FACTORS = {
    'mul': 2,
    'dot_general': 2,
    'conv_general_dilated': 2,
    'div': 1,
    'pow': 1,
}
# Functions that are not zero at zero.
_NOT_ZERO = ('exp', 'exp2', 'cos', 'cosh', 'logistic', 'log', 'rsqrt', 'erfc')


def _outputs(jaxpr, inputs):
  """The values of the outputs of a program, given those of its inputs."""
  values = dict(zip(jaxpr.constvars, [_Value.CONSTANT] * len(jaxpr.constvars)))
  values.update(zip(jaxpr.invars, inputs))

  def read(atom):
    if hasattr(atom, 'val'):  # A literal.
      zero = jnp.ndim(atom.val) == 0 and atom.val == 0
      return _Value.ZERO if zero else _Value.CONSTANT
    return values[atom]

  for eqn in jaxpr.eqns:
    operands = [read(atom) for atom in eqn.invars]
    values.update(zip(eqn.outvars, _equation(eqn, operands)))
  return [read(atom) for atom in jaxpr.outvars]


def _equation(eqn, operands):
  name, params = eqn.primitive.name, eqn.params
  if name == 'scan':
    body = _program(params['jaxpr'])
    # Constants, what is carried, and what is scanned, which has one axis less
    # inside. JAX counts them under other names in each version.
    num_carry = sum(map(_same_ndim, eqn.outvars, body.outvars))
    num_scanned = len(operands) - sum(map(_same_ndim, eqn.invars, body.invars))
    n = len(operands) - num_carry - num_scanned
    return _loop(body, operands[:n], operands[n:], num_carry)
  if name == 'while':
    skipped, n = params['cond_nconsts'], params['body_nconsts']
    operands = operands[skipped:]
    carry = operands[n:]
    body = _program(params['body_jaxpr'])
    return _loop(body, operands[:n], carry, len(carry))
  if name == 'cond':
    programs = map(_program, params['branches'])
    branches = (_outputs(program, operands[1:]) for program in programs)
    return map(max, zip(*branches))
  inner = _inner(params, len(operands))
  if inner is not None:
    return _outputs(inner, operands)

  # Indices and predicates do not carry values.
  values = [
      value
      for value, atom in zip(operands, eqn.invars)
      if jnp.issubdtype(atom.aval.dtype, jnp.inexact)
  ]
  factors = values[: _FACTORS.get(name, 0)]
  if _Value.ZERO in factors:
    out = _Value.ZERO
  elif not values or (name in _NOT_ZERO and values[0] == _Value.ZERO):
    out = _Value.CONSTANT
  else:
    out = max(values)
  return [out] * len(eqn.outvars)


def _loop(jaxpr, consts, operands, num_carry):
  """A loop, until the values that it carries stay the same."""
  carry, rest = operands[:num_carry], operands[num_carry:]
  while True:
    outputs = _outputs(jaxpr, consts + carry + rest)
    joined = list(map(max, carry, outputs[:num_carry]))
    if joined == carry:
      return outputs
    carry = joined


def _inner(params, num_operands):
  """The program that an equation calls, if it does."""
  for value in params.values():
    inner = _program(value)
    if hasattr(inner, 'eqns') and len(inner.invars) == num_operands:
      return inner
  return None


def _program(jaxpr):
  """A `Jaxpr`, also if it is given with its constants."""
  return getattr(jaxpr, 'jaxpr', jaxpr)


def _same_ndim(a, b):
  return a.aval.ndim == b.aval.ndim
