"""The sums over all inputs that training with landmarks needs, and bare products of that size.

The kernel has 100 blocks, and there is one output. `bare products` multiplies a stored matrix of
the size of a tile by an M × M matrix, and the result by its transpose, as often as there are tiles.
The work counted is these multiplications, half of the symmetric one, and reading inputs once.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import networks
from benchmarks.suite.case import Case, Counts, distance
from nt_residual import gram

# n, and the number of landmarks M.
SIZES = {"quick": (4000, 200), "standard": (20_000, 1000), "large": (400_000, 4000)}
DEPTH, ROWS = 100, 2000
# Small eigenvalues of the landmarks' matrix amplify the rounding errors of the features.
TOLERANCE = 1e-4


def cases(size: str) -> list[Case]:
    """Return the case of the bare products, and the case of the sums."""
    return [case(who, *SIZES[size]) for who in ("bare products", "gram.LowRank")]


def case(who: str, n: int, count: int) -> Case:
    """Return the case of the bare products, or of the sums."""
    flops = 3.0 * n * count**2 + 2.0 * n * count * networks.FEATURES * (who == "gram.LowRank")
    bare = who == "bare products"
    return Case(
        family="low_rank",
        who=who,
        sizes={"n": n, "landmarks": count, "dtype": "float32"},
        build=functools.partial(_products if bare else _sums, n, count),
        check=lambda found: (_products_error if bare else _error)(found, n, count),
        tolerance=TOLERANCE,
        counts=lambda _: Counts(count**2, 4.0 * n * networks.FEATURES, flops),
        jit=bare,
    )


@functools.lru_cache(maxsize=1)
def _low_rank(n, count):
    return gram.LowRank(networks.kernel(DEPTH), networks.inputs(n), count, tile_size=min(n, ROWS))


def _sums(n, count):
    return lambda y: _low_rank(n, count).moments(y), (_targets(n),)


def _targets(n):
    """Return positive targets, so that nothing cancels."""
    return np.random.default_rng(1).uniform(size=(n, 1))


def _factors(n, count):
    random = np.random.default_rng(2)
    return [random.uniform(size=(rows, count)) / count for rows in (min(n, ROWS), count)]


def _products(n, count):
    def function(tile, square):
        def step(i, total):
            # The factor differs between steps, so that the compiler cannot leave out a product.
            features = (tile * (1 + i / n)) @ square
            return total + features.T @ features

        return jax.lax.fori_loop(0, -(-n // len(tile)), step, jnp.zeros_like(square))

    return function, tuple(jnp.asarray(part, jnp.float32) for part in _factors(n, count))


def _products_error(found, n, count):
    tile, square = _factors(n, count)
    factors = 1 + np.arange(-(-n // len(tile))) / n
    features = tile @ square
    return distance(found, np.sum(factors**2) * features.T @ features)


def _error(sums, n, count):
    """Return the error of K_Zn K_nZ v and K_Zn y, which do not depend on the features' basis."""
    low_rank, y, x = _low_rank(n, count), _targets(n), networks.inputs(n)
    k = np.concatenate(
        [
            networks.exact(x[start : start + ROWS], low_rank.landmarks, DEPTH)
            for start in range(0, n, ROWS)
        ]
    )
    second, first = sums
    # Φ = K_nZ B and B = U S^{−1/2}, so K_nZ = Φ S^{1/2} Uᵀ where no direction is left out.
    back = np.linalg.pinv(low_rank.basis)
    v = np.ones(count)
    found = np.append(back.T @ (second @ (back @ v)), back.T @ first[:, 0])
    return distance(found / n, np.append(k.T @ (k @ v), k.T @ y[:, 0]) / n)
