"""What a stored matrix is: its shape, how it is cut, and what it was computed from."""

import dataclasses
import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from nt_residual import _files
from nt_residual.gram import layout
from nt_residual.gram.journal import Journal, Tile

_FORMAT = "nt_residual.gram"
_VERSION = 1
# Those that every reader of zarr v3 knows, and bfloat16, which many know.
_DTYPES = ("bfloat16", "float16", "float32", "float64")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What was decided about a stored matrix before its first tile was computed.

    Attributes:
      shape: (n1, n2).
      dtype: of the entries, by name.
      tile_shape: rows and columns of a tile; the last ones are smaller where they do not
        divide n1 or n2.
      symmetric: whether only tiles on and above the diagonal are computed, and those below
        are their transposes.
      fingerprint: what the matrix was computed from, as `fingerprint.of` gives it.

    Raises:
      ValueError: if the shape, the tiles or the dtype is none, or a symmetric matrix or its
        tiles are not square.

    Example:
      >>> Manifest((5, 5), "float32", (2, 2), True, {}).tiles()
      [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    """

    shape: tuple[int, int]
    dtype: str
    tile_shape: tuple[int, int]
    symmetric: bool
    fingerprint: dict[str, Any]

    def __post_init__(self):
        if min(*self.shape, *self.tile_shape) < 1:
            raise ValueError(
                f"shape and tiles must be at least 1, got {self.shape} and {self.tile_shape}."
            )
        if self.symmetric and (len(set(self.shape)) > 1 or len(set(self.tile_shape)) > 1):
            raise ValueError(
                "a symmetric matrix and its tiles must be square, got shapes "
                f"{self.shape} and {self.tile_shape}."
            )
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {_DTYPES} to be stored, got {self.dtype}.")

    def __hash__(self) -> int:
        # Without the fingerprint, a dictionary.
        return hash((self.shape, self.dtype, self.tile_shape, self.symmetric))

    @property
    def numpy_dtype(self) -> np.dtype:
        """The dtype of the entries."""
        return np.dtype(jnp.dtype(self.dtype))

    @property
    def chunk(self) -> tuple[int, int]:
        """The shape of a tile that is whole."""
        rows, columns = map(min, self.tile_shape, self.shape)
        return rows, columns

    @property
    def chunk_bytes(self) -> int:
        """What a tile takes on the disk: files are padded to whole tiles, and to 4096 bytes."""
        rows, columns = self.chunk
        return -(-(rows * columns * self.numpy_dtype.itemsize + 4) // 4096) * 4096

    def tiles(self) -> list[Tile]:
        """The tiles that are computed, row by row."""
        rows, columns = (-(-n // size) for n, size in zip(self.shape, self.tile_shape, strict=True))
        return [(i, j) for i in range(rows) for j in range(i if self.symmetric else 0, columns)]

    def covers(self, i: int, j: int) -> list[Tile]:
        """The tiles that are written when tile (i, j) is computed."""
        return [(i, j), (j, i)] if self.symmetric and i != j else [(i, j)]

    def chunks(self) -> list[Tile]:
        """The tiles that are on the disk when all are computed."""
        return [chunk for tile in self.tiles() for chunk in self.covers(*tile)]

    def slices(self, i: int, j: int) -> tuple[slice, slice]:
        """The rows and the columns of a tile."""
        (rows, columns), (n1, n2) = self.tile_shape, self.shape
        return (
            slice(i * rows, min((i + 1) * rows, n1)),
            slice(j * columns, min((j + 1) * columns, n2)),
        )

    def unfinished(self, directory: pathlib.Path) -> list[Tile]:
        """The tiles that are still to be computed."""
        finished = Journal(layout.journal(directory)).tiles()
        return [tile for tile in self.tiles() if tile not in finished]

    def described(self) -> dict[str, Any]:
        """All of it, by name, as `fingerprint.difference` compares it."""
        own = {"shape": list(self.shape), "dtype": self.dtype, "tile_size": list(self.tile_shape)}
        return self.fingerprint | own | {"symmetric": self.symmetric}

    def write(self, directory: pathlib.Path) -> None:
        """Writes it, in one step.

        Raises:
          OSError: if it cannot be written.
        """
        fields = dataclasses.asdict(self) | {"format": _FORMAT, "version": _VERSION}
        _files.replace(layout.manifest(directory), json.dumps(fields, indent=2) + "\n")


def read(directory: pathlib.Path) -> Manifest:
    """Reads the manifest of a stored matrix.

    Args:
      directory: where the matrix is stored.

    Raises:
      FileNotFoundError: if there is nothing.
      ValueError: if it is something else, damaged, or of another version of this format.
    """
    if not directory.exists():
        raise FileNotFoundError(f"there is no stored matrix at {directory}, nor anything else.")
    path = layout.manifest(directory)
    if not path.exists():
        raise ValueError(
            f"{directory} is no matrix stored by gram.compute(..., store=): it has no {path.name}."
        )
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        found = fields.pop("format"), fields.pop("version")
        if found != (_FORMAT, _VERSION):
            raise ValueError(f"format {found[0]!r}, version {found[1]!r}")
        fields["shape"], fields["tile_shape"] = map(tuple, (fields["shape"], fields["tile_shape"]))
        return Manifest(**fields)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} must be a manifest of format {_FORMAT!r}, version {_VERSION}, got "
            f"{type(error).__name__}: {error}. Read it with the version of nt_residual that wrote "
            "it, or, if it is damaged, delete the directory and compute the matrix anew."
        ) from None
