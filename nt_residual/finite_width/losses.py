"""The losses that networks are trained on, and the targets that they take."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nt_residual import _checks
from nt_residual.regression.inputs import check_finite, numbers
from nt_residual.regression.steps import SQUARED_LOSSES, loss_factor

Loss = (
    Literal["mse", "half_mse", "half_norm", "cross_entropy"]
    | Callable[[jax.Array, jax.Array], jax.Array]
)


def per_input(loss: Loss) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the function `loss(outputs, targets)` of shape (n,) that a name stands for.

    Raises:
      TypeError: if `loss` is neither a name nor a function.
      ValueError: if there is none of that name.
    """
    if callable(loss):
        return loss
    _checks.choice(loss, "loss", (*SQUARED_LOSSES, "cross_entropy"))
    if loss == "cross_entropy":
        return optax.softmax_cross_entropy_with_integer_labels
    return _squared(loss)


# One function for each name, as programs are shared by identity.
@functools.cache
def _squared(name):
    def loss(outputs, targets):
        factor = loss_factor(name, outputs.shape[-1])
        return factor * jnp.sum((outputs - targets) ** 2, axis=-1) / 2

    return loss


def check_targets(y: Any, loss: Loss, outputs: jax.ShapeDtypeStruct, name: str) -> np.ndarray:
    """Targets as `loss` takes them.

    Args:
      y: what the user passed.
      loss: the loss.
      outputs: shape (n, n_outputs) and dtype of the outputs of the network.
      name: what to call `y` in an error.

    Returns:
      Labels, shape (n,), int32; floats in the dtype of the outputs, shape (n, n_outputs), for a
      squared loss; `y` as an array for a function.

    Raises:
      TypeError: if it does not hold real numbers, or labels are not integers.
      ValueError: if its shape is wrong, a value is not finite, or a label has no output.
    """
    n, classes = outputs.shape
    if callable(loss):
        y = np.asarray(y)
        if y.ndim < 1 or len(y) != n:
            raise ValueError(f"{name} must hold one target for each of {n} inputs, got {y.shape}.")
        return y
    if loss == "cross_entropy":
        y = np.asarray(y)
        if y.dtype.kind not in "iu":
            raise TypeError(
                f"{name} must hold integer labels for loss='cross_entropy', got dtype {y.dtype}. "
                "Pass loss='half_norm' for numbers or one-hot targets."
            )
        if y.shape != (n,):
            raise ValueError(f"{name} must hold labels of shape ({n},), got shape {y.shape}.")
        if y.min() < 0 or y.max() >= classes:
            raise ValueError(
                f"{name} must hold labels from 0 to {classes - 1}, one for each output of the "
                f"network, got {y.min()} to {y.max()}."
            )
        return y.astype(np.int32)
    y = numbers(y, name)
    if y.ndim == 1 and classes == 1:
        y = y[:, None]
    if y.shape != outputs.shape:
        raise ValueError(
            f"{name} must have the shape of the outputs of the network, {outputs.shape}, got shape "
            f"{y.shape}. Labels become targets with data.centered_one_hot(labels, {classes})."
        )
    check_finite(y, name)
    return y.astype(outputs.dtype)


def check_per_input(loss: Loss, outputs: jax.ShapeDtypeStruct, y: np.ndarray) -> None:
    """Refuses a function that does not give one loss for each input.

    Raises:
      ValueError: if its shape is not (n,).
    """
    found = jax.eval_shape(per_input(loss), outputs, y)
    if found.shape != (len(y),):
        raise ValueError(
            f"loss must return one number for each input, shape ({len(y)},), got shape "
            f"{found.shape}. Sum over outputs, and leave the mean over inputs to train."
        )


def labels(y: np.ndarray, loss: Loss) -> np.ndarray | None:
    """The classes that targets stand for, shape (n,), or `None` if they stand for none."""
    if loss == "cross_entropy":
        return y
    if callable(loss) or y.shape[1] < 2:
        return None
    low, high = y.min(), y.max()
    hot = (y == high).sum(axis=1) == 1
    one_hot = high > low and hot.all() and ((y == high) | (y == low)).all()
    return y.argmax(axis=1) if one_hot else None
