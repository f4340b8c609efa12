"""Conversion of Flax modules and functions of parameters to one form, with checks."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax.typing import ArrayLike

# The largest relative difference between outputs of one input alone and in a batch.
_BATCH_TOLERANCE = 1e-3


class Network(NamedTuple):
    """A network in the form that all functions of this package use."""

    # Hashable, and equal for networks that differ in numbers only: they share compiled programs.
    apply: Callable[[Any, Any, jax.Array], Any]
    params: Any  # The trained parameters, a pytree of arrays.
    rest: Any = ()  # The other variables, likewise.

    def __call__(self, params: Any, x: jax.Array) -> Any:
        """Return the outputs with other parameters."""
        return self.apply(params, self.rest, x)


@dataclasses.dataclass(frozen=True)
class _Module:
    graph: Any

    def __call__(self, params, rest, x):
        model = nnx.merge(self.graph, params, rest)
        before = jax.tree.leaves_with_path(nnx.state(model))
        out = model(x)
        # Traced arrays are the same objects as long as the module assigns no others.
        for (path, old), new in zip(before, jax.tree.leaves(nnx.state(model)), strict=False):
            if old is not new:
                name = jax.tree_util.keystr(path[:-1], simple=True, separator=".")
                raise ValueError(
                    "network must be the same function in each call, but each call changes "
                    f"{name}, as BatchNorm and Dropout do in training. Call model.eval() first; a "
                    "function of rngs= does so before it returns the model."
                )
        return out


@dataclasses.dataclass(frozen=True)
class _Function:
    apply_fn: Callable

    def __call__(self, params, rest, x):
        return self.apply_fn(params, x)


def as_network(network: Any, x: ArrayLike) -> Network:
    """Return a network with parameters as a `Network`, after checks with a batch of inputs.

    It is an `nnx.Module`, whose `nnx.Param` are trained, or a pair `(apply_fn, params)`.
    """
    if isinstance(network, Network):  # It was checked when it was made.
        return network
    if isinstance(network, nnx.Module):
        return _checked(_from_module(network), x)
    if isinstance(network, tuple) and len(network) == 2 and callable(network[0]):
        apply_fn, params = network
        if isinstance(params, Mapping):  # The variables of a linen module.
            _refuse_statistics(params)
        return _checked(Network(_Function(hashable(apply_fn)), params), x)
    raise TypeError(
        "network must be a flax.nnx module or a pair (apply_fn, params), got "
        f"{type(network).__name__}. For a linen module pass (module.apply, variables)."
    )


def initializer(
    network: Any, x: jax.Array, *, check: bool = True
) -> Callable[[jax.Array], Network]:
    """Return a function of a random key that makes a `Network`; JAX can transform it.

    `network` is a function of `rngs=` that makes an `nnx.Module`; a Flax linen module; or a tuple
    that begins with `init_fn(key, shape)` and `apply_fn(params, x)`, as of `stax`. With `check` one
    is made and checked as by `as_network`.
    """
    if isinstance(network, linen.Module):

        def make(key):
            variables = network.init(key, x[:1])
            _refuse_statistics(variables)
            return Network(_Function(hashable(network.apply)), variables)

    elif isinstance(network, tuple) and len(network) >= 2 and all(map(callable, network[:2])):
        init_fn, apply_fn = network[:2]

        def make(key):
            return Network(_Function(hashable(apply_fn)), init_fn(key, x.shape)[1])

    elif callable(network) and not isinstance(network, nnx.Module):

        def make(key):
            model = network(rngs=nnx.Rngs(key, params=key))
            if not isinstance(model, nnx.Module):
                raise TypeError(
                    f"network(rngs=…) must return a flax.nnx module, got {type(model).__name__}."
                )
            return _from_module(model)

    else:
        raise TypeError(
            "network must be a function of rngs= that makes a flax.nnx module, a linen module, or "
            f"a tuple (init_fn, apply_fn, …), got {type(network).__name__}."
        )
    if check:
        _checked(make(jax.random.key(0)), x)
    return make


# Without jit, the loop over blocks would be compiled anew for each network.
@functools.partial(jax.jit, static_argnums=0)
def _apply(apply, params, rest, x):
    return apply(params, rest, x)


def outputs(network: Network, x: Any) -> jax.Array:
    """Return the outputs for a batch."""
    return _apply(network.apply, network.params, network.rest, x)


def hashable(function: Callable) -> Callable:
    """Return the function in a form that `jax.jit` accepts as a static argument."""
    try:
        hash(function)
    except TypeError:
        return functools.partial(function)  # Hashed by identity.
    return function


def _from_module(model: nnx.Module) -> Network:
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    return Network(_Module(graph), params, rest)


def _checked(network: Network, x: ArrayLike) -> Network:
    """Return the network with its parameters as arrays, after all checks."""
    if not jax.tree.leaves(network.params):
        raise ValueError(
            "network must have parameters that are trained, got none: all of its layers are frozen."
        )
    network = network._replace(params=_checked_params(network.params))
    some = jnp.asarray(x)[:2]
    out = outputs(network, some)
    if not isinstance(out, jax.Array) or out.ndim != 2 or len(out) != len(some):
        raise ValueError(
            f"network must return one row of outputs for each input, shape ({len(some)}, outputs), "
            f"got shape {jax.tree.map(jnp.shape, out)}."
        )
    out, alone = np.asarray(out[:1]), np.asarray(outputs(network, some[:1]))
    if np.max(np.abs(out - alone)) > _BATCH_TOLERANCE * np.max(np.abs(out), initial=0):
        raise ValueError(
            "network must compute the output of an input from that input alone, but the first "
            "output changes with the rest of the batch, as with BatchNorm. Remove such layers."
        )
    return network


def _checked_params(params: Any) -> Any:
    for path, leaf in jax.tree.leaves_with_path(params):
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            name = "params" + jax.tree_util.keystr(path).removesuffix(".value")
            raise TypeError(
                f"{name} must hold real floats, as all of params are trained, got dtype {dtype}. "
                "Close over what is not trained, or convert it to float32."
            )
    return jax.tree.map(jnp.asarray, params)


def _refuse_statistics(variables: Mapping[str, Any]) -> None:
    if "batch_stats" in variables:
        raise ValueError(
            "network must not train batch_stats. With BatchNorm(use_running_average=True) pass "
            "lambda params, x: module.apply({'params': params, 'batch_stats': stats}, x) and "
            "variables['params']."
        )
