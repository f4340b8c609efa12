"""The kernel matrix of the training inputs, in whatever form it comes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_residual import memory
from nt_residual.gram import MatrixFree, Sharded, Stored, compute
from nt_residual.gram.operators import Dense, Operator, as_operator
from nt_residual.regression.inputs import (
    as_array,
    check_finite,
    check_symmetric,
    exponent,
    float_dtype,
    loses_digits,
    scaled,
)

Kernel = np.ndarray | jax.Array | MatrixFree | Sharded | Stored

# The side of the tiles of a matrix that are compared, small enough for a processor's cache.
_TILE = 256
_REMEDY = "Use solver='lanczos', which needs products with it only."


def check(k_train: Any) -> Kernel:
    """Returns the kernel matrix as it is, an array at least, having checked its shape and dtype.

    Raises:
      TypeError: if it does not hold real numbers.
      ValueError: if it is not square or is empty.
    """
    # Those of `gram` hold real numbers as they are made.
    ours = isinstance(k_train, MatrixFree | Sharded | Stored)
    kernel = k_train if ours else as_array(k_train, "k_train")
    shape = tuple(kernel.shape)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(
            f"k_train must have shape (n, n), n ≥ 1, got shape {shape}. Pass kernel(x_train)."
        )
    return kernel


def is_sharded(kernel: Any) -> bool:
    """Whether it is an array of which no device has all rows."""
    if isinstance(kernel, Sharded):
        return True
    return isinstance(kernel, jax.Array) and not kernel.is_fully_replicated


def whole(kernel: Kernel) -> tuple[np.ndarray, int]:
    """Return the matrix K/2^e on the host in float64, and e, which makes it at most 1.

    Raises:
      MemoryError: if it does not fit.
      ValueError: if it is spread over several processes, or has a value that is NaN or
        infinite.
    """
    array = kernel.matrix if isinstance(kernel, Sharded) else kernel
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        raise ValueError(
            f"solver='eigh' needs the whole matrix in one process, got one that is spread over "
            f"several. {_REMEDY}"
        )
    n = kernel.shape[0]
    # Itself, its eigenvectors, and about as much again to work in.
    memory.check(
        {"an eigendecomposition in float64": 4 * 8 * n**2},
        memory.available(),
        "this machine",
        _REMEDY,
    )
    if isinstance(kernel, MatrixFree):
        kernel = compute(kernel.kernel, np.asarray(kernel.x), tile_size=kernel.tile_size)
    values = np.asarray(kernel)
    check_finite(values, "k_train")
    values = values.astype(np.float64)
    unit = exponent(np.diagonal(values))
    return np.ldexp(values, -unit, out=values), unit


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["matrix", "before", "after"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Scaled:
    """The products of K/2^e, whose largest entry is about 1, with those of K.

    Half of 2^e divides the vectors and half the product, so that both stay in the range of
    their dtype wherever the entries of K are.

    Attributes:
      matrix: K.
      before: 2^(−e/2), by which vectors are multiplied before the product.
      after: the rest of 2^(−e).
    """

    matrix: Operator
    before: np.ndarray
    after: np.ndarray

    @classmethod
    def of(cls, matrix: Operator, unit: int) -> "Scaled":
        """Return K/2^unit. Its factors are in the dtype that products are computed in."""
        dtype = np.promote_types(matrix.dtype, np.float32)
        half = unit // 2
        before, after = scaled(1, [-half, half - unit]).astype(dtype)
        return cls(matrix, before, after)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.matrix.shape

    @property
    def dtype(self) -> np.dtype:
        """That of the entries."""
        return self.matrix.dtype

    @property
    def seconds(self) -> float:
        """About how long one product takes."""
        return self.matrix.seconds

    @property
    def jit(self) -> Callable[..., Any]:
        """That of the operator."""
        return self.matrix.jit

    def product(self, v: jax.Array) -> jax.Array:
        """K @ v / 2^e, shape (n, o)."""
        return self.matrix.product(v * self.before) * self.after

    def diagonal(self) -> np.ndarray:
        """K_ii/2^e, float64, shape (n,)."""
        return self.matrix.diagonal() * np.float64(self.before) * np.float64(self.after)

    def place(self, v: Any) -> jax.Array:
        """An array where `product` wants its argument."""
        return self.matrix.place(v)


def operator(kernel: Kernel) -> tuple[Scaled, int]:
    """Return the products of K/2^e, and e. What is in memory is finite and symmetric.

    Tiles that are computed anew or read from disk in each product are not gone through for
    that alone: they are symmetric as they are made, and the first product shows what is
    not finite.

    Raises:
      ValueError: if it is not finite or not symmetric, or sharded in a way that does not
        suit products.
    """
    if isinstance(kernel, np.ndarray | jax.Array) and kernel.dtype != float_dtype(kernel):
        kernel = kernel.astype(float_dtype(kernel))
    matrix = as_operator(kernel)
    unit = exponent(matrix.diagonal())
    found = Scaled.of(matrix, unit)
    if isinstance(matrix, Dense | Sharded):
        whole = isinstance(matrix, Dense)
        if whole and loses_digits(unit, matrix.dtype):
            # On the host, which keeps the small ones.
            values = np.asarray(matrix.matrix).astype(found.before.dtype)
            matrix = Dense(jnp.asarray(np.ldexp(values, -unit).astype(matrix.dtype)))
            found = Scaled.of(matrix, 0)
        compared = _asymmetry(found) if whole else _sampled_asymmetry(found)
        if not np.isfinite(compared):
            check_finite(matrix.matrix, "k_train")
        check_symmetric(float(compared), found.dtype, found.diagonal(), unit)
    elif isinstance(kernel, Stored) and not kernel.symmetric:
        check_symmetric(_sampled_asymmetry(found), found.dtype, found.diagonal(), unit)
    return found, unit


@jax.jit
def _asymmetry(found: Scaled) -> jax.Array:
    """The largest |K − Kᵀ| of a dense K; NaN if K has a value that is NaN or infinite."""
    matrix = found.matrix.matrix  # type: ignore[attr-defined]
    n = len(matrix)
    size = min(_TILE, n)
    count = -(-n // size)

    def compare(i, j, state):
        row, column = (jnp.minimum(k * size, n - size) for k in (i, j))
        tile = jax.lax.dynamic_slice(matrix, (row, column), (size, size))
        mirror = jax.lax.dynamic_slice(matrix, (column, row), (size, size))
        # In float32 at least, where rounding of many entries does not add up to infinity.
        tile, mirror = (
            t.astype(found.before.dtype) * found.before * found.after for t in (tile, mirror.T)
        )
        off = jnp.abs(tile - mirror)
        return jnp.maximum(state[0], jnp.max(off)), state[1] + jnp.sum(off)

    def step(i, state):
        return jax.lax.fori_loop(i, count, lambda j, state: compare(i, j, state), state)

    zero = jnp.zeros((), found.before.dtype)
    largest, total = jax.lax.fori_loop(0, count, step, (zero, zero))
    # XLA's maximum may leave NaN out, its sum does not.
    return jnp.where(jnp.isfinite(total), largest, jnp.nan)


def _sampled_asymmetry(found: Scaled) -> float:
    """The root mean square of K − Kᵀ, estimated from uᵀ K v − vᵀ K u for random signs.

    It asks for one product, where to compare entries would send the matrix around.
    """
    n = found.shape[0]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (n, 2))
    v = found.place(signs.astype(found.before.dtype))
    (_, uv), (vu, _) = np.asarray(found.jit(_quadratic)(found, v), np.float64)
    return abs(uv - vu) / n


def _quadratic(found: Scaled, v: jax.Array) -> jax.Array:
    return jnp.matmul(v.T, found.product(v), precision="highest")
