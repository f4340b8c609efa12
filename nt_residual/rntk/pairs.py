"""Pairs of inputs: their cosines, and the angles of those that are nearly parallel."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from nt_residual.rntk.rows import row_norms

# The number of features that one matrix product sums over. Longer sums round more. The first is for
# CPUs, and grows if there are many products, which compile slowly. The second is its limit, and the
# number on accelerators, which write each product to memory.
_LEAST_SUMMED, _MOST_SUMMED = 400, 1024
# The number of rows of marks in one word, one bit each.
_BITS = 32


class Rows(NamedTuple):
    """A batch of inputs x, one per row, with the parts of the kernel that depend on one input.

    With u = x/|x|, u' for another batch, and m one vector for both batches,

        u·u' = w·w' + a + a',   w = u − m,   a = w·m + m·m/2

    If all inputs are similar, such as images with one background, the terms of u·u' are nearly
    equal, and so are their rounding errors. For 784 features these have added up to 37 ε.
    """

    x: jax.Array
    norms: jax.Array  # |x|, shape (n,).
    factors: jax.Array  # The factors of the inputs in the kernel, shape (n,).
    apart: jax.Array  # w
    along: jax.Array  # a, shape (n,).


def rows_of(
    x1: jax.Array, x2: jax.Array | None, degree: float = 1.0, scale: float | jax.Array = 1.0
) -> tuple[Rows, Rows]:
    """Return the `Rows` of two batches. If `x2` is `None`, the second batch is `x1` too.

    Factors are |x|^degree, in the second batch times `scale`. The vector m is the mean of the
    second batch, so that a value does not depend on other rows of the first batch.
    """
    x2 = x1 if x2 is None else x2
    (norms1, unit1), (norms2, unit2) = _directions(x1), _directions(x2)
    # A zero row has NaN for its direction, which must not change other rows.
    mean = jnp.mean(jnp.where(jnp.isnan(unit2), 0, unit2), axis=0, keepdims=True)
    half = jnp.sum(mean * mean) / 2
    apart1, apart2 = unit1 - mean, unit2 - mean
    along1, along2 = (jnp.sum(apart * mean, axis=1) + half for apart in (apart1, apart2))
    return (
        Rows(x1, norms1, norms1**degree, apart1, along1),
        Rows(x2, norms2, scale * norms2**degree, apart2, along2),
    )


def _directions(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return |x| and x/|x|."""
    norms = row_norms(x)
    # Without the barrier, a CPU divides again for each sum over x/|x|, which takes much longer.
    return norms[:, 0], jax.lax.optimization_barrier(x / norms)


