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
        """Return the parts of `split`, new in JAX 0.4.38: see `linear_program`."""
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
    """Return a function that tells if an input should enter an equation behind a copy.

    neural-tangents forms the Jacobian of an equation with respect to its input by a rule, and
    takes three things for granted, which do not hold for every program of today's JAX:

    1. There is a rule. Without one the Jacobian is dense: of a whole `scan`, all of its outputs
       by all of its weights. Behind a copy there is the derivative of the function's outputs in
       its place, which is smaller unless the equation has fewer outputs than the function.
    2. Values are real. It drops the imaginary part of what a real parameter enters.
    3. A parameter that enters several equations is diagonal along the same axes in each. It
       compares axes of the outputs alone: in `w * a + einsum("ji,ij->ji", b, w)`, both terms are
       diagonal along both axes of the output, but along axes (0, 1) and (1, 0) of w.
    """
    n_outputs = sum(var.aval.size for var in program.outvars)
    diagonals = {
        var: {
            _diagonal_axes(rules, var, equation)
            for equation in program.eqns
            if var in equation.invars
        }
        for var in program.invars
    }

    def needed(var: Variable, equation: Equation) -> bool:
        output = equation.outvars[0].aval
        is_costly = not _has_rule(rules, var, equation) and output.size >= n_outputs
        is_complex = jnp.issubdtype(output.dtype, jnp.complexfloating)
        is_ambiguous = len(diagonals[var]) > 1 and bool(_diagonal_axes(rules, var, equation))
        return is_costly or is_complex or is_ambiguous

    return needed


def _has_rule(rules: Any, var: Variable, equation: Equation) -> bool:
    """Return whether the Jacobian with respect to this input is not dense."""
    primitive, index = equation.primitive, equation.invars.index(var)
    known = primitive in rules.STRUCTURE_RULES or primitive in rules.JACOBIAN_RULES
    return known and primitive != lax.slice_p and _ONLY_INPUT.get(primitive, index) == index


def _diagonal_axes(rules: Any, var: Variable, equation: Equation) -> frozenset[tuple[int, int]]:
    """Return axes of the output, each with the axis of this input that it is diagonal in."""
    index = equation.invars.index(var)
    inputs = [v.aval for v in equation.invars]
    structure = rules.get_structure(equation, inputs, index, True)
    pairs = zip(structure.out_diagonal, structure.in_diagonal, strict=True)
    return frozenset((out, axes[index]) for out, axes in pairs)


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
