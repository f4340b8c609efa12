"""The compiled programs of training: steps of an optimizer, and the mean loss of a set."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Evaluation needs less memory than a step: its batches may be larger, and small ones are slow.
_LEAST_CHUNK, _MORE = 256, 16


class State(NamedTuple):
    """The state of a training run."""

    step: jax.Array  # The number of steps taken.
    params: Any
    optimizer: Any
    loss: jax.Array  # Of the last batch, before its step.


@dataclasses.dataclass(frozen=True)
class Program:
    """The static part of a run. Networks that differ in numbers only share its compiled methods."""

    apply: Callable  # apply(params, rest, x), see `networks.Network`.
    loss: Callable  # loss(outputs, targets), shape (n,).
    optimizer: optax.GradientTransformation
    batch_size: int | None  # None for all inputs.
    mesh: Mesh | None

    @functools.partial(jax.jit, static_argnums=0)
    def start(self, params: Any) -> State:
        """Return the state before the first step."""
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        return State(jnp.int32(0), params, self.optimizer.init(params), jnp.zeros((), dtype))

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def advance(
        self, state: State, rest: Any, data: Any, rows: jax.Array | None, until: Any
    ) -> State:
        """Take steps until there are `until`, or the loss is not finite. `state` is used up.

        `rows` has the indices of the batch of each step from now on, shape (steps, batch_size), or
        is `None` for all inputs.
        """
        now = state.step

        def step(state: State) -> State:
            x, y = data
            if rows is not None:
                some = rows[state.step - now]
                x, y = self._constrain((x[some], y[some]), spread=True)

            def mean_loss(params):
                return jnp.mean(self._losses(self.apply(params, rest, x), y))

            value, gradient = jax.value_and_grad(mean_loss)(state.params)
            # For optimizers such as L-BFGS, which search along the step.
            extra = {"value": value, "grad": gradient, "value_fn": mean_loss}
            updates, optimizer = optax.with_extra_args_support(self.optimizer).update(
                gradient, state.optimizer, state.params, **extra
            )
            params = optax.apply_updates(state.params, updates)
            after = State(state.step + 1, params, optimizer, value.astype(state.loss.dtype))
            return self._constrain(after, spread=False)

        def unfinished(state: State) -> jax.Array:
            return (state.step < until) & jnp.isfinite(state.loss)

        return lax.while_loop(unfinished, step, state)

    @functools.partial(jax.jit, static_argnums=0)
    def evaluate(self, params: Any, rest: Any, data: Any) -> dict[str, jax.Array]:
        """Return the mean loss of a set and, if targets are labels, the fraction of errors."""
        n = len(data[0])

        def of_chunk(chunk):
            x, y = self._constrain(chunk, spread=True)
            outputs = self.apply(params, rest, x)
            found = {"loss": self._losses(outputs, y)}
            if self.loss is optax.softmax_cross_entropy_with_integer_labels:
                found["error"] = jnp.argmax(outputs, axis=-1) != y
            return found

        size, devices = n, 1 if self.mesh is None else self.mesh.size
        if self.batch_size is not None:
            size = min(n, max(self.batch_size, min(_LEAST_CHUNK, _MORE * self.batch_size)))
        size = -(-size // devices) * devices
        if size == n:  # Inputs that are spread over devices stay where they are.
            return jax.tree.map(jnp.mean, of_chunk(data))
        # The last chunk repeats the last input; its values beyond n are dropped.
        indices = jnp.minimum(jnp.arange(-(-n // size) * size), n - 1).reshape(-1, size)
        found = lax.map(lambda some: of_chunk(jax.tree.map(lambda a: a[some], data)), indices)
        return jax.tree.map(lambda values: jnp.mean(values.reshape(-1)[:n]), found)

    def place(self, tree: Any, *, spread: bool = False) -> Any:
        """Return arrays on the devices of the mesh: spread along their first axis, or copied."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        return jax.device_put(tree, self._sharding(spread))

    def _losses(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        # In half precision a sum over many inputs would overflow, or stop growing.
        return self.loss(outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32)), targets)

    def _constrain(self, tree: Any, *, spread: bool) -> Any:
        if self.mesh is None:
            return tree
        return lax.with_sharding_constraint(tree, self._sharding(spread))

    def _sharding(self, spread: bool) -> NamedSharding:
        assert self.mesh is not None
        spec = PartitionSpec(self.mesh.axis_names) if spread else PartitionSpec()
        return NamedSharding(self.mesh, spec)


def batches(n: int, size: int, seed: int, start: int, count: int) -> np.ndarray:
    """Return the indices of the batches of `count` steps from `start` on, shape (count, size).

    Each epoch has an order of its own, which depends on the seed and the epoch only. The last
    n mod size inputs of an order are left out.
    """
    per_epoch = n // size
    first, last = start // per_epoch, (start + count - 1) // per_epoch
    orders = [
        np.random.default_rng((seed, epoch)).permutation(n)[: per_epoch * size]
        for epoch in range(first, last + 1)
    ]
    rows = np.concatenate(orders).reshape(-1, size)
    return rows[start - first * per_epoch :][:count].astype(np.int32)
