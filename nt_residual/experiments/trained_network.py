"""One network of the depth sweep: its training, its NTK, and the gradient of each block."""

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

# Training stops this many times to compute the loss of whole sets, in batches of this size.
_EVALUATIONS, _BATCH = 40, 1000


class Network(NamedTuple):
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


class Trained(NamedTuple):
    """A network with the parameters of its least validation loss.

    Attributes:
      network: the network.
      best_step: the step of the least validation loss.
      train_loss: mean of ½|f − y|² over the training set at that step.
      validation_loss: likewise, over the validation set.
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
    patience: int,
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
      patience: training stops after this many evaluations without a better validation loss.
      seed: of the order of the minibatches.

    Returns:
      `None` if a loss is not finite.
    """
    graph, params, rest = network
    state = optax.sgd(learning_rate, momentum).init(params)
    every, step, waited, best = -(-steps // _EVALUATIONS), 0, 0, None
    while True:
        train_loss = float(_loss_of_set(graph, params, rest, *training))
        validation_loss = float(_loss_of_set(graph, params, rest, *validation))
        if not math.isfinite(train_loss + validation_loss):
            return None
        waited += 1
        if best is None or validation_loss < best.validation_loss:
            found = Network(graph, params, rest)
            best, waited = Trained(found, step, train_loss, validation_loss), 0
        if step == steps or waited == patience:
            return best
        until, rates = min(step + every, steps), (learning_rate, momentum)
        key = jax.random.key(seed)
        params, state = _advance(
            graph, batch_size, params, state, rest, training, key, (step, until), rates
        )
        step = until


def _forward(graph: Any, params: Any, rest: Any, x: jax.Array) -> jax.Array:
    return nnx.merge(graph, params, rest)(x)


def _squared_loss(outputs: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean(jnp.sum(optax.l2_loss(outputs, y), axis=-1))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _advance(graph, batch_size, params, state, rest, training, key, steps, rates):
    """Take the steps from `steps[0]` to `steps[1]`; each epoch has an order of its own."""
    x, y = map(jnp.asarray, training)
    optimizer, per_epoch = optax.sgd(*rates), len(x) // batch_size

    def order(step):
        return jax.random.permutation(jax.random.fold_in(key, step // per_epoch), len(x))

    def body(step, carry):
        params, state, now = carry
        now = lax.cond(step % per_epoch == 0, order, lambda _: now, step)
        some = lax.dynamic_slice_in_dim(now, step % per_epoch * batch_size, batch_size)
        gradient = jax.grad(lambda p: _squared_loss(_forward(graph, p, rest, x[some]), y[some]))
        updates, state = optimizer.update(gradient(params), state)
        return optax.apply_updates(params, updates), state, now

    start, end = steps
    return lax.fori_loop(start, end, body, (params, state, order(start)))[:2]


@functools.partial(jax.jit, static_argnums=0)
def _outputs(graph, params, rest, x):
    def of_one(one):
        return _forward(graph, params, rest, one[None])[0]

    return lax.map(of_one, x, batch_size=_BATCH)


@functools.partial(jax.jit, static_argnums=0)
def _loss_of_set(graph, params, rest, x, y):
    return _squared_loss(_outputs(graph, params, rest, x), y)


def classes(network: Network, x: ArrayLike) -> np.ndarray:
    """Return the class that the network gives each input, shape (n,)."""
    graph, params, rest = network
    return np.asarray(_outputs(graph, params, rest, x)).argmax(axis=-1)


def mean_ntk(network: Network, x: ArrayLike) -> np.ndarray:
    """Return the NTK averaged over outputs, shape (n, n), in float32 precision on every device."""
    graph, params, rest = network
    with jax.default_matmul_precision("highest"):
        return np.asarray(_mean_ntk(graph, params, rest, x))


@functools.partial(jax.jit, static_argnums=0)
def _mean_ntk(graph, params, rest, x):
    n_outputs = jax.eval_shape(lambda: _forward(graph, params, rest, x)).shape[-1]

    # One output at a time: the gradients of all would take as many times the memory.
    def of_one(output):
        def f(params, inputs):
            found = _forward(graph, params, rest, inputs)
            return lax.dynamic_slice_in_dim(found, output, 1, axis=1)

        return empirical_ntk(f, params, x)

    return jnp.mean(lax.map(of_one, jnp.arange(n_outputs)), axis=0)


def gradient_norms(network: Network, x: ArrayLike, y: ArrayLike, *, axis: int) -> np.ndarray:
    """Return the norm of the gradient of the squared loss in each block.

    Args:
      network: all of its parameters belong to blocks, and are stacked along `axis`.
      x: inputs, shape (n, …).
      y: targets, shape (n, outputs).
      axis: the axis of the blocks.

    Returns:
      The norms divided by their root mean square, shape (blocks,).
    """
    with jax.default_matmul_precision("highest"):
        return np.asarray(_block_norms(network.graph, axis, *network[1:], x, y))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _block_norms(graph, axis, params, rest, x, y):
    gradient = jax.grad(lambda p: _squared_loss(_forward(graph, p, rest, x), y))(params)
    squares = [jnp.moveaxis(leaf, axis, 0) ** 2 for leaf in jax.tree.leaves(gradient)]
    total = sum(jnp.sum(leaf, axis=range(1, leaf.ndim)) for leaf in squares)
    return jnp.sqrt(total / jnp.mean(total))
