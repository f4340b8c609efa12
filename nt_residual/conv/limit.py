"""Infinitely many blocks of vanishing α: an integration over the effective time.

With s_ℓ = dt the recursion becomes dK/dt = B(K) − K for t from 0 to T, where B is the branch of a
block. Since B is homogeneous, K = exp(−t) M with dM/dt = B(M), so a step only adds branches. If two
patches are equal or opposite at t = 0, their angle changes like √t, which is not smooth. With
t = T τ² the solution is smooth in τ.
"""

import jax
import jax.numpy as jnp
from jax import lax

from nt_residual.conv import recursion
from nt_residual.conv.covariances import State, weighted_sum
from nt_residual.conv.network import Network

# The Runge-Kutta pair of orders 5 and 4 of Dormand & Prince 1980; the last row has order 5.
_NODES = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
_ROWS = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_FOURTH_ORDER = (5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_FIRST_STEP = 0.2
_MOST_STEPS = 10_000


def integrate(network: Network, state: State, time: jax.Array, own: jax.Array) -> State:
    """Return the state after a continuum of blocks.

    The largest error of a pair of images, averaged over its pixels, determines the length of
    steps. The result is NaN if more than 10,000 steps are needed.
    """
    kept = network.kept(0)
    # The error that one step may add, relative to the state.
    tol = 1e-6 if state.minus.dtype == jnp.float32 else 1e-10

    def step(carry):
        tau, length, state, count = carry
        # The last step ends at exactly 1, in spite of rounding.
        length, end = jnp.minimum(length, 1 - tau), jnp.where(length < 1 - tau, tau + length, 1)
        # dt/dτ at the nodes, times the length of the step.
        speeds = [2 * time * (tau + node * length) * length for node in _NODES]

        def moved(row):
            used = [k for k, weight in enumerate(row) if weight]
            weights = [1.0, *(row[k] * speeds[k] for k in used)]
            return weighted_sum(network, weights, [state, *(branches[k] for k in used)])

        branches = [recursion.branch(network, state, own)]
        for row in _ROWS:
            new = moved(row)
            branches.append(recursion.branch(network, new, own))
        error = _size(jax.tree.map(jnp.subtract, moved(_FOURTH_ORDER), new), new) / tol
        # An error of NaN is accepted, so that the loop ends.
        accept = ~(error > 1)
        grown = jnp.exp(-kept * time * (end - tau) * (end + tau))
        state = jax.tree.map(lambda a, b: jnp.where(accept, grown * b, a), state, new)
        factor = jnp.clip(0.9 * error**-0.2, 0.2, 5.0)
        return jnp.where(accept, end, tau), length * factor, state, count + 1

    def unfinished(carry):
        tau, _, _, count = carry
        return (tau < 1) & (count < _MOST_STEPS)

    # Steps depend on the images, and so vary over devices as the images do. `jax.shard_map` must
    # know this from the start.
    zero = 0 * time * state.minus[(0,) * state.minus.ndim]
    start = (zero, zero + _FIRST_STEP, jax.tree.map(lambda x: x + zero, state), 0)
    tau, _, state, _ = lax.while_loop(unfinished, step, start)
    return jax.tree.map(lambda x: jnp.where(tau < 1, jnp.nan, x), state)


def _size(error: State, new: State) -> jax.Array:
    """Return the largest relative error of any pair of images: of Θ, relative to variances."""

    def mean(field):
        return jnp.mean(jnp.abs(field), tuple(range(field.ndim - 2)))

    minus, plus = mean(new.minus), mean(new.plus)
    variance = (minus + plus) / 2
    # Between an image and itself r r' − K should be zero, but is of the order of ε² by rounding.
    least = 10 * jnp.finfo(variance.dtype).eps * variance
    sizes = [(error.minus, minus + least), (error.plus, plus + least), (error.ntk, variance)]
    relative = [mean(e) / jnp.where(size > 0, size, 1) for e, size in sizes if e is not None]
    return jnp.max(jnp.stack(relative))
