"""Rules of structured derivatives for the primitives that today's JAX uses instead.

neural-tangents keeps two tables by primitive: how the Jacobian of its output with
respect to one input is structured (along which axes it is diagonal), and that Jacobian.
A primitive in neither is differentiated densely. Their form is that of
`neural_tangents._src.utils.rules`: an equation, the index of the input, what is known
of all inputs, and the shape of the output.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nt_residual.compat.linear_program import (
    Equation,
    LinearProgram,
    Variable,
    zeros_if_unknown,
)


def add_rules(rules: Any) -> None:
    """Adds to the tables of `neural_tangents._src.utils.rules`."""
    Structure = rules.Structure

    def select_n(equation: Any, index: int, inputs: Sequence[Any], output: Any) -> Any:
        """`jnp.where` of linear values: a mask, along every axis."""
        del equation
        axes = tuple(range(output.ndim))
        if inputs[0].ndim == 0:
            cases = tuple(range(1, len(inputs)))
            return Structure(out_trace=axes, in_trace=axes, in_trace_idxs=cases)
        return Structure(
            out_diagonal=axes, in_diagonal=tuple((axis,) * len(inputs) for axis in axes)
        )

    def slice_(equation: Any, index: int, inputs: Sequence[Any], output: Any) -> Any:
        """What `split`, new in JAX 0.4.38, is made of: see `linear_program`."""
        axes = tuple(i for i in range(output.ndim) if output.shape[i] == inputs[0].shape[i])
        return Structure(out_trace=axes, in_trace=axes, in_trace_idxs=(index,))

    rules.STRUCTURE_RULES[lax.select_n_p] = select_n
    rules.JACOBIAN_RULES[lax.select_n_p] = _select_n_jacobian
    rules.STRUCTURE_RULES[lax.slice_p] = slice_
    rules.JACOBIAN_RULES[lax.slice_p] = _dense_jacobian
    rules.EQN_PARAMS_RULES[lax.slice_p] = _trimmed_slice

    # For other inputs neural-tangents raises, or takes the rule of the usual one.
    for primitive, index in _ONLY_INPUT.items():
        _restrict(rules, primitive, index)


# The one input that the rules of a primitive are made for.
_ONLY_INPUT = {lax.conv_general_dilated_p: 1, lax.pad_p: 0}


def _restrict(rules: Any, primitive: Any, only: int) -> None:
    """Lets the rules of a primitive hold for one of its inputs, and others be without rule."""
    structure, jacobian = rules.STRUCTURE_RULES[primitive], rules.JACOBIAN_RULES[primitive]

    def structure_of_one(equation: Any, index: int, inputs: Sequence[Any], output: Any) -> Any:
        return structure(equation, index, inputs, output) if index == only else rules.Structure()

    def jacobian_of_one(equation: Any, index: int, inputs: Sequence[Any], output: Any) -> Any:
        rule = jacobian if index == only else _dense_jacobian
        return rule(equation, index, inputs, output)

    rules.STRUCTURE_RULES[primitive] = structure_of_one
    rules.JACOBIAN_RULES[primitive] = jacobian_of_one


def needs_copy(rules: Any, program: LinearProgram) -> Callable[[Variable, Equation], bool]:
    """Returns which inputs of a program should enter which equations behind a copy.

    * Where there is no rule, Jacobians are dense: of a whole `scan`, all of its outputs by
      all of its weights. Behind a copy they are smaller, unless the equation has fewer
      outputs than the function.
    * Where a real parameter makes a complex value, neural-tangents drops the imaginary part.
    * Where one parameter enters several equations, neural-tangents takes the structure that
      they have in common, and compares the axes of outputs alone: equations that are
      diagonal along different axes of the parameter would be taken for the same.
    """
    outputs = sum(var.aval.size for var in program.outvars)
    known = rules.STRUCTURE_RULES.keys() | rules.JACOBIAN_RULES.keys()

    def diagonal(var: Variable, equation: Equation) -> frozenset[tuple[int, int]]:
        """Axes of the output, each with the axis of this input that it is diagonal in."""
        index = equation.invars.index(var)
        inputs = [v.aval for v in equation.invars]
        structure = rules.get_structure(equation, inputs, index, True)
        pairs = zip(structure.out_diagonal, structure.in_diagonal, strict=True)
        return frozenset((out, axes[index]) for out, axes in pairs)

    diagonals = {
        var: {diagonal(var, equation) for equation in program.eqns if var in equation.invars}
        for var in program.invars
    }

    def needed(var: Variable, equation: Equation) -> bool:
        primitive, output = equation.primitive, equation.outvars[0].aval
        index = equation.invars.index(var)
        dense = (
            primitive not in known
            or primitive == lax.slice_p
            or _ONLY_INPUT.get(primitive, index) != index
        )
        return (
            (dense and output.size >= outputs)
            or jnp.issubdtype(output.dtype, jnp.complexfloating)
            or (len(diagonals[var]) > 1 and bool(diagonal(var, equation)))
        )

    return needed


def _select_n_jacobian(equation: Any, index: int, inputs: Sequence[Any], output: Any) -> jax.Array:
    """1 on the diagonal where `which` selects this case."""
    del equation
    selected = jnp.broadcast_to(inputs[0].astype(jnp.int32) == index - 1, output.shape)
    return jnp.diag(selected.ravel().astype(output.dtype)).reshape(output.shape * 2)


def _dense_jacobian(equation: Any, index: int, inputs: Sequence[Any], output: Any) -> jax.Array:
    """Column by column."""
    unknown, arrays = inputs[index], [zeros_if_unknown(x) for x in inputs]

    def forward(tangent: jax.Array) -> jax.Array:
        return equation(*arrays[:index], tangent, *arrays[index + 1 :])

    basis = jnp.eye(unknown.size, dtype=unknown.dtype).reshape(unknown.size, *unknown.shape)
    return jax.vmap(forward, out_axes=-1)(basis).reshape(*output.shape, *unknown.shape)


def _trimmed_slice(
    params: dict[str, Any], idx: int, trimmed_invals: Sequence[Any], trimmed_cts_in: Any
) -> Mapping[str, Any]:
    """The slice of an operand whose untouched axes are shortened to 1."""
    shape, sizes = trimmed_invals[idx].shape, trimmed_cts_in.shape
    bounds = zip(shape, sizes, params["start_indices"], params["limit_indices"], strict=True)
    kept = [(0, n) if n == m else (start, limit) for n, m, start, limit in bounds]
    params["start_indices"], params["limit_indices"] = zip(*kept, strict=True)
    return params
