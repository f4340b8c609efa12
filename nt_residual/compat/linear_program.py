"""The linear part of a function as a flat list of equations, from JAX's public API.

neural-tangents' structured derivatives walk the jaxpr that `ad.linearize` used to return. What JAX
returns now differs from release to release: nested `jit` equations, equations with several outputs,
rematerialized blocks with non-linear equations in them, constants among the equations. `linearize`
gives the one form that they were written for.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray, eval_jaxpr
from jax.extend.core import Literal
from jax.interpreters.ad import UndefinedPrimal

# Equations that call a jaxpr once, on their own inputs and for their own outputs.
_CALLS = {"closed_call", "core_call", "core_closed_call", "jit"}
_CALLS |= {"custom_jvp_call", "custom_vjp_call"}
# The same, with equations in the jaxpr that compute constants anew and are not linear.
_REMATERIALISED = {"checkpoint", "remat", "remat2"}


@dataclasses.dataclass(frozen=True, eq=False)
class Variable:
    """A value of a linear program, told apart by identity; `aval` has its shape and dtype."""

    aval: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
    """One output, of index `output`, of one primitive. Calling it evaluates it."""

    primitive: Any
    params: Mapping[str, Any]
    invars: Sequence[Variable]
    outvars: Sequence[Variable]
    output: int = 0

    def __call__(self, *inputs: Any) -> Any:
        """Returns the output at these inputs, one for each of `invars`."""
        return bind(self.primitive, self.params, inputs)[self.output]

    def replace(self, **changes: Any) -> "Equation":
        """Return a copy with some fields changed; neural-tangents calls it."""
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True, eq=False)
class LinearProgram:
    """Equations from `invars` to `outvars`, linear in `invars`, with the names of a jaxpr."""

    invars: Sequence[Variable]
    outvars: Sequence[Variable]
    eqns: Sequence[Equation]
    constvars: Sequence[Variable]
    consts: Sequence[Any]


def bind(primitive: Any, params: Mapping[str, Any], inputs: Sequence[Any]) -> Sequence[Any]:
    """Evaluates a primitive and returns its outputs as a sequence."""
    bound = primitive.get_bind_params(params)
    # The functions that a primitive calls come apart from its parameters in JAX 0.8.
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    outputs = primitive.bind(*functions, *inputs, **params)
    return list(outputs) if primitive.multiple_results else [outputs]


def zeros_if_unknown(x: Any) -> Any:
    """Zeros where neural-tangents passes a shape alone: the value plays no part there."""
    aval = x.aval if isinstance(x, UndefinedPrimal) else x
    if isinstance(aval, ShapedArray):
        return jnp.zeros(aval.shape, aval.dtype)
    return x


def linearize(fun: Callable, *primals: jax.Array) -> tuple[Any, LinearProgram]:
    """Return the value of a function of arrays, and its derivative as a linear program.

    The program has an input for each of `primals` and an output for each leaf of the value.
    Its constants may be tracers.

    Raises:
      TypeError: if one of `primals` is not of a floating-point dtype.
      NotImplementedError: if `fun` uses mutable arrays.
    """
    for primal in primals:
        if not jnp.issubdtype(primal.dtype, jnp.floating):
            raise TypeError(
                f"The NTK differentiates f with respect to all of params, which must be "
                f"floating-point arrays; got {primal.dtype} of shape {primal.shape}. Close f "
                f"over what is not trained, and pass the rest as params."
            )
    value, tangent_fun = jax.linearize(fun, *primals)
    closed = jax.make_jaxpr(tangent_fun)(*primals)
    return value, _Flattener().flatten(closed.jaxpr, closed.consts)


def copy_inputs(
    program: LinearProgram, needs_copy: Callable[[Variable, Equation], bool]
) -> LinearProgram:
    """Puts a copy between an input and each equation for which `needs_copy` is true.

    The Jacobian with respect to the input is then that of the copy, which is simple.
    """
    parameters = set(program.invars)
    equations: list[Equation] = []
    for equation in program.eqns:
        copies = {
            var: Variable(var.aval)
            for var in equation.invars
            if var in parameters and needs_copy(var, equation)
        }
        equations.extend(Equation(lax.copy_p, {}, [var], [copy]) for var, copy in copies.items())
        invars = [copies.get(var, var) for var in equation.invars]
        equations.append(equation.replace(invars=invars))
    return dataclasses.replace(program, eqns=equations)


class _Flattener:
    """Rewrites one linear jaxpr as a linear program."""

    def __init__(self):
        self.equations: list[Equation] = []
        # Everything else that the equations mention is linear in the program's inputs.
        self.constants: dict[Variable, Any] = {}

    def flatten(self, jaxpr: Any, consts: Sequence[Any]) -> LinearProgram:
        invars = [Variable(var.aval) for var in jaxpr.invars]
        outvars = self._inline(jaxpr, consts, invars)
        equations = _needed(self.equations, outvars)
        return LinearProgram(
            invars, outvars, equations, list(self.constants), list(self.constants.values())
        )

    def _inline(
        self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Variable]
    ) -> list[Variable]:
        """Appends the equations of a jaxpr and returns its outputs."""
        env = dict(zip(jaxpr.invars, inputs, strict=True))
        env.update(zip(jaxpr.constvars, map(self._constant, map(jnp.asarray, consts)), strict=True))

        def read(atom: Any) -> Variable:
            if isinstance(atom, Literal):
                # A scalar or an array of another kind, which the rules do not know.
                aval: Any = atom.aval
                return self._constant(jnp.asarray(atom.val, aval.dtype))
            return env[atom]

        for eqn in jaxpr.eqns:
            outputs = self._equation(eqn, [read(atom) for atom in eqn.invars])
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, inputs: Sequence[Variable]) -> list[Variable]:
        """Appends what one equation amounts to and returns its outputs."""
        primitive, params = eqn.primitive, eqn.params
        if not all(isinstance(var.aval, ShapedArray) for var in (*eqn.invars, *eqn.outvars)):
            raise NotImplementedError(
                f"Structured derivatives do not follow values through mutable arrays "
                f"(jax.new_ref), and f uses one in `{primitive}`. Pass implementation=1."
            )
        if all(var in self.constants for var in inputs):
            values = bind(primitive, params, [self.constants[var] for var in inputs])
            return [self._constant(value) for value in values]
        if primitive.name in _CALLS | _REMATERIALISED:
            inner = next(params[key] for key in ("jaxpr", "call_jaxpr") if key in params)
            consts = getattr(inner, "consts", ())  # An open jaxpr has none.
            inner = getattr(inner, "jaxpr", inner)
            if primitive.name in _REMATERIALISED:
                return self._linear_part(inner, consts, inputs)
            return self._inline(inner, consts, inputs)

        if primitive.name == "split":
            (x,) = (jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in inputs)
            slices = jax.make_jaxpr(functools.partial(_slices, **params))(x)
            return self._inline(slices.jaxpr, slices.consts, inputs)

        outputs = [Variable(var.aval) for var in eqn.outvars]
        self.equations.extend(
            Equation(primitive, params, inputs, [output], index)
            for index, output in enumerate(outputs)
        )
        return outputs

    def _linear_part(
        self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Variable]
    ) -> list[Variable]:
        """Appends what a jaxpr does with inputs that are not constant, in which it is linear.

        JAX finds that part, also where a loop carries constants and others side by side.
        """
        linear = [var for var in inputs if var not in self.constants]

        def fun(*tangents: jax.Array) -> Sequence[jax.Array]:
            values = self.constants | dict(zip(linear, tangents, strict=True))
            return eval_jaxpr(jaxpr, consts, *[values[var] for var in inputs])

        zeros = [jnp.zeros(var.aval.shape, var.aval.dtype) for var in linear]
        _, tangent_fun = jax.linearize(fun, *zeros)
        closed = jax.make_jaxpr(tangent_fun)(*zeros)
        return self._inline(closed.jaxpr, closed.consts, linear)

    def _constant(self, value: Any) -> Variable:
        var = Variable(jax.typeof(value))
        self.constants[var] = value
        return var


def _slices(x: jax.Array, sizes: Sequence[int], axis: int) -> list[jax.Array]:
    """`split` as the slices that it was before JAX 0.4.38."""
    stops = itertools.accumulate(map(int, sizes))
    return [
        lax.slice_in_dim(x, stop - int(size), stop, axis=axis)
        for size, stop in zip(sizes, stops, strict=True)
    ]


def _needed(equations: Sequence[Equation], outvars: Sequence[Variable]) -> list[Equation]:
    """The equations that some output depends on."""
    needed, kept = set(outvars), []
    for equation in reversed(equations):
        if needed.intersection(equation.outvars):
            needed.update(equation.invars)
            kept.append(equation)
    return kept[::-1]
