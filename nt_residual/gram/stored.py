"""Matrices on disk: reading them, and products with them."""

import contextlib
import errno
import functools
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from nt_residual import _checks, memory
from nt_residual.gram import tiles

# The attribute of the zarr array that tells what was computed.
ATTRIBUTE = "nt_residual.gram"


@jax.tree_util.register_pytree_node_class
class Stored:
    """A matrix on disk. It reads only the parts that you ask for.

    `gram.compute(..., store=PATH)` returns one, and `gram.load(PATH)` opens it again.
    `stored[2:5]`, `stored[:, 0]` and `stored[3, 4]` are NumPy arrays and numbers, and
    `np.asarray(stored)` reads all of it. The folder is a zarr v3 array with one chunk per tile.
    Pickling keeps the path, not the data.

    Attributes:
      path: the folder.
      shape: (n1, n2).
      dtype: of the entries.
      tile_shape: rows and columns of a tile. Each read reads whole tiles.
      symmetric: whether it was computed as a symmetric matrix.
      identity: a description of the kernel and the inputs.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> from nt_residual import gram
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     k = gram.compute(lambda a, b: a @ b.T, np.eye(3), store=folder + "/k")
      ...     k.product(np.ones(3)), k[0, 1:]
      (array([1., 1., 1.], dtype=float32), array([0., 0.], dtype=float32))
    """

    def __init__(self, path: str | os.PathLike):
        import tensorstore  # Few need it, and it takes a while to import.

        self.path = folder_of(path)
        # A missing chunk is an error, not a tile of fill values.
        spec = {"fill_missing_data_reads": False, "store_data_equal_to_fill_value": True}
        spec |= spec_of(self.path)
        with explained(self.path, "delete the folder, and compute the matrix again"):
            self.array = tensorstore.open(spec, open=True).result()
        self.identity = self.array.spec().to_json()["metadata"]["attributes"][ATTRIBUTE]
        n1, n2 = self.array.shape
        self.shape = n1, n2
        self.dtype = np.dtype(self.array.dtype.numpy_dtype)
        self.tile_shape: tuple[int, int] = tuple(self.identity["tile_size"])
        self.symmetric: bool = self.identity["symmetric"]

    def tree_flatten(self):
        """Return what JAX traces, which is nothing, and what it compiles for."""
        return (), (self.path, json.dumps(self.identity))

    @classmethod
    def tree_unflatten(cls, rest, children):
        """Return the inverse of `tree_flatten`."""
        return cls(rest[0])

    @property
    def jit(self) -> Any:
        """`jax.jit` for functions of it. What it compiles does not outlive this object."""
        return functools.partial(tiles.jit_for, self)

    def __repr__(self) -> str:
        return f"Stored({str(self.path)!r}, shape={self.shape}, dtype={self.dtype})"

    def __reduce__(self):
        return load, (str(self.path),)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        indices = key if isinstance(key, tuple) else (key,)
        if len(indices) > 2:
            raise IndexError(f"a stored matrix has two axes, got {len(indices)} indices.")
        indices = (*indices, slice(None))[:2]
        parts = [range(n)[k] for k, n in zip(indices, self.shape, strict=True)]
        with explained(self.path):
            return self.array.oindex[tuple(map(_selection, parts))].read().result()[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a stored matrix cannot be an array without a copy: leave copy out.")
        parts = {"the stored matrix": self.shape[0] * self.shape[1] * self.dtype.itemsize}
        remedies = "Read blocks of it (stored[:9]), or pass it to regression.GradientFlow.fit."
        memory.check(parts, memory.available(), "this machine", remedies)
        return self[:, :].astype(self.dtype if dtype is None else dtype, copy=False)

    def product(self, v: ArrayLike) -> Any:
        """Return K @ v. It reads each tile once, of a symmetric matrix half of them.

        Args:
          v: shape (n2,) or (n2, o). A JAX array may be traced.

        Returns:
          Shape (n1,) or (n1, o). For a JAX array v, a JAX array of its dtype; otherwise a NumPy
          array. Sums are in the widest of float32 and the dtypes of the matrix and of a JAX
          array v.

        Raises:
          ValueError: if the shape of `v` does not fit.
          OSError: if a tile is damaged or missing; inside `jax.jit` an error of JAX with this text.
        """
        array = v if isinstance(v, jax.Array) else np.asarray(v)
        tiles.check_columns(array, self.shape[1])
        if isinstance(array, np.ndarray):
            return self._product(array, self.dtype)
        out = jax.ShapeDtypeStruct((self.shape[0], *array.shape[1:]), array.dtype)
        if not isinstance(v, Tracer):
            return jnp.asarray(self._product(np.asarray(array), out.dtype), out.dtype)

        def product(u: jax.Array) -> np.ndarray:
            return self._product(np.asarray(u), out.dtype).astype(out.dtype)

        return jax.pure_callback(product, out, v)

    def diagonal(self) -> np.ndarray:
        """Return the diagonal in float64, shape (min(n1, n2),). It reads the tiles on it only."""
        size = min(self.tile_shape)
        blocks = [slice(start, start + size) for start in range(0, min(self.shape), size)]
        return np.concatenate([np.diagonal(self[k, k]) for k in blocks]).astype(np.float64)

    def place(self, v: ArrayLike) -> jax.Array:
        """Return an array where `product` takes it from."""
        return jnp.asarray(v)

    def pairs(self) -> list[tuple[int, int]]:
        """Return the tiles that are computed: of a symmetric matrix the upper triangle."""
        rows, columns = map(tiles.Cut, self.shape, self.tile_shape)
        return tiles.pairs(rows, columns, symmetric=self.symmetric)

    def chunks(self, i: int, j: int) -> list[tuple[int, int]]:
        """Return the chunks that hold tile (i, j): its own, and that of its mirror image."""
        return [(i, j), (j, i)] if self.symmetric and i != j else [(i, j)]

    def chunk_file(self, i: int, j: int) -> pathlib.Path:
        """Return the file of chunk (i, j)."""
        return self.path / "c" / str(i) / str(j)

    def missing(self) -> list[tuple[int, int]]:
        """Return the tiles that are still to be computed."""
        return [
            tile
            for tile in self.pairs()
            if not all(self.chunk_file(*chunk).exists() for chunk in self.chunks(*tile))
        ]

    def slices(self, i: int, j: int) -> tuple[slice, slice]:
        """Return the rows and columns of tile (i, j)."""
        (rows, columns), (n1, n2) = self.tile_shape, self.shape
        return (
            slice(i * rows, min((i + 1) * rows, n1)),
            slice(j * columns, min((j + 1) * columns, n2)),
        )

    def _product(self, v: np.ndarray, dtype: np.dtype) -> np.ndarray:
        dtype = np.promote_types(np.promote_types(self.dtype, dtype), np.float32)
        v = v.astype(dtype, copy=False)
        out = np.zeros((self.shape[0], *v.shape[1:]), dtype)
        pairs = self.pairs()
        # The next tile is read while this one is used.
        coming = self.array[self.slices(*pairs[0])].read()
        for (i, j), following in zip(pairs, [*pairs[1:], pairs[-1]], strict=True):
            with explained(self.path):
                block = coming.result().astype(dtype, copy=False)
            coming = self.array[self.slices(*following)].read()
            rows, columns = self.slices(i, j)
            out[rows] += block @ v[columns]
            if self.symmetric and i != j:
                out[columns] += block.T @ v[rows]
        return out


def load(path: str | os.PathLike) -> Stored:
    """Open the matrix that `gram.compute(..., store=path)` has stored in a folder.

    Raises:
      FileNotFoundError: if the folder does not exist.
      ValueError: if it is not a stored matrix, or not complete.
      OSError: if the zarr array in it is damaged.
    """
    folder = folder_of(path)
    if not folder.exists():
        raise FileNotFoundError(f"there is no stored matrix at {folder}, nor anything else.")
    if not is_ours(folder):
        raise ValueError(
            f"{folder} is not a matrix stored by gram.compute(..., store=): it has no zarr.json "
            f"with the attribute {ATTRIBUTE!r}."
        )
    stored = Stored(folder)
    missing = stored.missing()
    if missing:
        raise ValueError(
            f"the matrix at {folder} is not complete: {len(missing)} of {len(stored.pairs())} "
            f"tiles are missing, the first is {stored.chunk_file(*missing[0])}. Call "
            "gram.compute(..., store=) again with the same arguments: it computes these."
        )
    return stored


def folder_of(path: str | os.PathLike) -> pathlib.Path:
    """Return the absolute path; a `ValueError` if it is an address."""
    folder = _checks.path(path, "store")
    if "://" in os.fspath(path):
        raise ValueError(f"store must be a path on this machine, got {path!r}.")
    return folder.expanduser().absolute()


def spec_of(folder: pathlib.Path) -> dict[str, Any]:
    """Return what tensorstore calls the array in a folder."""
    return {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}}


def is_ours(folder: pathlib.Path) -> bool:
    """Return whether a folder holds a matrix of ours, complete or not."""
    file = folder / "zarr.json"
    return file.is_file() and f'"{ATTRIBUTE}"' in file.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def explained(
    folder: pathlib.Path,
    remedy: str = "Delete that file if it exists, and call gram.compute(..., store=) again with "
    "the same arguments: it computes the tile",
) -> Iterator[None]:
    """Turn an error of tensorstore into an `OSError` with a remedy."""
    try:
        yield
    except ValueError as error:
        # "KIND: text, with the file [os_error_code='28'] [tensorstore_spec=…]".
        text = re.split(r" \[\w+=", str(error))[0].partition(": ")[2] or str(error)
        number = re.search(r"os_error_code='(\d+)'", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, f"the matrix in {folder}: {text}. {remedy}") from error


def _selection(part: int | range) -> Any:
    """Return an index as tensorstore takes it, to which negative ones mean something else."""
    if isinstance(part, range):
        return slice(part.start, part.stop) if part.step == 1 else np.asarray(part, int)
    return part
