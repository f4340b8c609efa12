"""Rules of structured derivatives for the primitives that today's JAX uses instead.

neural-tangents keeps two tables by primitive: how the Jacobian of its output with
respect to one input is structured (along which axes it is diagonal), and that Jacobian.
A primitive in neither is differentiated densely. Their form is that of
`neural_tangents._src.utils.rules`: an equation, the index of the input, what is known
of all inputs, and the shape of the output.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


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

    # For the input of a convolution neural-tangents raises instead of having no rule.
    conv = lax.conv_general_dilated_p
    structure, jacobian = rules.STRUCTURE_RULES[conv], rules.JACOBIAN_RULES[conv]

    rules.STRUCTURE_RULES[conv] = lambda equation, index, inputs, output: (
        structure(equation, index, inputs, output) if index == 1 else Structure()
    )
    rules.JACOBIAN_RULES[conv] = lambda equation, index, inputs, output: (
        jacobian if index == 1 else _dense_jacobian
    )(equation, index, inputs, output)


def _select_n_jacobian(equation: Any, index: int, inputs: Sequence[Any], output: Any) -> jax.Array:
    """1 on the diagonal where `which` selects this case."""
    del equation
    selected = jnp.broadcast_to(inputs[0].astype(jnp.int32) == index - 1, output.shape)
    return jnp.diag(selected.ravel().astype(output.dtype)).reshape(output.shape * 2)


def _dense_jacobian(equation: Any, index: int, inputs: Sequence[Any], output: Any) -> jax.Array:
    """Column by column."""
    unknown = inputs[index]

    def forward(tangent: jax.Array) -> jax.Array:
        return equation(*[tangent if i == index else x for i, x in enumerate(inputs)])

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
