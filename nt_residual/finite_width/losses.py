"""The losses that networks are trained on, and checks of their targets."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nt_residual import _checks
from nt_residual.finite_width.networks import Network
from nt_residual.regression.gradient_steps import SQUARED_LOSSES, loss_factor

Loss = (
    Literal["mse", "half_mse", "half_norm", "cross_entropy"]
    | Callable[[jax.Array, jax.Array], jax.Array]
)


def _squared_error(name: str, outputs: jax.Array, targets: jax.Array) -> jax.Array:
    factor = loss_factor(name, outputs.shape[-1])
    return factor * jnp.sum(optax.l2_loss(outputs, targets), axis=-1)


# One object for each name: runs with equal objects share compiled programs.
_LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    **{name: functools.partial(_squared_error, name) for name in SQUARED_LOSSES},
    "cross_entropy": optax.softmax_cross_entropy_with_integer_labels,
}


def per_input(loss: Loss) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the function `loss(outputs, targets)`, shape (n,), of a name or a function."""
    return loss if callable(loss) else _LOSSES[_checks.choice(loss, "loss", tuple(_LOSSES))]


def check_targets(y: Any, loss: Loss, net: Network, x: Any, name: str) -> np.ndarray:
    """Return the targets in the dtype that `loss` needs, after checks against the outputs for x.

    They are int32 labels, shape (n,), for 'cross_entropy'; floats in the dtype of the outputs,
    shape (n, n_outputs), for a squared loss; `y` as an array for a function.
    """
    outputs = jax.eval_shape(net.apply, net.params, net.rest, x)
    n, n_outputs = outputs.shape
    if callable(loss):
        y = np.asarray(y)
        if y.ndim < 1 or len(y) != n:
            raise ValueError(f"{name} must hold one target for each of {n} inputs, got {y.shape}.")
        found = jax.eval_shape(loss, outputs, y).shape
        if found != (n,):
            raise ValueError(
                f"loss must return one number for each input, shape ({n},), got shape {found}. Sum "
                "over outputs, and leave the mean over inputs to train."
            )
        return y
    if loss == "cross_entropy":
        y = _checks.labels(y, name, n_outputs).astype(np.int32)
        expected, remedy = (n,), "Pass one label an input."
    else:
        y = _checks.real_array(y, name).astype(outputs.dtype)
        y = y[:, None] if y.ndim == 1 and n_outputs == 1 else y
        remedy = f"Labels become targets with data.centered_one_hot(labels, {n_outputs})."
        expected = outputs.shape
    if y.shape != expected:
        raise ValueError(f"{name} must have shape {expected}, got shape {y.shape}. {remedy}")
    return y
