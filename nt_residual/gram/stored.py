"""Matrices on disk: reading them, and products with them."""

import operator
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from tqdm import tqdm

from nt_residual import _files, memory
from nt_residual.gram import layout, owned
from nt_residual.gram import manifest as manifests
from nt_residual.gram.chunks import Chunks
from nt_residual.gram.journal import Journal, Tile
from nt_residual.gram.manifest import Manifest

# What a disk reads.
_BYTES_PER_SECOND = 1e9


@jax.tree_util.register_pytree_node_class
class Stored:
    """A matrix on disk, of which only what is asked for is read.

    `stored[2:5]`, `stored[:, 0]` and `stored[3, 4]` are NumPy arrays and numbers, and
    `np.asarray(stored)` is all of it. Made by `gram.compute(..., store=PATH)`, and opened again
    by `gram.load`. The directory is a zarr v3 array, which any reader of that format opens.
    Two are equal, and hash the same, where the directory and what was computed are; pickled,
    it is the path.

    Attributes:
      path: the directory.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> from nt_residual.gram import store
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     ones = lambda i, j: np.ones((2, 2), np.float32)
      ...     k = store.fill(directory, ones, (4, 4), "float32", 2, {}, symmetric=True)
      ...     k.product(np.ones((4, 1)))[:, 0], k[3, 1:]
      (array([4., 4., 4., 4.], dtype=float32), array([1., 1., 1.], dtype=float32))
    """

    def __init__(self, path: pathlib.Path, manifest: Manifest):
        self.path = path.absolute()
        self._manifest = manifest
        self._chunks = Chunks(self.path, manifest)
        # Programs that call back here live no longer than this object.
        self.jit = owned.new_jit()

    def tree_flatten(self):
        """What JAX traces, which is nothing, and what it compiles for."""
        return (), (self.path, self._manifest)

    @classmethod
    def tree_unflatten(cls, rest, children):
        """Inverse of `tree_flatten`."""
        return cls(*rest)

    @property
    def shape(self) -> tuple[int, int]:
        """(n1, n2)."""
        return self._manifest.shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the entries."""
        return self._manifest.numpy_dtype

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Rows and columns of a tile, which is read as a whole."""
        return self._manifest.tile_shape

    @property
    def symmetric(self) -> bool:
        """Whether it was computed as a symmetric matrix."""
        return self._manifest.symmetric

    @property
    def nbytes(self) -> int:
        """What the matrix takes in memory."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def complete(self) -> bool:
        """Whether every tile is finished. One that is damaged is, until it is forgotten."""
        return not self._manifest.unfinished(self.path)

    @property
    def seconds(self) -> float:
        """About how long one product takes."""
        return self.nbytes / _BYTES_PER_SECOND / (2 if self.symmetric else 1)

    def __repr__(self) -> str:
        return f"Stored({str(self.path)!r}, shape={self.shape}, dtype={self.dtype})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Stored):
            return NotImplemented
        return (self.path, self._manifest) == (other.path, other._manifest)

    def __hash__(self) -> int:
        return hash((self.path, self.shape))

    def __reduce__(self):
        return load, (str(self.path),)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        indices = key if isinstance(key, tuple) else (key,)
        if len(indices) > 2:
            raise IndexError(f"a stored matrix has two axes, got {len(indices)} indices.")
        indices = (*indices, slice(None))[:2]
        block = self._chunks.read(*map(_as_range, indices, self.shape))
        return block[tuple(slice(None) if isinstance(k, slice) else 0 for k in indices)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a stored matrix cannot be an array without a copy: leave copy out.")
        memory.check(
            {"the stored matrix": self.nbytes},
            memory.available(),
            "this machine",
            "Read blocks of it (stored[:1000]), use its product, or pass it to "
            "regression.GradientFlow.fit as it is.",
        )
        return self[:, :].astype(self.dtype if dtype is None else dtype, copy=False)

    def product(self, v: ArrayLike) -> Any:
        """The product K v, for which each tile that was computed is read once.

        Of a symmetric matrix these are those on and above the diagonal.

        Args:
          v: shape (n2,) or (n2, o). A JAX array may be traced.

        Returns:
          Shape (n1,) or (n1, o): a JAX array of the dtype of `v` if that is one, else a
          NumPy array, of float64 if the matrix is, or float32. It is summed in that of the
          matrix, or float32 if that is more.

        Raises:
          ValueError: if the shape of `v` does not fit.
          OSError: if a tile is damaged or missing; inside of `jax.jit` JAX makes it an error
            of its own, with the same text.
        """
        shape = np.shape(v)
        if len(shape) not in (1, 2) or shape[0] != self.shape[1]:
            n = self.shape[1]
            raise ValueError(f"v must have shape ({n},) or ({n}, o), got shape {shape}.")
        if not isinstance(v, jax.Array):
            return self._product(np.asarray(v))
        out = jax.ShapeDtypeStruct((self.shape[0], *shape[1:]), v.dtype)
        if not isinstance(v, Tracer):
            return jnp.asarray(self._product(np.asarray(v)), v.dtype)
        return jax.pure_callback(lambda u: self._product(np.asarray(u)).astype(out.dtype), out, v)

    def diagonal(self) -> np.ndarray:
        """The diagonal in float64, shape (min(n1, n2),), for which only its tiles are read.

        Raises:
          OSError: if a tile is damaged or missing.
        """
        size = min(self.tile_shape)
        blocks = [slice(start, start + size) for start in range(0, min(self.shape), size)]
        return np.concatenate([np.diagonal(self[k, k]) for k in blocks]).astype(np.float64)

    def place(self, v: ArrayLike) -> jax.Array:
        """An array where `product` takes it from."""
        return jnp.asarray(v)

    def verify(self, *, progress: bool = False) -> None:
        """Reads all of it, to see whether it is as it was written.

        Args:
          progress: whether to show a progress bar.

        Raises:
          OSError: if tiles are damaged or missing; it names them and their files.
        """
        damaged = self._damaged(progress)
        if damaged:
            raise self._chunks.complaint(damaged)

    def forget_damaged(self, *, progress: bool = False) -> list[Tile]:
        """Reads all of it, and takes the damaged tiles from the list of finished ones.

        `gram.compute` with the same arguments then computes them again.

        Args:
          progress: whether to show a progress bar.

        Returns:
          The tiles, as pairs of their row and column.

        Raises:
          OSError: if the list cannot be written, or the matrix is being written to.
        """
        with _files.exclusive(layout.lock(self.path)):
            damaged = self._damaged(progress)
            journal = Journal(layout.journal(self.path))
            whole = [
                tile
                for tile in journal.tiles()
                if not any(chunk in damaged for chunk in self._manifest.covers(*tile))
            ]
            journal.write(whole)
        return list(damaged)

    def _product(self, v: np.ndarray) -> np.ndarray:
        dtype = np.promote_types(self.dtype, np.float32)
        v = v.astype(dtype, copy=False)
        out = np.zeros((self.shape[0], *v.shape[1:]), dtype)
        for (i, j), block in self._chunks.tiles():
            rows, columns = self._manifest.slices(i, j)
            block = block.astype(dtype, copy=False)
            out[rows] += block @ v[columns]
            if self.symmetric and i != j:
                out[columns] += block.T @ v[rows]
        return out

    def _damaged(self, progress: bool) -> dict[Tile, str]:
        tiles = self._manifest.chunks()
        bar = tqdm(tiles, desc="Checking tiles", unit="tile", disable=not progress)
        return self._chunks.damaged(bar)


def load(path: str | os.PathLike) -> Stored:
    """Opens a matrix that `gram.compute(..., store=PATH)` has stored.

    Args:
      path: the directory.

    Raises:
      FileNotFoundError: if there is nothing.
      ValueError: if it is something else, or not complete.
      OSError: if the zarr array in it is missing or damaged.
    """
    directory = pathlib.Path(path).expanduser()
    manifest = manifests.read(directory)
    missing = manifest.unfinished(directory)
    if missing:
        raise ValueError(
            f"the matrix at {directory} is not complete: {len(missing)} of "
            f"{len(manifest.tiles())} tiles are missing. Call gram.compute(..., store=) with the "
            "arguments it was begun with: it computes these."
        )
    return Stored(directory, manifest)


def _as_range(index: Any, n: int) -> range:
    if isinstance(index, slice):
        return range(n)[index]
    try:
        if isinstance(index, bool | np.bool_):
            raise TypeError
        k = operator.index(index)
    except TypeError:
        raise IndexError(
            f"a stored matrix takes integers and slices, got {type(index).__name__}. Read the rows "
            "with stored[a:b] and index those."
        ) from None
    if not -n <= k < n:
        raise IndexError(f"index {k} is out of range: this axis has {n} entries.")
    return range(k % n, k % n + 1)
