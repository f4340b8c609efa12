"""What every function here takes as a network: Flax modules, or any function of parameters."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from nt_residual.finite_width.descent import hashable

# Outputs that differ by more, relative to the largest, do so because of the batch they are in.
_BATCH_TOLERANCE = 1e-3


class Network(NamedTuple):
    """A network as functions use it.

    Attributes:
      apply: `apply(params, rest, x)`, the outputs for a batch, shape (n, outputs).
      params: what is trained, a pytree of arrays.
      rest: what is not, a pytree of arrays.
    """

    apply: Callable[[Any, Any, jax.Array], Any]
    params: Any
    rest: Any = ()

    def __call__(self, params: Any, x: jax.Array) -> Any:
        """The outputs with other parameters."""
        return self.apply(params, self.rest, x)


# Two that compute the same are equal, so that programs compiled for one serve the other.
@dataclasses.dataclass(frozen=True)
class _Module:
    graph: Any

    def __call__(self, params, rest, x):
        return nnx.merge(self.graph, params, rest)(x)


@dataclasses.dataclass(frozen=True)
class _Function:
    apply_fn: Callable

    def __call__(self, params, rest, x):
        return self.apply_fn(params, x)


def as_network(network: Any, x: jax.Array | np.ndarray) -> Network:
    """A network with parameters, as a `Network`.

    Args:
      network: an `nnx.Module`, of which `nnx.Param` are trained; or a pair `(apply_fn, params)`
        with `apply_fn(params, x)`, as of `stax` or of a Flax linen module.
      x: a batch of inputs, to check it with.

    Raises:
      TypeError: if `network` is none of these, or a parameter does not hold real floats.
      ValueError: if nothing of it is trained, its output has no shape (n, outputs), or depends on
        the other inputs of a batch or on random numbers, as with BatchNorm and Dropout in training.
    """
    if isinstance(network, Network):  # Which was checked when it was made.
        return network
    if isinstance(network, nnx.Module):
        graph, params, rest = nnx.split(network, nnx.Param, ...)
        found = Network(_Module(graph), params, rest)
    elif isinstance(network, tuple) and len(network) == 2 and callable(network[0]):
        apply_fn, params = network
        if isinstance(params, Mapping):  # Of linen.
            _refuse_statistics(params)
        found = Network(_Function(hashable(apply_fn)), params)
    else:
        raise TypeError(
            "network must be a flax.nnx module or a pair (apply_fn, params), got "
            f"{type(network).__name__}. For a linen module pass (module.apply, variables)."
        )
    return _check(found, x)


def initializer(
    network: Any, x: jax.Array, *, check: bool = True
) -> Callable[[jax.Array], Network]:
    """A function of a key to a `Network` with new parameters, that JAX can transform.

    Args:
      network: a function of `rngs=` that makes an `nnx.Module`, such as
        `functools.partial(ResNet, 10, 64, in_dim=3)`; a Flax linen module; or a tuple that begins
        with `init_fn(key, shape)` and `apply_fn(params, x)`, as of `stax`.
      x: a batch of inputs, to know their shape and to check the network with.
      check: whether to make one network and check it, for which it must fit in memory.

    Raises:
      TypeError, ValueError: as `as_network`.
    """
    if isinstance(network, linen.Module):

        def make(key):
            with _without_random_numbers():
                variables = network.init(key, x[:1])
            _refuse_statistics([name for name in variables if name != "params"])
            return Network(_Function(network.apply), variables)

    elif isinstance(network, tuple) and len(network) >= 2 and all(map(callable, network[:2])):
        init_fn, apply_fn = network[:2]

        def make(key):
            return Network(_Function(apply_fn), init_fn(key, x.shape)[1])

    elif callable(network) and not isinstance(network, nnx.Module):

        def make(key):
            model = network(rngs=nnx.Rngs(key, params=key))
            if not isinstance(model, nnx.Module):
                raise TypeError(
                    f"network(rngs=…) must return a flax.nnx module, got {type(model).__name__}."
                )
            graph, params, rest = nnx.split(model, nnx.Param, ...)
            return Network(_Module(graph), params, rest)

    else:
        raise TypeError(
            "network must be a function of rngs= that makes a flax.nnx module, a linen module, or "
            f"a tuple (init_fn, apply_fn, …), got {type(network).__name__}."
        )
    if check:
        _check(make(jax.random.key(0)), x)
    return make


def outputs(network: Network, x: Any) -> jax.Array:
    """The outputs for a batch, of a program that networks share which differ in numbers only."""
    return _compiled(hashable(network.apply), network.params, network.rest, x)


def _refuse_statistics(names) -> None:
    if "batch_stats" in names:
        raise ValueError(
            "network must not train the statistics of batches, batch_stats, that BatchNorm keeps. "
            "Make them constants: with BatchNorm(use_running_average=True) pass "
            "apply_fn = lambda params, x: module.apply({'params': params, 'batch_stats': stats}, "
            "x) in place of module.apply, and variables['params'] in place of variables."
        )


@contextlib.contextmanager
def _without_random_numbers():
    try:
        yield
    except flax.errors.InvalidRngError as error:
        raise ValueError(
            f"network must be the same function in each call, but draws random numbers: {error}. "
            "Pass deterministic=True to Dropout, as for evaluation."
        ) from None


def _refuse_changes(network: Network, x) -> None:
    """Refuses a module of nnx that changes itself when it is called."""
    if not isinstance(network.apply, _Module):
        return
    changed = []

    def values(model):
        leaves = jax.tree.leaves_with_path(
            nnx.state(model), is_leaf=lambda v: isinstance(v, nnx.Variable)
        )
        return {path: (type(v).__name__, *jax.tree.leaves(v)) for path, v in leaves}

    def call(params, rest, x):
        model = nnx.merge(network.apply.graph, params, rest)
        before = values(model)
        model(x)
        for path, (name, *arrays) in values(model).items():
            old = before.get(path, (name, *arrays))[1:]
            if any(a is not b for a, b in zip(old, arrays, strict=True)):
                changed.append((jax.tree_util.keystr(path, simple=True, separator="."), name))

    jax.eval_shape(call, network.params, network.rest, x)
    if not changed:
        return
    path, name = changed[0]
    cause = "keeps statistics"
    if name.startswith("Rng"):
        cause = "draws random numbers, as Dropout does"
    raise ValueError(
        f"network must be the same function in each call, but each call changes {path} ({name}): "
        f"the network {cause} in training. Call model.eval() first (a function of rngs= does so "
        "before it returns the model). Dropout is off then, and BatchNorm has constant statistics."
    )


def _checked_params(params: Any) -> Any:
    """Parameters as arrays, refused if one is not real floats."""
    for path, leaf in jax.tree.leaves_with_path(params):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None:
            dtype = np.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            name = "params" + jax.tree_util.keystr(path).removesuffix(".value")
            got = type(leaf).__name__ if dtype == np.dtype(object) else f"dtype {dtype}"
            raise TypeError(
                f"{name} must hold real floats, as all of params are trained, got {got}. Close "
                "over what is not trained, or convert it to float32."
            )
    return jax.tree.map(jnp.asarray, params)


def _check(network: Network, x) -> Network:
    """The network with its parameters as arrays, refused if it is none that can be trained."""
    if not jax.tree.leaves(network.params):
        raise ValueError(
            "network must have parameters that are trained, got none: all of its layers are frozen."
        )
    network = network._replace(params=_checked_params(network.params))
    some = jnp.asarray(x)[:2]
    _refuse_changes(network, some)
    with _without_random_numbers():
        out = outputs(network, some)
    shape = jax.tree.map(jnp.shape, out)
    if not isinstance(out, jax.Array) or out.ndim != 2 or len(out) != len(some):
        raise ValueError(
            f"network must return one row of outputs for each input, shape ({len(some)}, outputs), "
            f"got shape {shape}."
        )
    alone = outputs(network, some[:1])
    out, alone = np.asarray(out[:1]), np.asarray(alone)
    if np.max(np.abs(out - alone)) > _BATCH_TOLERANCE * np.max(np.abs(out), initial=0):
        raise ValueError(
            "network must give each input an output of its own, but that of the first input "
            "changes with the rest of the batch, as with BatchNorm. Take it out."
        )
    return network


# Operation by operation, loops over blocks would be compiled anew for each network.
@functools.partial(jax.jit, static_argnums=0)
def _compiled(apply, params, rest, x):
    return apply(params, rest, x)
