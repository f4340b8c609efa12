"""Which functions of neural-tangents are replaced, module by module, once it has run."""

import functools
import types

from nt_residual.compat.jax_names import Overlay


def apply(module: types.ModuleType) -> None:
    """Replaces what today's JAX needs replaced in a module of neural-tangents."""
    adapt = _ADAPTATIONS.get(module.__name__)
    if adapt is not None:
        adapt(module)


def _empirical(module: types.ModuleType) -> None:
    from nt_residual.compat import empirical

    vars(module).update(
        _get_primals_out_and_pullback=functools.partial(
            empirical.primals_out_and_pullback, module._backward_pass
        ),
        _eqn_jvp_fn=empirical.equation_jvp,
        _eqn_vjp_fn=empirical.equation_vjp,
        _read_primal=empirical.read_primal,
        _write_cotangent=empirical.write_cotangent,
        _get_flops=empirical.flops,
        _to_tuple_tree=empirical.hashable,
        jnp=Overlay("jax.numpy", module.jnp, empirical.array_functions()),
    )


def _rules(module: types.ModuleType) -> None:
    from nt_residual.compat import rules

    rules.add_rules(module)


def _batching(module: types.ModuleType) -> None:
    from nt_residual.compat import parallel

    module.pmap = parallel.pmap


def _predict(module: types.ModuleType) -> None:
    from nt_residual.compat import scipy_names

    module.sp = scipy_names.overlay(module.sp)


_ADAPTATIONS = {
    "neural_tangents._src.batching": _batching,
    "neural_tangents._src.empirical": _empirical,
    "neural_tangents._src.predict": _predict,
    "neural_tangents._src.utils.rules": _rules,
}
