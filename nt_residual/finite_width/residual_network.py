"""The common part of fully-connected and convolutional residual networks."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
from flax import nnx
from jax import lax
from jax.typing import ArrayLike

from nt_residual import _checks, schedules

# Random numbers per iteration of the loop that draws the initial weights.
_DRAWN_AT_ONCE = 2**16


class Frozen(nnx.Variable):
    """A variable of a network that is not trained: the weights of a frozen layer, or α."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything about a network but its numbers: that of `stax` with the same arguments."""

    make: Callable  # stax.FullyConnectedResNet or stax.ConvResNet
    depths: tuple[int, ...]  # The number of blocks of each stage.
    options: tuple[tuple[str, Any], ...]  # The other arguments of `make`, but the schedule.
    input_shape: tuple[int, ...]

    def stax_network(self, alphas: Any) -> Any:
        """Return `(init_fn, apply_fn, kernel_fn)`."""
        options = dict(self.options)
        if options["activation"] is not None and not callable(options["activation"]):
            raise TypeError(
                "activation must be a function of arrays or None for ReLU, got "
                f"{options['activation']!r}."
            )
        options["activation"] = nt.stax.Elementwise(options["activation"] or jax.nn.relu)
        return self.make(schedule=alphas, **options)

    @functools.cached_property
    def shapes(self) -> Any:
        """The parameters of the network of `stax`, as shapes."""
        init_fn, _, _ = self.stax_network(np.ones(sum(self.depths)))
        shape = (1, *self.input_shape)
        return jax.eval_shape(lambda key: init_fn(key, shape)[1], jax.random.key(0))

    def names(self) -> list[str]:
        """Return the names of the arrays of weights, in the order of the parameters of `stax`."""
        layers = range(1 if dict(self.options)["block"] == "one_layer" else 2)
        names = ["first"]
        for i, blocks in enumerate(self.depths):
            if i:
                names += [f"stage{i}_shortcut", *(f"stage{i}_strided{j}" for j in layers)]
            if blocks > min(i, 1):
                names += [f"stage{i}_layer{j}" for j in layers]
        return [*names, "last"]

    def is_trained(self, name: str) -> bool:
        """Return whether an array of weights is trained."""
        ends = name in ("first", "last") or name.endswith("_shortcut")
        return not ends or dict(self.options)["trained"] == "all"


class ResidualNetwork(nnx.Module):
    """A residual network of a plan.

    Each array of weights is an attribute, a `flax.nnx.Param` if it is trained and else `Frozen`.
    Those of the blocks of a stage are stacked along the first axis. In a mirrored network all
    have one more axis before it, of its two copies.
    """

    def __init__(
        self, plan: Plan, schedule: schedules.Schedule, mirrored: bool, dtype: Any, rngs: nnx.Rngs
    ):
        self.plan, self.mirrored = plan, _checks.boolean(mirrored, "mirrored")
        alphas = schedules.alphas_of(schedule, sum(plan.depths), traced=True)
        self.alphas = Frozen(jnp.asarray(alphas, dtype))
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(plan.shapes))
        values = _initial_weights(shapes, self.mirrored, jnp.dtype(dtype), rngs.params())
        for name, value in zip(plan.names(), values, strict=True):
            setattr(self, name, (nnx.Param if plan.is_trained(name) else Frozen)(value))

    def __call__(self, x: ArrayLike) -> jax.Array:
        """Return the outputs of the network.

        Args:
          x: shape (n, features), or (n, height, width, channels) for images.

        Returns:
          Shape (n, out_dim).

        Raises:
          OverflowError: if the outputs are infinite or NaN, unless JAX traces them.
          ValueError: if `x` does not have the shape of the inputs of the network.
        """
        x, alphas, plan = jnp.asarray(x), self.alphas[...], self.plan
        if x.ndim < 2 or x.shape[1:] != plan.input_shape:
            expected = ", ".join(map(str, plan.input_shape))
            raise ValueError(
                f"x must have shape (n, {expected}), got shape {x.shape}. in_dim, or image_shape "
                "and in_channels, of the network set it."
            )
        # The loop over blocks needs one dtype, that of the weights.
        x = x.astype(alphas.dtype)
        weights = [getattr(self, name)[...] for name in plan.names()]
        params = jax.tree.unflatten(jax.tree.structure(plan.shapes), weights)
        _, apply_fn, _ = plan.stax_network(alphas)
        if not self.mirrored:
            return apply_fn(params, x)
        # One program for both copies: their outputs are the same to the last digit at first.
        plus, minus = lax.map(lambda params: apply_fn(params, x), params)
        return (plus - minus) / math.sqrt(2)


# One loop draws all arrays: to draw each would compile a program for each shape, and take four
# times the memory.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _initial_weights(shapes, mirrored, dtype, key):
    ends = list(itertools.accumulate(map(math.prod, shapes)))
    drawn = lax.map(
        lambda i: jax.random.normal(jax.random.fold_in(key, i), (_DRAWN_AT_ONCE,), dtype),
        jnp.arange(-(-ends[-1] // _DRAWN_AT_ONCE)),
    )
    parts = jnp.split(drawn.reshape(-1)[: ends[-1]], ends[:-1])
    values = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return [jnp.stack([value, value]) for value in values] if mirrored else values
