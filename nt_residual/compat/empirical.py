"""Stands in for the parts of `neural_tangents._src.empirical` that JAX has left behind."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import ad

from nt_residual.compat import linear_program
from nt_residual.compat.linear_program import Equation, Variable, zeros_if_unknown
from nt_residual.compat.rules import needs_copy


def primals_out_and_pullback(
    backward_pass: Callable,
    rules: Any,
    fn: Callable,
    mode: Any,
    _j_rules: bool,
    _s_rules: bool,
    _fwd: bool | None,
    *primals_in: Any,
) -> tuple[Any, Callable]:
    """Replaces `_get_primals_out_and_pullback`, which calls `ad.linearize`.

    Its result has another form since JAX 0.7, and its arguments since JAX 0.10.
    """
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, primals_in))
    value, program = linear_program.linearize(
        lambda *leaves: fn(*jax.tree.unflatten(structure, leaves)), *leaves
    )
    program = linear_program.copy_inputs(program, needs_copy(rules, program))

    def pullback(*cotangents: Any) -> Any:
        return jax.tree.unflatten(
            structure,
            backward_pass(
                program,
                consts=program.consts,
                primals_in=[ad.UndefinedPrimal(var.aval) for var in program.invars],
                cotangents_in=tuple(jax.tree.leaves(cotangents)),
                mode=mode,
                _j_rules=_j_rules,
                _s_rules=_s_rules,
                _fwd=_fwd,
            ),
        )

    return value, pullback


def equation_jvp(equation: Equation | None, index: int, tangent: Any, *inputs: Any) -> Any:
    """Replaces `_eqn_jvp_fn`, which takes the rules of `ad.primitive_jvps` to return arrays.

    An equation of a linear program is its own derivative.
    """
    if equation is None:
        return tangent
    arrays = [zeros_if_unknown(x) for x in inputs]
    if equation.primitive.name == "custom_lin":
        # The derivative of a `custom_vjp` function can only be transposed: do so twice.
        def vjp(cotangent):
            return equation_vjp(equation, cotangent, *inputs)[index]

        (tangent_out,) = jax.linear_transpose(vjp, equation.outvars[0].aval)(tangent)
        return tangent_out
    arrays[index] = tangent
    return equation(*arrays)


def equation_vjp(equation: Equation | None, cotangent: Any, *inputs: Any) -> Sequence[Any]:
    """Replaces `_eqn_vjp_fn`, which asks for `ad.reducing_transposes` (gone since JAX 0.10)."""
    if equation is None:
        return (cotangent,)
    linear = [i for i, x in enumerate(inputs) if isinstance(x, ad.UndefinedPrimal)]
    cotangents: list[Any] = [None] * len(inputs)
    if isinstance(cotangent, ad.Zero):
        return cotangents
    arrays = [zeros_if_unknown(x) for x in inputs]

    def forward(*tangents):
        args = list(arrays)
        for i, tangent in zip(linear, tangents, strict=True):
            args[i] = tangent
        return equation(*args)

    avals = [inputs[i].aval for i in linear]
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
    transposed = jax.linear_transpose(forward, *shapes)
    if equation.primitive == lax.reshape_p:
        # neural-tangents gives it cotangents in the shape of the input.
        cotangent = cotangent.reshape(jax.eval_shape(forward, *shapes).shape)
    for i, ct in zip(linear, transposed(cotangent), strict=True):
        cotangents[i] = ct
    return cotangents


def read_primal(env: Mapping[Variable, Any], var: Variable) -> Any:
    """Replaces `_read_primal`, which asks for `core.DShapedArray` (gone since JAX 0.8.2)."""
    return env.get(var, ad.UndefinedPrimal(var.aval))


def write_cotangent(primitive: Any, env: dict[Variable, Any], var: Variable, ct: Any) -> None:
    """Replaces `_write_cotangent`, which asks for `core.lattice_join` (gone since JAX 0.6)."""
    del primitive
    if ct is not None and not isinstance(ct, ad.Zero):
        env[var] = ad.add_tangents(env[var], ct) if var in env else ct


def flops(f: Callable, optimize: bool, *args: Any, **kwargs: Any) -> float:
    """Replaces `_get_flops`: `cost_analysis` returns a dictionary since JAX 0.5, or nothing."""
    stage = jax.jit(f).lower(*args, **kwargs)
    analysis = (stage.compile() if optimize else stage).cost_analysis()
    return float((analysis or {}).get("flops", 0.0))


def array_functions() -> dict[str, Callable]:
    """Replaces `jnp.size` for abstract shapes, and `jnp.dtype` for arrays, which JAX warns of."""
    return {"size": lambda x: math.prod(np.shape(x)), "dtype": jnp.result_type}


def hashable(tree: Any) -> tuple:
    """Replaces `_to_tuple_tree`, the key of a cache, which knows no trees as the states of Flax."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_shape)
    return tuple(leaves), structure


def _is_shape(x: Any) -> bool:
    return isinstance(x, tuple) and all(isinstance(size, int) for size in x)
