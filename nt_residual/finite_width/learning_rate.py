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
from nt_residual.finite_width.networks import as_network
from nt_residual.regression import kernel_matrix

# Power iteration ends when the eigenvalue grows by less, relative to itself.
_TOLERANCE, _MOST_ITERATIONS = 1e-4, 200


def largest_learning_rate(network: Any, x: ArrayLike | None = None) -> float:
    """Return the learning rate below which gradient descent on the squared loss converges.

    For the loss 'half_norm', (1/2n) Σ_i |f(x_i) − y_i|² of n inputs, it is 2n/λ_max, with λ_max
    the largest eigenvalue of the NTK of all inputs. This holds as long as the NTK does not change:
    it hardly does when wide networks train, and may grow in narrow ones.

    Args:
      network: a network as for `train`, whose λ_max comes from power iteration; without `x`,
        the kernel of the training inputs, shape (n, n).
      x: the training inputs, shape (n, …).

    Raises:
      TypeError, ValueError: if the network or the inputs are invalid for `train`, or the kernel
        for `regression.GradientFlow`.

    Example:
      >>> import numpy as np
      >>> largest_learning_rate(np.array([[2.0, 0.0], [0.0, 1.0]]))
      2.0
    """
    if x is None:
        kernel = np.asarray(kernel_matrix.checked(network, "k_train"), np.float64)
        n, largest = len(kernel), float(np.linalg.eigvalsh(kernel)[-1])
    else:
        x = _checks.finite_batch(x, "x")
        net = as_network(network, x)
        with jax.default_matmul_precision("highest"):
            n, largest = len(x), float(_top_eigenvalue(net.apply, net.params, net.rest, x))
    return 2 * n / largest if largest > 0 else math.inf


@functools.partial(jax.jit, static_argnums=0)
def _top_eigenvalue(apply, params, rest, x):
    """The largest eigenvalue of J Jᵀ, J the derivative of all outputs by all parameters."""
    outputs, derivative = jax.linearize(lambda p: apply(p, rest, x), params)
    transposed = jax.linear_transpose(derivative, params)

    def iterate(carry):
        i, v, value, _ = carry
        w = derivative(*transposed(v))
        new = jnp.linalg.norm(w)
        return i + 1, w / jnp.where(new > 0, new, 1), new, value

    def grows(carry):
        i, _, value, before = carry
        return (i < _MOST_ITERATIONS) & (value > (1 + _TOLERANCE) * before)

    v = jax.random.normal(jax.random.key(0), outputs.shape, outputs.dtype)
    norm = jnp.linalg.norm(v)
    # The eigenvalue may be tiny: the smallest positive number above zero counts as growth.
    tiny = jnp.full_like(norm, jnp.finfo(norm.dtype).tiny)
    return lax.while_loop(grows, iterate, (0, v / norm, tiny, jnp.zeros_like(norm)))[2]
