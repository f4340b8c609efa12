"""The compiled programs of training: steps of an optimizer, and the loss of a set."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Smaller batches make the evaluation of a set slow; this many times those of training will do.
_LEAST_CHUNK, _MORE = 256, 16


class State(NamedTuple):
    """Where training is.

    Attributes:
      step: the number of steps taken, int32.
      params: what is trained.
      optimizer: the state of the optimizer.
      loss: that of the last batch, before its step.
    """

    step: jax.Array
    params: Any
    optimizer: Any
    loss: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class _ByIdentity:
    function: Callable

    def __call__(self, *args):
        return self.function(*args)


def hashable(function: Callable) -> Callable:
    """The function as a static argument of `jax.jit`, which must have a hash."""
    try:
        hash(function)
    except TypeError:
        return _ByIdentity(function)
    return function


@dataclasses.dataclass(frozen=True)
class Program:
    """What is compiled once, for all networks that differ in their numbers only.

    Attributes:
      apply: `apply(params, rest, x)`, see `networks.Network`.
      loss: `loss(outputs, targets)`, shape (n,).
      optimizer: what makes a step of a gradient, as the user has it: wrapped, no two were equal.
      batch_size: inputs per step; `None` for all.
      mesh: the devices that a batch is spread over, or `None`.
    """

    apply: Callable
    loss: Callable
    optimizer: optax.GradientTransformation
    batch_size: int | None
    mesh: Mesh | None

    def sharding(self, *, spread: bool) -> NamedSharding | None:
        """How arrays lie on the mesh: their first axis spread over it, or whole on each device."""
        if self.mesh is None:
            return None
        spec = PartitionSpec(self.mesh.axis_names) if spread else PartitionSpec()
        return NamedSharding(self.mesh, spec)

    @functools.partial(jax.jit, static_argnums=0)
    def begin(self, params: Any) -> State:
        """The state before the first step."""
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        return State(jnp.int32(0), params, self.optimizer.init(params), jnp.zeros((), dtype))

    @functools.partial(jax.jit, static_argnums=0)
    def advance(self, state: State, rest: Any, data: Any, key: jax.Array, until: Any) -> State:
        """Steps until there are `until` of them, or a loss is not finite.

        Args:
          state: where to go on.
          rest: what of the network is not trained.
          data: inputs and targets, shapes (n, …).
          key: of the order of minibatches, which is another one in each epoch.
          until: the number of steps, int32.

        Returns:
          The state then. If its `loss` is not finite, so may all else of it.
        """
        n = len(data[0])
        size = n if self.batch_size is None else self.batch_size
        per_epoch = n // size

        def order(step):
            return jax.random.permutation(jax.random.fold_in(key, step // per_epoch), n)

        def take(order, step):
            if self.batch_size is None:
                return data
            some = lax.dynamic_slice_in_dim(order, step % per_epoch * size, size)
            return self._constrain(jax.tree.map(lambda a: a[some], data), spread=True)

        def body(carry):
            state, now = carry
            if self.batch_size is not None:
                new = state.step % per_epoch == 0
                now = lax.cond(new, order, lambda _: now, state.step)
            x, y = take(now, state.step)

            def loss(params):
                return jnp.mean(self._losses(self.apply(params, rest, x), y))

            value, gradient = jax.value_and_grad(loss)(state.params)
            updates, optimizer = self.update(
                gradient, state.optimizer, state.params, value, value_fn=loss
            )
            params = optax.apply_updates(state.params, updates)
            after = State(state.step + 1, params, optimizer, value.astype(state.loss.dtype))
            return self._constrain(after, spread=False), now

        def going(carry):
            state, _ = carry
            return (state.step < until) & jnp.isfinite(state.loss)

        # The order of an epoch that has begun is made anew: it is no part of the state.
        first = jnp.zeros(()) if self.batch_size is None else order(state.step)
        return lax.while_loop(going, body, (state, first))[0]

    @functools.partial(jax.jit, static_argnums=0)
    def evaluate(
        self, params: Any, rest: Any, x: jax.Array, y: jax.Array, labels: jax.Array | None
    ) -> dict[str, jax.Array]:
        """The mean loss, and the fraction of wrong classes if there are labels, on a whole set."""
        n, devices = len(x), 1 if self.mesh is None else self.mesh.size
        chunk = n
        if self.batch_size is not None:
            # Without gradients there is room for more than in a step, but not for any number.
            chunk = max(self.batch_size, min(_LEAST_CHUNK, _MORE * self.batch_size))
        chunk = -(-min(chunk, n) // devices) * devices

        def sums(taken, real):
            x_some, y_some, wanted = self._constrain(taken, spread=True)
            outputs = self.apply(params, rest, x_some)
            found = {"loss": jnp.sum(jnp.where(real, self._losses(outputs, y_some), 0))}
            if wanted is not None:
                wrong = jnp.argmax(outputs, axis=-1) != wanted
                found["error"] = jnp.sum(wrong & real)
            return found

        def of_chunk(some):
            taken = jax.tree.map(lambda a: a[jnp.minimum(some, n - 1)], (x, y, labels))
            return sums(taken, some < n)

        if chunk == n:  # Inputs may stay where they are on a mesh.
            return jax.tree.map(lambda a: a / n, sums((x, y, labels), True))
        indices = jnp.arange(-(-n // chunk) * chunk).reshape(-1, chunk)
        return jax.tree.map(lambda a: jnp.sum(a, axis=0) / n, lax.map(of_chunk, indices))

    def update(self, gradient: Any, state: Any, params: Any, value: Any, value_fn: Any) -> Any:
        """What the optimizer makes of a gradient: updates, and its next state."""
        return optax.with_extra_args_support(self.optimizer).update(
            gradient, state, params, value=value, grad=gradient, value_fn=value_fn
        )

    def _losses(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        # Means of numbers of fewer bits would stand still, or overflow.
        outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        return self.loss(outputs, targets)

    def _constrain(self, tree: Any, *, spread: bool) -> Any:
        sharding = self.sharding(spread=spread)
        return tree if sharding is None else lax.with_sharding_constraint(tree, sharding)
