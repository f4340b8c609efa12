"""One network of the depth sweep: its training, its NTK, and the gradient of each block."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.typing import ArrayLike

from nt_residual.finite_width.empirical_ntk import empirical_ntk

# Training stops this many times to compute the loss of whole sets, in batches of this size. It
# ends after `_PATIENCE` times without a better validation loss.
_EVALUATIONS, _BATCH, _PATIENCE = 40, 1000, 10


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["params", "rest"], meta_fields=["graph"]
)
@dataclasses.dataclass(frozen=True)
class Network:
    """A Flax model in parts. Networks that differ in numbers only share compiled programs.

    Attributes:
      graph: the static part of the model.
      params: what is trained.
      rest: what is not.
    """

    graph: Any
    params: Any
    rest: Any

    @classmethod
    def of(cls, model: nnx.Module) -> "Network":
        """Split a model."""
        return cls(*nnx.split(model, nnx.Param, ...))

    def outputs(self, params: Any, x: ArrayLike) -> jax.Array:
        """Return the outputs with other parameters."""
        return nnx.merge(self.graph, params, self.rest)(x)

    def loss(self, params: Any, x: ArrayLike, y: ArrayLike) -> jax.Array:
        """Return the mean of ½|f − y|² with other parameters."""
        return _squared_loss(self.outputs(params, x), y)


class Trained(NamedTuple):
    """A network with the parameters of its least validation loss, at `best_step`.

    The losses are means of ½|f − y|² over the training and the validation set at that step.
    """

    network: Network
    best_step: int
    train_loss: float
    validation_loss: float


def train(
    network: Network,
    training: tuple[ArrayLike, ArrayLike],
    validation: tuple[ArrayLike, ArrayLike],
    *,
    learning_rate: float,
    momentum: float,
    steps: int,
    batch_size: int,
    seed: int,
) -> Trained | None:
    """Train by minibatches with momentum; keep the parameters of the least validation loss.

    Args:
      network: the network at initialization.
      training: inputs (n, …) and targets (n, outputs).
      validation: likewise.
      learning_rate: positive.
      momentum: in [0, 1).
      steps: the most steps.
      batch_size: inputs per step, at most n.
      seed: of the order of the minibatches.

    Returns:
      `None` if a loss is not finite.
    """
    state = optax.sgd(learning_rate, momentum).init(network.params)
    every, step, waited, best = -(-steps // _EVALUATIONS), 0, 0, None
    key, rates = jax.random.key(seed), (learning_rate, momentum)
    while True:
        train_loss, validation_loss = (
            float(_loss_of_set(network, *some)) for some in (training, validation)
        )
        if not math.isfinite(train_loss + validation_loss):
            return None
        waited += 1
        if best is None or validation_loss < best.validation_loss:
            best, waited = Trained(network, step, train_loss, validation_loss), 0
        if step == steps or waited == _PATIENCE:
            return best
        until = min(step + every, steps)
        network, state = _advance(batch_size, network, state, training, key, (step, until), rates)
        step = until


def _squared_loss(outputs: jax.Array, y: ArrayLike) -> jax.Array:
    return jnp.mean(jnp.sum(optax.l2_loss(outputs, jnp.asarray(y)), axis=-1))


@functools.partial(jax.jit, static_argnums=0)
def _advance(batch_size, network, state, training, key, steps, rates):
    """Take the steps from `steps[0]` to `steps[1]`; each epoch has an order of its own."""
    x, y = map(jnp.asarray, training)
    optimizer, per_epoch = optax.sgd(*rates), len(x) // batch_size

    def order(step):
        return jax.random.permutation(jax.random.fold_in(key, step // per_epoch), len(x))

    def body(step, carry):
        params, state, now = carry
        now = lax.cond(step % per_epoch == 0, order, lambda _: now, step)
        some = lax.dynamic_slice_in_dim(now, step % per_epoch * batch_size, batch_size)
        gradient = jax.grad(network.loss)(params, x[some], y[some])
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, now

    start, end = steps
    params, state, _ = lax.fori_loop(start, end, body, (network.params, state, order(start)))
    return dataclasses.replace(network, params=params), state


@jax.jit
def _outputs(network, x):
    def of_one(one):
        return network.outputs(network.params, one[None])[0]

    return lax.map(of_one, x, batch_size=_BATCH)


@jax.jit
def _loss_of_set(network, x, y):
    return _squared_loss(_outputs(network, x), y)


def classes(network: Network, x: ArrayLike) -> np.ndarray:
    """Return the class that the network gives each input, shape (n,)."""
    return np.asarray(_outputs(network, x)).argmax(axis=-1)


@jax.jit
@jax.default_matmul_precision("highest")
def mean_ntk(network: Network, x: ArrayLike) -> jax.Array:
    """Return the NTK averaged over outputs, shape (n, n), in float32 precision on every device."""
    n_outputs = jax.eval_shape(network.outputs, network.params, x).shape[-1]

    # One output at a time: the gradients of all would take as many times the memory.
    def of_one(output):
        def f(params, inputs):
            found = network.outputs(params, inputs)
            return lax.dynamic_slice_in_dim(found, output, 1, axis=1)

        return empirical_ntk(f, network.params, jnp.asarray(x))

    return jnp.mean(lax.map(of_one, jnp.arange(n_outputs)), axis=0)


@functools.partial(jax.jit, static_argnames="axis")
@jax.default_matmul_precision("highest")
def gradient_norms(network: Network, x: ArrayLike, y: ArrayLike, *, axis: int) -> jax.Array:
    """Return the norm of the gradient of the squared loss in each block.

    Args:
      network: all of its parameters belong to blocks, and are stacked along `axis`.
      x: inputs, shape (n, …).
      y: targets, shape (n, outputs).
      axis: the axis of the blocks.

    Returns:
      The norms divided by their root mean square, shape (blocks,).
    """
    gradient = jax.grad(network.loss)(network.params, x, y)
    squares = [jnp.moveaxis(leaf, axis, 0) ** 2 for leaf in jax.tree.leaves(gradient)]
    total = sum(jnp.sum(leaf, axis=range(1, leaf.ndim)) for leaf in squares)
    return jnp.sqrt(total / jnp.mean(total))
