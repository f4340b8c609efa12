"""Angles between inputs, computed once for all kernels that are functions of them.

The kernels of residual networks of every depth and schedule are functions of the same angles. A
search over such kernels with the same inputs, as scikit-learn's `GridSearchCV` makes, computes
them once: `CACHE` keeps those that were used last.

They are computed on the host in float64, so that they serve the steepest kernel as well: a
cosine in float32 knows a small angle to a few digits only.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import threading
from collections.abc import Callable, Hashable, Iterator

import numpy as np

from nt_residual.compat import enable_x64
from nt_residual.rntk import ResidualKernel

# Beyond this |cos θ| angles are taken from differences of inputs.
_NEARLY_PARALLEL = 1 - 1e-6
# The side of the tiles that angles are kept in. All have one size, so that one program is
# compiled for any number of inputs, and the value of an entry does not depend on the others.
_SIDE = 512


@dataclasses.dataclass(frozen=True, eq=False)
class Angles:
    """The angles between two batches, in tiles, of which the last are padded.

    Attributes:
      tiles: row by row, shape (count, 512, 512), radians; no more than the upper triangle
        between a batch and itself.
      norms1: of the rows of the first batch, shape (n1,).
      norms2: of those of the second, shape (n2,).
      same: whether both batches are the same.
    """

    tiles: np.ndarray
    norms1: np.ndarray
    norms2: np.ndarray
    same: bool

    @property
    def nbytes(self) -> int:
        """The bytes that they take."""
        return self.tiles.nbytes + self.norms1.nbytes + self.norms2.nbytes


class Cache:
    """Angles by what they are angles of: those used last, within a limit.

    Each is computed once, even if several threads ask for it at the same time.

    Args:
      limit: how many bytes to keep.

    Attributes:
      limit: may be changed at any time, 0 to keep nothing.
      computed: how many have been computed.
      found: how often they were there already.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.computed = self.found = 0
        self._lock = threading.Lock()
        self._entries: collections.OrderedDict[Hashable, concurrent.futures.Future] = (
            collections.OrderedDict()
        )

    def get(self, key: Hashable, compute: Callable[[], Angles]) -> Angles:
        """The angles of a key, computed if they are not there."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self.found += 1
                self._entries.move_to_end(key)
            else:
                self.computed += 1
                mine = self._entries[key] = concurrent.futures.Future()
        if entry is not None:
            return entry.result()
        try:
            angles = compute()
        except BaseException as error:
            with self._lock:
                self._entries.pop(key, None)
            mine.set_exception(error)
            raise
        mine.set_result(angles)
        self._evict()
        return angles

    def clear(self) -> None:
        """Forgets all angles, and the counts."""
        with self._lock:
            self._entries.clear()
            self.computed = self.found = 0

    @property
    def size(self) -> int:
        """The bytes that are kept."""
        with self._lock:
            return sum(self._sizes().values())

    def _sizes(self) -> dict[Hashable, int]:
        return {k: e.result().nbytes for k, e in self._entries.items() if e.done()}

    def _evict(self) -> None:
        with self._lock:
            sizes = self._sizes()
            total = sum(sizes.values())
            for key, size in sizes.items():
                if total <= self.limit:
                    return
                del self._entries[key]
                total -= size


CACHE = Cache(limit=2**30)


def fit_in_cache(n1: int, n2: int, dtype: np.dtype) -> bool:
    """Whether the angles between so many inputs can be kept, beside as many others."""
    padded1, padded2 = (-(-n // _SIDE) * _SIDE for n in (n1, n2))
    return 2 * padded1 * padded2 * dtype.itemsize <= CACHE.limit


def kernel_matrix(
    kernel: ResidualKernel, x1: np.ndarray, x2: np.ndarray | None = None
) -> np.ndarray:
    """The kernel between two batches, from angles that are computed once for all kernels.

    As accurate as `kernel(x1, x2)`, and to the last digit the same whatever the other rows are.

    Args:
      kernel: any.
      x1: shape (n1, d), float32 or float64, rows finite and not zero.
      x2: shape (n2, d), the same dtype; `None` for `x1`, which gives an exactly symmetric matrix.

    Returns:
      Shape (n1, n2), a NumPy array of the same dtype.

    Example:
      >>> from nt_residual import schedules
      >>> kernel = ResidualKernel(1000, schedules.PowerLaw(gamma=0.5))
      >>> kernel_matrix(kernel, np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)).round(4)
      array([[1.    , 0.3856],
             [0.3856, 4.    ]], dtype=float32)
    """
    angles = between(x1, x2)
    norms1, norms2 = angles.norms1[:, None], angles.norms2[None, :]
    out = np.empty((len(x1), norms2.size), x1.dtype)
    with enable_x64(x1.dtype == np.float64):
        for (rows, columns), theta in zip(
            _tiles(*out.shape, angles.same), angles.tiles, strict=True
        ):
            height, width = rows.stop - rows.start, columns.stop - columns.start
            tile = np.asarray(kernel.of_angles(theta))[:height, :width]
            out[rows, columns] = tile = tile * (norms1[rows] * norms2[:, columns])
            if angles.same and rows != columns:
                out[columns, rows] = tile.T
    return out


def between(x1: np.ndarray, x2: np.ndarray | None = None) -> Angles:
    """The angles between all pairs of rows, from the cache if they have been asked for before.

    Args:
      x1: shape (n1, d), float32 or float64, rows finite and not zero.
      x2: shape (n2, d), the same dtype; `None` for `x1`.

    Returns:
      Angles in that dtype, accurate to its rounding and to 1e-12. They are exactly zero between
      an input and itself.
    """
    key1 = _digest(x1)
    key2 = key1 if x2 is None else _digest(x2)
    return CACHE.get((key1, key2), lambda: _compute(x1, None if key1 == key2 else x2))


def _digest(x: np.ndarray) -> tuple[Hashable, ...]:
    contents = hashlib.sha256(np.ascontiguousarray(x).data)
    return x.shape, x.dtype.str, contents.digest()


def _tiles(n1: int, n2: int, same: bool) -> Iterator[tuple[slice, slice]]:
    """The rows and columns of each tile, those below the diagonal left out if `same`."""
    for i in range(0, n1, _SIDE):
        for j in range(i if same else 0, n2, _SIDE):
            yield slice(i, min(i + _SIDE, n1)), slice(j, min(j + _SIDE, n2))


def _compute(x1: np.ndarray, x2: np.ndarray | None) -> Angles:
    unit1, norms1 = _unit(x1)
    unit2, norms2 = (unit1, norms1) if x2 is None else _unit(x2)
    same = x2 is None
    tiles = np.zeros((sum(1 for _ in _tiles(len(x1), len(unit2), same)), _SIDE, _SIDE), x1.dtype)
    free = iter(tiles)
    for row in range(0, len(unit1), _SIDE):
        # One product for a row of tiles is faster than one for each.
        theta = _angles_of_units(unit1[row : row + _SIDE], unit2[row if same else 0 :])
        for column in range(0, theta.shape[1], _SIDE):
            part = theta[:, column : column + _SIDE]
            if same and column == 0:
                # On the diagonal, where up to rounding it is symmetric already.
                part = np.triu(part, 1)
                part = part + part.T
            next(free)[: part.shape[0], : part.shape[1]] = part
    return Angles(tiles, norms1.astype(x1.dtype), norms2.astype(x1.dtype), same)


def _angles_of_units(unit1: np.ndarray, unit2: np.ndarray) -> np.ndarray:
    """Angles between unit vectors, in float64."""
    cosine = unit1 @ unit2.T
    near = np.nonzero(np.abs(cosine) > _NEARLY_PARALLEL)
    theta = np.arccos(np.clip(cosine, -1, 1, out=cosine), out=cosine)
    # Not all at once, since all pairs may be near.
    for start in range(0, len(near[0]), _SIDE):
        i, j = (index[start : start + _SIDE] for index in near)
        obtuse = theta[i, j] > 1
        other = np.where(obtuse, -1.0, 1.0)[:, None] * unit2[j]
        acute = 2 * np.arcsin(np.linalg.norm(unit1[i] - other, axis=1) / 2)
        theta[i, j] = np.where(obtuse, np.pi - acute, acute)
    return theta


def _unit(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors and norms of rows, in float64."""
    # In two steps, neither of which overflows.
    largest = np.max(np.abs(x), axis=1, keepdims=True).astype(np.float64)
    scaled = x / largest
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    return scaled / norms, (largest * norms)[:, 0]
