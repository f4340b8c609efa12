"""Lanczos processes that can be continued: one for each output, all with the same matrix."""

import jax
import jax.numpy as jnp
import numpy as np

from nt_residual import memory
from nt_residual.gram.operators import Operator

# How many vectors the first buffer holds. Whenever it is full its capacity doubles, and one more
# program is compiled.
_FIRST_CAPACITY = 64


class Krylov:
    """Orthonormal bases Q of the Krylov spaces of s K, and T = Qᵀ (s K) Q.

    A process that finds an invariant space, within rounding, is over. Until all are over they
    continue together, so that K is applied to all outputs at once.

    `start` holds the first vectors, not zero, shape (n_outputs, n), placed, in the dtype to compute
    in. With the `scale` s, a power of two, squares of products stay in the range of the dtype.
    Couplings up to `negligible` are rounding.

    Attributes:
      basis: shape (n_outputs, capacity, n), zeros where there is no vector.
      diagonal: α_1, …, α_size of T, shape (n_outputs, size), float64.
      coupling: β_1, …, β_size, likewise; the last one leads out of the basis.
      next: the vectors that follow, shape (n_outputs, n).
      lengths: the dimension of each Krylov space so far, shape (n_outputs,).
      over: whether each process is over, shape (n_outputs,).
    """

    def __init__(self, operator: Operator, start: jax.Array, scale: float, negligible: float):
        self._operator, self._scale, self._negligible = operator, scale, negligible
        n_outputs, n = start.shape
        self.basis = jax.device_put(jnp.zeros((n_outputs, 0, n), start.dtype), start.sharding)
        self.next = start
        self.diagonal = np.empty((n_outputs, 0))
        self.coupling = np.empty((n_outputs, 0))
        self.lengths = np.zeros(n_outputs, int)
        self.over = np.zeros(n_outputs, bool)

    @property
    def size(self) -> int:
        """The number of products with K so far."""
        return self.diagonal.shape[1]

    def grow(self, count: int) -> None:
        """Continue by `count` products, up to n in all.

        Where the vectors do not fit, it raises `MemoryError`, and nothing has changed.
        """
        basis = self._with_room(count)
        # In their dtype, so that nothing is promoted.
        scale, negligible = np.array([self._scale, self._negligible], basis.dtype)
        basis, following, *rows = self._operator.jit(_continued, static_argnames="count")(
            self._operator, basis, self.next, self.size, scale, negligible, count=count
        )
        diagonal, coupling = (np.asarray(row, np.float64) for row in rows)
        if not np.isfinite(diagonal).all():
            raise ValueError(
                "k_train must be finite, got a product with a vector that is NaN or infinite. "
                "Check the kernel and the inputs that it was computed from."
            )
        # At dimension n nothing is left, whatever rounding says.
        position = self.size + 1 + np.arange(count)
        goes_on = (coupling > self._negligible) & (position < basis.shape[2])
        # Whether each process was still running before each of the products.
        running = np.append(~self.over[:, None], goes_on[:, :-1], axis=1)
        # In one step: Ctrl-C leaves all as it was, or all done.
        vars(self).update(
            basis=basis,
            next=following,
            diagonal=np.append(self.diagonal, diagonal, axis=1),
            coupling=np.append(self.coupling, coupling, axis=1),
            lengths=self.lengths + np.cumprod(running, axis=1).sum(axis=1),
            over=~(running.all(axis=1) & goes_on[:, -1]),
        )

    def _with_room(self, count: int) -> jax.Array:
        """Return the buffer, enlarged if it is full."""
        n_outputs, capacity, n = self.basis.shape
        if self.size + count <= capacity:
            return self.basis
        larger = max(min(max(2 * capacity, _FIRST_CAPACITY), n), self.size + count)
        # The old one, and the larger one twice: each product makes one more for a while.
        size = 2 * n_outputs * larger * n * self.basis.dtype.itemsize
        devices = [d for d in self.next.devices() if d.process_index == jax.process_index()]
        limit, where = memory.share(devices)
        remedy = "Fit some of the outputs at a time."
        memory.check({f"a basis of {larger} vectors per output": size}, limit, where, remedy)
        return jnp.pad(self.basis, ((0, 0), (0, larger - capacity), (0, 0)))


def _continued(
    operator: Operator,
    basis: jax.Array,
    following: jax.Array,
    size: jax.Array,
    scale: jax.Array,
    negligible: jax.Array,
    *,
    count: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return the basis with `count` more vectors, the vectors that follow, and α and β."""

    def step(k, state):
        basis, q, alphas, betas = state
        basis = jax.lax.dynamic_update_slice_in_dim(basis, q[:, None], size + k, axis=1)
        # All outputs at once: the vectors are the columns of one matrix.
        w, alpha = operator.product(q.T).T * scale, 0.0
        # Orthogonal to all vectors so far, twice: the first time leaves rounding of what it
        # takes away. α has both parts, since it may be a hundred times what remains.
        for _ in range(2):
            inside = _einsum("omn,on->om", basis, w)
            alpha += jax.lax.dynamic_index_in_dim(inside, size + k, axis=1, keepdims=False)
            w = w - _einsum("om,omn->on", inside, basis)
        beta = jnp.linalg.norm(w, axis=1)
        # A process that is over continues with zeros.
        q = jnp.where((beta > negligible)[:, None], w / jnp.where(beta > 0, beta, 1)[:, None], 0)
        return basis, q, alphas.at[:, k].set(alpha), betas.at[:, k].set(beta)

    rows = jnp.zeros((len(following), count), basis.dtype)
    return jax.lax.fori_loop(0, count, step, (basis, following, rows, rows))


def _einsum(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, a, b, precision="highest")
