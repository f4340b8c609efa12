"""One network of the depth sweep: its training, its NTK, and the gradient of each block."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike

from nt_residual.finite_width import (
    ConvResNet,
    ResNet,
    TrainingDiverged,
    largest_learning_rate,
    train,
)
from nt_residual.finite_width.empirical_ntk import empirical_ntk
from nt_residual.finite_width.networks import as_network

# Training stops this many times for the losses of whole sets. It ends after `_PATIENCE` times
# without a better validation loss.
_EVALUATIONS, _PATIENCE = 40, 10
# The number of inputs for the learning rate and the gradients, and for the NTK.
_SOME, _FEW = 256, 8
_TEST_BATCH = 1000

Set = tuple[np.ndarray, np.ndarray]


def measure(
    model: ResNet | ConvResNet,
    training: Set,
    validation: Set,
    test: Set,
    *,
    rate: float,
    momentum: float,
    steps: int,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """Train a network, and return the values of a `DepthRun` by name.

    Only the blocks of `model` are trained, and they are in one stage. All sets are inputs (n, …);
    with targets (n, outputs), or for `test` labels (n,). Other arguments are as for `train` and
    `depth_sweep.run`.
    """
    x, y = training
    network = as_network(model, x[:_SOME])
    learning_rate = rate * largest_learning_rate(network, x[:_SOME])
    # Zero or infinite where the NTK leaves float32.
    if not 0 < learning_rate < math.inf:
        return {"diverged": True}
    norms = gradient_norms(*network, x[:_SOME], y[:_SOME], int(model.mirrored))
    before = np.asarray(mean_ntk(*network, x[:_FEW]))
    try:
        found = train(
            network,
            x,
            _with_rate(y, learning_rate),
            loss=_scaled_loss,
            optimizer=_optimizer(momentum),
            steps=steps,
            batch_size=batch_size,
            validation=(validation[0], _with_rate(validation[1], learning_rate)),
            evaluate_every=-(-steps // _EVALUATIONS),
            patience=_PATIENCE,
            seed=seed,
        )
    except TrainingDiverged:
        return {"diverged": True}
    best = found.history["step"].tolist().index(found.best_step)
    after = np.asarray(mean_ntk(*found.network, x[:_FEW]))
    outputs = _outputs(*found.network, test[0])
    return {
        "test_error": float(np.mean(np.argmax(outputs, axis=-1) != test[1])),
        "train_loss": float(found.history["loss"][best] / learning_rate),
        "validation_loss": float(found.history["validation_loss"][best] / learning_rate),
        "best_step": found.best_step,
        "learning_rate": learning_rate,
        "ntk_drift": float(np.linalg.norm(after - before) / np.linalg.norm(before)),
        "gradient_norms": tuple(norms.tolist()),
    }


# Gradient descent on η·loss with the learning rate 1 is that on the loss with η. As η comes with
# the targets, in their last column, networks of all η share one compiled program.
def _with_rate(y: np.ndarray, learning_rate: float) -> np.ndarray:
    return np.column_stack([y, np.full(len(y), learning_rate, y.dtype)])


def _scaled_loss(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return targets[:, -1] * jnp.sum(optax.l2_loss(outputs, targets[:, :-1]), axis=-1)


@functools.cache
def _optimizer(momentum: float) -> optax.GradientTransformation:
    return optax.sgd(1.0, momentum)


@functools.partial(jax.jit, static_argnums=0)
def _outputs(apply, params, rest, x):
    return lax.map(lambda one: apply(params, rest, one[None])[0], x, batch_size=_TEST_BATCH)


@functools.partial(jax.jit, static_argnums=0)
@jax.default_matmul_precision("highest")
def mean_ntk(apply: Callable, params: Any, rest: Any, x: ArrayLike) -> jax.Array:
    """Return the NTK averaged over outputs, shape (n, n), in float32 precision on every device."""
    n_outputs = jax.eval_shape(apply, params, rest, x).shape[-1]

    # One output at a time: the gradients of all would take as many times the memory.
    def of_one(output):
        def f(params, inputs):
            return lax.dynamic_slice_in_dim(apply(params, rest, inputs), output, 1, axis=1)

        return empirical_ntk(f, params, jnp.asarray(x))

    return jnp.mean(lax.map(of_one, jnp.arange(n_outputs)), axis=0)


@functools.partial(jax.jit, static_argnums=(0, 5))
@jax.default_matmul_precision("highest")
def gradient_norms(
    apply: Callable, params: Any, rest: Any, x: ArrayLike, y: ArrayLike, axis: int
) -> jax.Array:
    """Return the norm of the gradient of ½|f − y|² in each block, shape (blocks,).

    All parameters belong to blocks, and are stacked along `axis`. The norms are divided by their
    root mean square.
    """

    def loss(params):
        return jnp.mean(jnp.sum(optax.l2_loss(apply(params, rest, x), jnp.asarray(y)), axis=-1))

    squares = [jnp.moveaxis(leaf, axis, 0) ** 2 for leaf in jax.tree.leaves(jax.grad(loss)(params))]
    total = sum(jnp.sum(leaf, axis=range(1, leaf.ndim)) for leaf in squares)
    return jnp.sqrt(total / jnp.mean(total))
