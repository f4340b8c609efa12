"""The entries of a stored matrix: a zarr v3 array, of which each chunk is one tile."""

import errno
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from nt_residual.gram import layout
from nt_residual.gram.journal import Tile
from nt_residual.gram.manifest import Manifest


class Chunks:
    """The array of a stored matrix, opened.

    Args:
      directory: that of the array, and of our own files beside it.
      manifest: what the array must be.
      create: whether it may be made.

    Raises:
      OSError: if it is missing, cannot be made, or is not what the manifest says.
    """

    def __init__(self, directory: pathlib.Path, manifest: Manifest, *, create: bool = False):
        import tensorstore  # Few need it, and it takes a while to import.

        self._directory, self._manifest = directory, manifest
        spec = _spec(directory, manifest)
        try:
            self._array = tensorstore.open(spec, open=True, create=create).result()
        except ValueError as error:
            raise OSError(
                _number_of(error),
                f"the zarr array in {directory} cannot be opened: {reason(error)}. If its "
                f"{directory / 'zarr.json'} is missing or damaged, delete the directory and "
                "compute the matrix anew",
            ) from None

    def write(self, i: int, j: int, block: np.ndarray) -> "Write":
        """Begins to write the tile (i, j) of those that are computed."""
        tiles = self._manifest.covers(i, j)
        for tile in tiles:
            # Of a chunk at the edge tensorstore would read what is beyond the matrix, and fail
            # where the chunk is damaged.
            layout.chunk(self._directory, *tile).unlink(missing_ok=True)
        parts = zip(tiles, (block, block.T), strict=False)
        return Write((i, j), [self._part(*tile).write(values) for tile, values in parts])

    def read(self, rows: range, columns: range) -> np.ndarray:
        """Reads a block.

        Raises:
          OSError: if a tile of it is damaged or missing.
        """
        if not len(rows) or not len(columns):
            return np.empty((len(rows), len(columns)), self._manifest.numpy_dtype)
        if rows.step == columns.step == 1:
            part = self._array[rows.start : rows.stop, columns.start : columns.stop]
        else:
            part = self._array.oindex[np.asarray(rows), np.asarray(columns)]
        try:
            return part.read().result()
        except ValueError as error:
            sides = zip((rows, columns), self._manifest.tile_shape, strict=True)
            i_range, j_range = (sorted({k // size for k in axis}) for axis, size in sides)
            raise self._explained(error, [(i, j) for i in i_range for j in j_range]) from error

    def tiles(self) -> Iterator[tuple[Tile, np.ndarray]]:
        """The tiles that were computed, each read while the one before it is being used.

        Raises:
          OSError: if one is damaged or missing.
        """
        tiles = self._manifest.tiles()
        coming = self._part(*tiles[0]).read()
        for tile, following in zip(tiles, [*tiles[1:], None], strict=True):
            future = coming
            if following is not None:
                coming = self._part(*following).read()
            try:
                block = future.result()
            except ValueError as error:
                raise self._explained(error, [tile]) from error
            yield tile, block

    def damaged(self, tiles: Iterable[Tile]) -> dict[Tile, str]:
        """Reads tiles, and says what is wrong with those that are not as they were written."""
        found = {}
        for tile in tiles:
            try:
                self._part(*tile).read().result()
            except ValueError as error:
                path = layout.chunk(self._directory, *tile)
                found[tile] = f"tile {tile}, {path} ({reason(error)})"
        return found

    def complaint(self, damaged: dict[Tile, str]) -> OSError:
        """The error to be raised about damaged tiles."""
        texts = list(damaged.values())
        more = f"; and {len(texts) - 10} more" if len(texts) > 10 else ""
        path = str(self._directory)
        return OSError(
            f"{path} is damaged: {'; '.join(texts[:10])}{more}. To have these tiles computed "
            f"again, call gram.load({path!r}).forget_damaged(), then gram.compute(..., store=) "
            "with the arguments it was made with."
        )

    def _explained(self, error: ValueError, tiles: list[Tile]) -> OSError:
        """The error to be raised when reading some of these tiles failed."""
        damaged = self.damaged(tiles)
        if damaged:
            return self.complaint(damaged)
        return OSError(_number_of(error), f"{self._directory} cannot be read: {reason(error)}")

    def _part(self, i: int, j: int) -> Any:
        return self._array[self._manifest.slices(i, j)]


class Write:
    """A tile on its way to the disk.

    Args:
      tile: its row and column.
      futures: from tensorstore, one for each chunk.
    """

    def __init__(self, tile: Tile, futures: list[Any]):
        self.tile, self._futures = tile, futures
        for future in futures:
            future.copy.result()  # From here on the caller may change the block.
            future.commit.force()

    def wait(self) -> None:
        """Returns when all of it is on the disk.

        Raises:
          OSError: if it cannot be written.
        """
        try:
            for future in self._futures:
                future.commit.result()
        except ValueError as error:
            raise OSError(
                _number_of(error), f"tile {self.tile} cannot be written: {reason(error)}"
            ) from None


def _spec(directory: pathlib.Path, manifest: Manifest) -> dict[str, Any]:
    """The array as tensorstore describes it."""
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(directory)},
        # A chunk that is not there is an error, not a tile of fill values; so every tile that
        # is computed must be written, whatever is in it.
        "fill_missing_data_reads": False,
        "store_data_equal_to_fill_value": True,
        "metadata": {
            "shape": manifest.shape,
            "data_type": manifest.dtype,
            # What other readers find where nothing has been computed yet.
            "fill_value": "NaN",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": manifest.chunk}},
            "chunk_key_encoding": {"name": "default"},
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ],
        },
    }


def reason(error: ValueError) -> str:
    """What tensorstore says about an error, less the kind, the file and the settings."""
    text = re.split(r" \[(?:tensorstore_spec|os_error_code|source locations)=", str(error))[0]
    return re.sub(r'^[A-Z_]+: (?:Error \w+ (?:local file )?"[^"]*"(?: driver)?: )?', "", text)


def _number_of(error: ValueError) -> int:
    """The number that the operating system gave to an error, if it was there that it arose."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return int(found.group(1)) if found else errno.EIO
