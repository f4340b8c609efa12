"""The choice of landmarks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from nt_residual import _checks
from nt_residual.gram import tiles
from nt_residual.gram.tiles import Kernel

# Randomly pivoted Cholesky keeps a matrix of candidates × landmarks. It draws a block at once.
_CANDIDATES, _BLOCK = 20_000, 128


def choose(kernel: Kernel, x: Any, landmarks: Any, *, seed: int, method: str) -> np.ndarray:
    """Return landmarks, shape (M, …): those passed, or inputs chosen by a method.

    Raises:
      TypeError, ValueError: as `LowRank`.
    """
    seed = _checks.integer(seed, "seed", 0)
    _checks.choice(method, "method", ("uniform", "kmeans", "rpcholesky"))
    if np.ndim(landmarks) > 0:
        found = np.asarray(_checks.finite_batch(landmarks, "landmarks"))
        if found.shape[1:] != x.shape[1:]:
            raise ValueError(
                "landmarks must hold inputs of the shape of x, got shapes "
                f"{found.shape} and {x.shape}."
            )
        return found.astype(x.dtype)
    count = _checks.integer(landmarks, "landmarks", 1, "Or pass the landmarks themselves.")
    if count > len(x):
        raise ValueError(
            f"landmarks must be at most the number of inputs, {len(x)}, got {count}. For that "
            "many use the whole matrix: gram.compute(kernel, x)."
        )
    random = np.random.default_rng(seed)
    if method == "uniform":
        return np.asarray(x[np.sort(random.choice(len(x), count, replace=False))])
    few = np.sort(random.choice(len(x), min(len(x), max(_CANDIDATES, 10 * count)), replace=False))
    candidates = np.asarray(x[few])
    if method == "kmeans":
        return _centers(candidates, count, seed)
    return candidates[np.sort(_pivots(kernel, candidates, count, random))]


def _centers(x: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the centers of clusters of inputs."""
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ModuleNotFoundError:
        raise ImportError(
            "method='kmeans' needs scikit-learn, which is not installed: pip install scikit-learn "
            "(the extra 'estimators')"
        ) from None
    # Good centers need not be the best ones: a few passes over the inputs, from a random start.
    options: dict[str, Any] = {"init": "random", "n_init": 1, "batch_size": 4096, "max_iter": 3}
    clusters = MiniBatchKMeans(count, **options, random_state=seed).fit(x.reshape(len(x), -1))
    return np.asarray(clusters.cluster_centers_).reshape(count, *x.shape[1:]).astype(x.dtype)


def _pivots(kernel: Kernel, x: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Return the pivots of a randomly pivoted Cholesky decomposition of k(x, x), at most `count`.

    Each is drawn with the probability of its entry on the diagonal of what remains. A block of
    proposals is drawn at once, from the diagonal before it; each is then accepted with the ratio of
    its entry now and then, which gives the same law.

    Reference: Epperly, Tropp & Webber 2024, arXiv 2410.03969, algorithm 4.
    """
    evaluate = tiles.jit_for(kernel, _entries, static_argnames="kernel")
    static, eps = tiles.static(kernel), float(np.finfo(np.float32).eps)

    def entries(rows: Any, columns: np.ndarray) -> np.ndarray:
        # Always as many columns, so that one program serves all blocks.
        full = x[np.resize(columns, _BLOCK)]
        return np.asarray(evaluate(static, full if rows is None else x, full), np.float64)

    blocks = np.array_split(np.arange(len(x)), -(-len(x) // _BLOCK))
    diagonal = np.concatenate([np.diagonal(entries(None, p))[: len(p)] for p in blocks])
    factor, pivots = np.zeros((len(x), count), np.float32), np.zeros(0, int)
    rounding = 10 * eps * diagonal.sum()
    while len(pivots) < count and diagonal.sum() > rounding:
        proposed = random.choice(len(x), _BLOCK, p=diagonal / diagonal.sum())
        columns = entries(x, proposed) - factor @ factor[proposed].T
        remaining, accepted = columns[proposed], []
        for i, at in enumerate(proposed):
            share = max(remaining[i, i], 0.0) / diagonal[at]
            if random.random() < share and len(pivots) + len(accepted) < count:
                accepted.append(i)
                remaining = remaining - np.outer(remaining[:, i], remaining[i]) / remaining[i, i]
        if not accepted:
            continue
        new = proposed[accepted]
        block = columns[np.ix_(new, accepted)]
        root = scipy.linalg.cholesky(block + eps * np.diag(np.diagonal(block)), lower=True)
        part = scipy.linalg.solve_triangular(root, columns[:, accepted].T, lower=True).T
        factor[:, len(pivots) : len(pivots) + len(new)] = part
        diagonal = np.maximum(diagonal - np.sum(part**2, axis=1), 0)
        pivots = np.append(pivots, new)
        diagonal[pivots] = 0
    return pivots


def _entries(kernel: Kernel, x1: jax.Array, x2: jax.Array) -> jax.Array:
    return jnp.asarray(kernel(x1, x2))
