"""Kernel matrices projected onto the span of landmarks, for more inputs than a matrix allows."""

import itertools
import math
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from tqdm import tqdm

from nt_residual import _checks, _files, memory
from nt_residual.gram import landmarks as choice
from nt_residual.gram import sharded, tiles
from nt_residual.gram.matrix import compute
from nt_residual.gram.tiles import Kernel

# Rows that are multiplied at a time: enough for products at full speed.
_ROWS = 2048


class LowRank:
    r"""The kernel matrix of n inputs, projected onto the span of M ≪ n landmarks (Nyström).

    With landmarks Z and K_ZZ = U S Uᵀ, the projected kernel is the product of r ≤ M features,

        k̂(x, x') = φ(x)·φ(x'),   φ(x) = k(x, Z) B,   B = U S^{−1/2}

    It equals k if x or x' is a landmark, and k − k̂ is positive semi-definite.
    `GradientFlow.fit` takes it in place of a matrix, and trains with it exactly. This takes one
    pass over the inputs, n M (d + 2M) multiplications, and memory for some M × M matrices. About
    M = √n log n landmarks keep the rate of early-stopped regression (Rudi, Camoriano & Rosasco
    2015).

    Predictions need only the landmarks: pass the kernel between new inputs and them,
    `gram.MatrixFree(kernel, x_test, low_rank.landmarks)`, to `predict`.

    Args:
      kernel: a JAX function of two batches, as for `gram.compute`.
      x: shape (n, …), floats. It may be a NumPy memory map: it stays on the host, and goes to the
        device in tiles.
      landmarks: their number M ≤ n, or an array of inputs, shape (M, …).
      seed: of the choice of landmarks.
      method: 'uniform' draws them from the inputs. The others look at 20,000 inputs, or 10 M, and
        take longer. 'kmeans' takes the centers of clusters (scikit-learn's `MiniBatchKMeans`):
        more accurate for images and other vectors. 'rpcholesky' draws inputs by randomly pivoted
        Cholesky, those far from all others more often: better where inputs come in clusters of
        very different sizes.
      tile_size: the number of rows of a tile; `None` for 2048.
      mesh: spreads the rows of each tile over its devices, in all processes, which pass the same
        inputs.
      progress: whether to show progress bars, in all methods.

    Attributes:
      kernel: as passed.
      x: the inputs, a NumPy array of shape (n, …).
      landmarks: Z, a NumPy array of shape (M, …).
      landmark_diagonal: k(z, z), float64, shape (M,).
      basis: B, float64, shape (M, r). The M − r directions with eigenvalues S below
        ε √M max_i k(z_i, z_i) are left out: rounding, or repeated landmarks, produce them.
      dtype: of the kernel's values.

    Raises:
      MemoryError: if M × M matrices do not fit.
      TypeError, ValueError: as `gram.compute`, and if there are more landmarks than inputs, or
        fewer than one.

    Example:
      >>> import jax.numpy as jnp
      >>> from nt_residual import gram, regression, rntk, schedules
      >>> kernel = rntk.ResidualKernel(100, schedules.PowerLaw(0.5))
      >>> x = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32)
      >>> low_rank = gram.LowRank(kernel, x, landmarks=100)
      >>> flow = regression.GradientFlow.fit(low_rank, x[:, 0])
      >>> flow.predict(kernel(x[:2], low_rank.landmarks), t=1000.0).shape
      (2,)

    Reference: Williams & Seeger 2001; arXiv 1507.04717; for 'kmeans' Zhang, Tsang &
    Kwok 2008; for 'rpcholesky' arXiv 2207.06503.
    """

    @sharded.no_mesh()
    def __init__(
        self,
        kernel: Kernel,
        x: ArrayLike,
        landmarks: int | ArrayLike = 4000,
        *,
        seed: int = 0,
        method: Literal["uniform", "kmeans", "rpcholesky"] = "uniform",
        tile_size: int | None = None,
        mesh: Mesh | None = None,
        progress: bool = False,
    ):
        rows = _checks.optional_integer(tile_size, "tile_size", "None is 2048.") or _ROWS
        self._progress = _checks.boolean(progress, "progress")
        mesh = sharded.mesh_of(mesh, x=x)
        self.x = np.asarray(_checks.finite_batch(x, "x"))
        self.kernel, self.dtype = kernel, _checks.kernel(kernel, self.x, self.x)
        self._wide = np.dtype(jnp.promote_types(self.dtype, jnp.float32))
        self._mesh = None if mesh is None else sharded.automatic_mesh(mesh)
        self._size = min(rows, len(self.x))
        if self._mesh is not None:
            self._size = -(-self._size // self._mesh.size) * self._mesh.size
        self.landmarks = choice.choose(kernel, self.x, landmarks, seed=seed, method=method)
        self._check_memory()
        self.basis, self.landmark_diagonal = self._basis()
        # After Ctrl-C: what was added up, the number of tiles in it, and for which targets.
        self._interrupted: tuple[str, int, Any] | None = None

    def __repr__(self) -> str:
        n, m = self.shape[0], len(self.landmarks)
        return f"LowRank(n={n}, landmarks={m}, rank={self.rank}, dtype={self.dtype})"

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return len(self.x), len(self.x)

    @property
    def rank(self) -> int:
        """The number r of features."""
        return self.basis.shape[1]

    @sharded.no_mesh()
    def moments(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ΦᵀΦ, shape (r, r), and Φᵀy, shape (r, o), in float64, by one pass over the inputs.

        Products are in the dtype of the kernel, their sums over tiles in twice its precision. After
        Ctrl-C the next call with the same `y` goes on with the tile at which this one stopped.

        Args:
          y: targets, float64, shape (n, o).

        Raises:
          ValueError: if the kernel of an input with a landmark is NaN or infinite.
        """
        scale = np.max(np.abs(y)) or 1.0
        key, (done, sums) = _files.digest(y), (0, self._zeros(y.shape[1]))
        if self._interrupted is not None and self._interrupted[0] == key:
            _, done, sums = self._interrupted
        add = tiles.jit_for(self.kernel, _add_tile, static_argnames=("kernel", "mesh"))
        fixed = tiles.static(self.kernel), *self._factors()
        starts = range(done * self._size, len(self.x), self._size)
        options = {"desc": "Landmarks", "unit": "tile", "initial": done}
        for start in tqdm(starts, total=done + len(starts), **options, disable=not self._progress):
            part = slice(start, start + self._size)
            tile = self._placed(self.x[part]), self._placed((y[part] / scale).astype(self._wide))
            count = np.int32(len(self.x) - start)
            sums, finite = add(*fixed, *tile, count, sums, mesh=self._mesh)
            if not np.all(np.asarray(finite)):
                raise ValueError(
                    "the kernel must be finite, got NaN or infinity between a landmark and one of "
                    f"x[{start}:{start + self._size}]: {tiles.WHY_NOT_FINITE}"
                )
            done += 1
            self._interrupted = key, done, sums
        self._interrupted = None
        high, low = _over_devices(sums)
        second, first = (
            np.asarray(a, np.float64) + np.asarray(b, np.float64)
            for a, b in zip(high, low, strict=True)
        )
        above = np.triu(second, 1)
        return above + above.T + np.diag(np.diagonal(second)), first * scale

    @sharded.no_mesh()
    def features(self, x: ArrayLike) -> np.ndarray:
        """Return φ(x) of m inputs, shape (m, r), in the dtype of the kernel or float32."""
        jit = tiles.jit_for(self.kernel, _features, static_argnames="kernel")
        inputs = self.landmarks, self.basis.astype(self._wide), jnp.asarray(x)
        return np.asarray(jit(tiles.static(self.kernel), *inputs))

    def feature_tiles(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the features of all inputs, tile by tile, with the range that they belong to."""
        starts = range(0, len(self.x), self._size)
        for start in tqdm(starts, "Features", unit="tile", disable=not self._progress):
            part = slice(start, min(start + self._size, len(self.x)))
            yield part, self.features(self.x[part])

    def _check_memory(self) -> None:
        m, size = len(self.landmarks), self._wide.itemsize
        parts = {
            "decompositions of M × M matrices": 4 * 8 * m**2,
            "sums over tiles": 6 * size * m**2,
            "a tile": 4 * size * self._size * m,
        }
        remedy = "Pass fewer landmarks, or a smaller tile_size."
        memory.check(parts, memory.available(), "this machine", remedy)

    def _basis(self) -> tuple[np.ndarray, np.ndarray]:
        """Return B, and the diagonal of K_ZZ."""
        k = np.asarray(compute(self.kernel, self.landmarks, progress=self._progress), np.float64)
        diagonal = np.diagonal(k).copy()
        # Divide and conquer is the fastest driver where all eigenvectors are wanted.
        values, vectors = scipy.linalg.eigh(k, driver="evd", overwrite_a=True)
        eps = float(jnp.finfo(self.dtype).eps)
        kept = values > eps * math.sqrt(len(k)) * np.max(diagonal)
        return vectors[:, kept] / np.sqrt(values[kept]), diagonal

    def _factors(self) -> tuple[jax.Array, jax.Array]:
        """Return landmarks and basis, on every device."""
        everywhere = None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec())
        return jax.device_put((self.landmarks, self.basis.astype(self._wide)), everywhere)

    def _zeros(self, outputs: int) -> Any:
        """Return sums of nothing, for each device: of ΦᵀΦ and Φᵀy, in high and low parts."""
        devices = 1 if self._mesh is None else self._mesh.size
        shapes = [(devices, self.rank, columns) for columns in (self.rank, outputs)]
        make = jax.jit(
            lambda: [[jnp.zeros(shape, self._wide) for shape in shapes] for _ in range(2)],
            out_shardings=self._by_rows(),
        )
        return make()

    def _by_rows(self) -> NamedSharding | None:
        mesh = self._mesh
        return None if mesh is None else NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def _placed(self, rows: Any) -> jax.Array:
        """Return rows on the devices, the last one repeated up to a whole tile."""
        rows = np.asarray(rows)
        width = [(0, self._size - len(rows))] + [(0, 0)] * (rows.ndim - 1)
        return jax.device_put(np.pad(rows, width, "edge") if width[0][1] else rows, self._by_rows())


def _features(kernel: Kernel, landmarks: jax.Array, basis: jax.Array, x: jax.Array) -> jax.Array:
    """Return φ(x) = k(x, Z) B."""
    values = tiles.entries(kernel, x, landmarks, basis.dtype)
    return jnp.matmul(values, basis, precision="highest")


def _add_tile(
    kernel: Kernel,
    landmarks: jax.Array,
    basis: jax.Array,
    x: jax.Array,
    y: jax.Array,
    count: jax.Array,
    sums: Any,
    *,
    mesh: Mesh | None,
) -> tuple[Any, jax.Array]:
    """Add ΦᵀΦ and Φᵀy of the first `count` rows to the sums; return whether Φ is finite, too."""

    def local(landmarks, basis, x, y, count, sums):
        features = _features(kernel, landmarks, basis, x)
        before = 0 if mesh is None else jax.lax.axis_index(mesh.axis_names) * len(x)
        mine = (before + jnp.arange(len(x)) < count)[:, None]
        features = jnp.where(mine, features, 0)
        parts = _upper(features)[None], jnp.matmul(features.T, y, precision="highest")[None]
        pairs = [_add(*terms) for terms in zip(*sums, parts, strict=True)]
        return [list(part) for part in zip(*pairs, strict=True)], jnp.isfinite(features).all()[None]

    if mesh is None:
        return local(landmarks, basis, x, y, count, sums)
    rows, everywhere = PartitionSpec(mesh.axis_names), PartitionSpec()
    specs = (everywhere, everywhere, rows, rows, everywhere, rows)
    # Kernels may hold loops that were not written for `jax.shard_map`'s check.
    spread = jax.shard_map(
        local, mesh=mesh, in_specs=specs, out_specs=(rows, rows), check_vma=False
    )
    return spread(landmarks, basis, x, y, count, sums)


def _upper(features: jax.Array) -> jax.Array:
    """Return ΦᵀΦ on and above the diagonal, with some half of its multiplications."""
    rank = features.shape[1]
    edges = np.linspace(0, rank, max(1, min(8, rank // 256)) + 1).astype(int).tolist()
    columns = [
        jnp.matmul(features[:, :stop].T, features[:, start:stop], precision="highest")
        for start, stop in itertools.pairwise(edges)
    ]
    below = [(0, rank - len(block)) for block in columns]
    padded = [jnp.pad(block, (rows, (0, 0))) for block, rows in zip(columns, below, strict=True)]
    return jnp.concatenate(padded, axis=1)


def _add(high: jax.Array, low: jax.Array, term: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return high + low + term as a sum and what rounding took from it (Knuth's two-sum)."""
    total = high + term
    of_term = total - high
    return total, low + ((high - (total - of_term)) + (term - of_term))


@jax.jit
def _over_devices(sums: Any) -> Any:
    """Return the sums over all devices."""
    return jax.tree.map(lambda part: part.sum(axis=0), sums)
