"""Replacements in modules of neural-tangents after they have run, by module.

What is here is needed on each JAX from 0.7.2 on, the oldest that nt_residual supports,
except where the installed version is asked for. `layers` mends faults of neural-tangents itself.
"""

import functools
import inspect
import types
from collections.abc import Mapping
from typing import Any

from nt_residual.compat.jax_names import Overlay


def apply(module: types.ModuleType) -> None:
    """Replaces what has to be replaced in a module of neural-tangents, if anything."""
    if module.__name__ in _REPLACEMENTS:
        vars(module).update(_REPLACEMENTS[module.__name__](module))


# They import what they need when it is needed: `import nt_residual` stays light.


def _batching(module: Any) -> Mapping[str, Any]:
    import jax

    if jax.__version_info__ < (0, 8):
        return {}
    from nt_residual.compat import parallel

    return {"pmap": parallel.pmap}


def _empirical(module: Any) -> Mapping[str, Any]:
    from nt_residual.compat import empirical

    pullback = functools.partial(
        empirical.primals_out_and_pullback, module._backward_pass, module.rules
    )
    return {
        "_get_primals_out_and_pullback": pullback,
        "_eqn_jvp_fn": empirical.equation_jvp,
        "_eqn_vjp_fn": empirical.equation_vjp,
        "_read_primal": empirical.read_primal,
        "_write_cotangent": empirical.write_cotangent,
        "_get_flops": empirical.flops,
        "_to_tuple_tree": empirical.hashable,
        "jnp": Overlay("jax.numpy", module.jnp, empirical.array_functions()),
    }


def _linear(module: Any) -> Mapping[str, Any]:
    from nt_residual.compat import layers

    return {"jnp": Overlay("jax.numpy", module.jnp, {"trace": layers.trace})}


def _predict(module: Any) -> Mapping[str, Any]:
    import scipy.linalg

    if "eigvals" in inspect.signature(scipy.linalg.eigvalsh).parameters:
        return {}

    def eigvalsh(a: Any, *args: Any, eigvals: tuple[int, int] | None = None, **options: Any) -> Any:
        """`eigvals` became `subset_by_index` (removed in SciPy 1.14)."""
        return scipy.linalg.eigvalsh(a, *args, subset_by_index=eigvals, **options)

    linalg = Overlay("scipy.linalg", scipy.linalg, {"eigvalsh": eigvalsh})
    return {"sp": Overlay("scipy", module.sp, {"linalg": linalg})}


def _requirements(module: Any) -> Mapping[str, Any]:
    from nt_residual.compat import layers

    return {
        "_inputs_to_kernel": layers.with_checked_sizes(module._inputs_to_kernel),
        "mean_and_var": layers.without_mask_of_scalars(module.mean_and_var),
    }


def _rules(module: Any) -> Mapping[str, Any]:
    from nt_residual.compat import rules

    rules.add_rules(module)
    return {}


_REPLACEMENTS = {
    "neural_tangents._src.batching": _batching,
    "neural_tangents._src.empirical": _empirical,
    "neural_tangents._src.predict": _predict,
    "neural_tangents._src.stax.linear": _linear,
    "neural_tangents._src.stax.requirements": _requirements,
    "neural_tangents._src.utils.rules": _rules,
}