def cosines(a: Rows, b: Rows) -> jax.Array:
    """Return the cosines of the angles between two batches from `rows_of`, shape (n1, n2)."""
    few = min(max(_LEAST_SUMMED, a.x.shape[1] // 8), _MOST_SUMMED)
    products = jax.lax.platform_dependent(
        a.apart,
        b.apart,
        cpu=functools.partial(_products, few),
        default=functools.partial(_products, _MOST_SUMMED),
    )
    return products + (a.along[:, None] + b.along[None, :])


def _products(summed: int, a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the products of all pairs of rows, from sums over at most `summed` features."""
    features = a.shape[1]
    step = -(-features // -(-features // summed))
    parts = [
        jnp.matmul(a[:, i : i + step], b[:, i : i + step].T, precision="highest")
        for i in range(0, features, step)
    ]
    return functools.reduce(jnp.add, parts)


def replace(
    values: jax.Array,
    exact: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    """Return `values` with each ±∞ replaced by exact(row, column, sign).

    Infinities mark the pairs to replace, so no second matrix is needed. Entries that overflowed are
    computed again too, without effect. Each round of the loop replaces up to `capacity` pairs.
    Marks are packed into words of 32 bits. To find pair k, a binary search in the running count of
    marks finds its word, and `_mark` finds its bit in that word.
    """
    height, width = values.shape
    words = _packed(jnp.isinf(values)).ravel()
    capacity = min(max(values.size // 1024, 32), 2**17)
    # The matrix is not an argument of the condition, whose branches would copy it.
    ends = jax.lax.cond((words > 0).any(), _running_count, jnp.zeros_like, words)

    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        first, values = state
        # Adding 0 * ends[0] makes k vary over devices as `ends` does: JAX 0.7 requires it below.
        k = first + jnp.arange(capacity, dtype=words.dtype) + 0 * ends[0]
        place = jnp.searchsorted(ends, k, side="right").astype(jnp.int32)
        bit = _mark(words[place], ends[place] - k)
        row, column = place // width * _BITS + bit, place % width
        # For k beyond the last pair, `row` is out of range, and the update is dropped.
        row = jnp.where(k < ends[-1], row, height)
        new = exact(row, column, jnp.sign(values[row, column]))
        return first + capacity, values.at[row, column].set(new, mode="drop")

    start = (jnp.zeros((), words.dtype), values)
    return jax.lax.while_loop(lambda state: state[0] < ends[-1], step, start)[1]


def _running_count(words: jax.Array) -> jax.Array:
    """Return the number of marks up to and including each word."""
    return jnp.cumsum(jax.lax.population_count(words), dtype=words.dtype)


def _packed(marked: jax.Array) -> jax.Array:
    """Return words of 32 bits, each with the marks of 32 rows, shape (⌈n1/32⌉, n2)."""
    height, width = marked.shape
    marked = jnp.pad(marked, ((0, -height % _BITS), (0, 0))).reshape(-1, _BITS, width)
    bits = jnp.uint32(1) << jnp.arange(_BITS, dtype=jnp.uint32)
    return jnp.sum(jnp.where(marked, bits[:, None], 0), axis=1, dtype=jnp.uint32)


def _mark(word: jax.Array, left: jax.Array) -> jax.Array:
    """Return the position of the mark from which on a word has `left` marks, itself included."""
    place = jnp.zeros(word.shape, jnp.int32)
    for half in (16, 8, 4, 2, 1):
        above = jax.lax.population_count(word >> (place + half).astype(word.dtype))
        place = jnp.where(above >= left, place + half, place)
    return place


def acute_angle(a: Rows, b: Rows, row: jax.Array, column: jax.Array, sign: jax.Array) -> jax.Array:
    """Return small angles between the lines through inputs `row` and `column` of two batches.

    `sign` is the sign of their cosine. With any number c ≈ ±|x|/|x'| and d = x − c x',

        sin² θ = (|d|² − (d·x')²/|x'|²) / |x|²

    If all products are exact, the rounding error of d is relative to |d|, which is small. Products
    are exact if c = c1 + c0 and x' = h + (x' − h) are split into parts with half of the digits
    each. Then d = x − c1 h − c1 (x' − h) − … loses no digits, by Sterbenz' lemma.

    Example with four decimal digits: x = 1.003, x' = 1.234, c1 = 0.81 (of 0.8128), h = 1.2. The
    products 0.972 and 0.02754 are exact, and so is d = 1.003 − 0.972 − 0.02754 = 0.00346.
    """
    (x1, norms1), (x2, norms2) = _near_one(a, row), _near_one(b, column)
    ratio = (sign * norms1 / norms2)[:, None]
    coarse, high = _half(ratio), _half(x2)
    fine, low = _half(ratio - coarse), x2 - high
    difference = x1 - coarse * high - coarse * low - fine * high - fine * low
    along = jnp.sum(difference * x2, axis=1) / norms2
    across = jnp.sum(jnp.square(difference), axis=1) - jnp.square(along)
    return jnp.arcsin(jnp.minimum(jnp.sqrt(jnp.maximum(across, 0)) / norms1, 1))


def _near_one(rows: Rows, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return inputs and their norms, times powers of 2 that bring the norms close to 1."""
    norms = rows.norms[indices]
    # The power of 2 itself must be in range.
    exponent = jnp.clip(jnp.frexp(norms)[1], -100, 100)
    power = jnp.ldexp(jnp.ones_like(norms), -exponent)
    return rows.x[indices] * power[:, None], norms * power


def _half(x: jax.Array) -> jax.Array:
    """Return x rounded to half of its binary digits."""
    bits = jnp.finfo(x.dtype).nexp, half_digits(x.dtype) - 1
    return jax.lax.reduce_precision(x, exponent_bits=bits[0], mantissa_bits=bits[1])


def half_digits(dtype: DTypeLike) -> int:
    """Return half the number of binary digits of a dtype. Numbers this short multiply exactly."""
    return (jnp.finfo(dtype).nmant + 1) // 2
