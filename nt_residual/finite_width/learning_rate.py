"""The largest learning rate with which gradient descent converges."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from nt_residual import _checks
from nt_residual.finite_width.descent import hashable
from nt_residual.finite_width.networks import as_network
from nt_residual.regression import training_kernel

# Power iteration ends when the eigenvalue grows by less, relative to itself.
_TOLERANCE = 1e-4
_MOST_ITERATIONS = 200


def largest_learning_rate(network: Any, x: ArrayLike | None = None) -> float:
    """Below it gradient descent on the squared loss converges, as long as the kernel stays.

    For the loss 'half_norm', (1/2n) Σ_i |f(x_i) − y_i|² of n inputs, it is 2n/λ_max, with
    λ_max the largest eigenvalue of the NTK of all of them. In wide networks that hardly changes
    during training; in narrow ones it may grow.

    Args:
      network: a network as for `train`, of which λ_max comes from power iteration with
        derivatives: no matrix is made, and an iteration takes about as much as a step of
        training. Or, without `x`, the kernel of the training inputs, shape (n, n).
      x: the training inputs, shape (n, …).

    Raises:
      TypeError, ValueError: if the network or the inputs are no good for `train`, or the kernel
        for `regression.GradientFlow`.

    Example:
      >>> import numpy as np
      >>> largest_learning_rate(np.array([[2.0, 0.0], [0.0, 1.0]]))
      2.0
    """
    if x is None:
        kernel = training_kernel.check(network)
        values = np.linalg.eigvalsh(np.asarray(kernel, np.float64))
        return _bound(len(values), values[-1])
    x = _checks.finite_batch(x, "x")
    net = as_network(network, x)
    with jax.default_matmul_precision("highest"):
        largest = _top_eigenvalue(hashable(net.apply), net.params, net.rest, x)
    return _bound(len(x), float(largest))


def check_learning_rate(value: Any, network: Any, x: ArrayLike) -> float:
    """A learning rate with which gradient descent on the squared loss converges.

    Raises:
      TypeError: if it is no number.
      ValueError: if it is not positive, not finite, or past the bound.
    """
    value = _checks.number(value, "learning_rate", positive=True)
    bound = largest_learning_rate(network, x)
    if value >= bound:
        raise ValueError(
            f"learning_rate must be below 2n/λ_max = {bound:.4g}, or gradient descent on all "
            f"inputs diverges, got {value:.4g}."
        )
    return value


def _bound(n: int, largest: float) -> float:
    return 2 * n / float(largest) if largest > 0 else math.inf


@functools.partial(jax.jit, static_argnums=0)
def _top_eigenvalue(apply, params, rest, x):
    """That of J Jᵀ, J the derivative of all outputs with respect to parameters."""
    outputs, derivative = jax.linearize(lambda p: apply(p, rest, x), params)
    transposed = jax.linear_transpose(derivative, params)

    def body(carry):
        i, v, value, _ = carry
        w = derivative(*transposed(v))
        new = jnp.linalg.norm(w)
        return i + 1, w / jnp.where(new > 0, new, 1), new, value

    def going(carry):
        i, _, value, before = carry
        return (i < _MOST_ITERATIONS) & (value > (1 + _TOLERANCE) * before)

    v = jax.random.normal(jax.random.key(0), outputs.shape, outputs.dtype)
    first = jnp.linalg.norm(v)
    # The eigenvalue may be of any size: the first iterate counts as growth.
    least = jnp.full_like(first, jnp.finfo(first.dtype).tiny)
    start = (0, v / first, least, jnp.zeros_like(first))
    return lax.while_loop(going, body, start)[2]
