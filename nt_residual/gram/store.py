"""Computing a matrix tile by tile onto the disk, such that it can be resumed."""

import errno
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

from nt_residual import _files, memory
from nt_residual.gram import fingerprint as fingerprints
from nt_residual.gram import layout
from nt_residual.gram import manifest as manifests
from nt_residual.gram.chunks import Chunks, Write
from nt_residual.gram.journal import Journal, Tile
from nt_residual.gram.manifest import Manifest
from nt_residual.gram.stored import Stored as Stored
from nt_residual.gram.stored import load as load

# For what is not entries: the manifest, the list of finished tiles, directories.
_MARGIN = 2**20


def fill(
    path: str | os.PathLike,
    tile: Callable[[int, int], np.ndarray],
    shape: tuple[int, int],
    dtype: Any,
    tile_size: int | tuple[int, int],
    fingerprint: dict[str, Any],
    *,
    symmetric: bool,
    progress: bool = False,
) -> Stored:
    """Computes what is missing of a stored matrix.

    A tile counts as finished once it is on the disk and a line in a file says so, which is
    written after it: killed at any moment and called again with the same arguments, this
    computes the unfinished tiles only, and the result is the same, bit for bit. The next
    tile is computed while one is being written.

    Args:
      path: a directory, which is made if there is none.
      tile: gives the entries of tile (i, j), from row i·tile_size and column j·tile_size on,
        cut off where the matrix ends.
      shape: (n1, n2).
      dtype: of the tiles and the matrix: bfloat16, float16, float32 or float64.
      tile_size: rows and columns of a tile: one number, or two.
      fingerprint: what the entries depend on, as `fingerprint.of` gives it.
      symmetric: whether only tiles with i ≤ j are to be computed, of which the transposes
        are those below the diagonal.
      progress: whether to show a progress bar.

    Returns:
      The matrix, complete.

    Raises:
      ValueError: if another matrix is stored there, or a tile has another shape or dtype.
      FileExistsError: if something else than a stored matrix is there.
      BlockingIOError: if another process is writing it.
      OSError: if there is not enough space, or a tile cannot be written.
    """
    directory = _directory_of(path)
    rows, columns = map(int, np.broadcast_to(tile_size, 2))
    size = int(shape[0]), int(shape[1])
    manifest = Manifest(size, np.dtype(dtype).name, (rows, columns), symmetric, fingerprint)
    if _is_there(directory, manifest) and not manifest.unfinished(directory):
        return Stored(directory, manifest)
    _check_space(directory, manifest)
    directory.mkdir(parents=True, exist_ok=True)
    with _files.exclusive(layout.lock(directory)):
        for file in (layout.manifest(directory), layout.journal(directory)):
            for leftover in _files.leftovers(file):
                leftover.unlink(missing_ok=True)
        # Looked at again, since another process may have been at work until now.
        if not _is_there(directory, manifest):
            manifest.write(directory)
        Journal(layout.journal(directory)).tidy()
        _Filling(directory, manifest).run(tile, progress)
    return Stored(directory, manifest)


def tile_size_of(path: str | os.PathLike) -> int | None:
    """The longer side of the tiles of a stored matrix, finished or not; `None` if there is none.

    Where no tile size is asked for, that of a matrix which is to be resumed is the one to take.
    """
    try:
        return max(manifests.read(pathlib.Path(path).expanduser()).tile_shape)
    except (OSError, ValueError):
        return None


class _Filling:
    """The work on one matrix, by the process that holds its lock."""

    def __init__(self, directory: pathlib.Path, manifest: Manifest):
        self._directory, self._manifest = directory, manifest
        self._chunks = Chunks(directory, manifest, create=True)
        self._journal = Journal(layout.journal(directory))
        self._pending: Write | None = None

    def run(self, tile: Callable[[int, int], np.ndarray], progress: bool) -> None:
        todo, total = self._manifest.unfinished(self._directory), len(self._manifest.tiles())
        name, done = f"Tiles of {self._directory.name}", total - len(todo)
        with tqdm(total=total, initial=done, desc=name, unit="tile", disable=not progress) as bar:
            try:
                self._write_all(tile, todo, bar)
            except BaseException as error:
                error.add_note(
                    f"{len(self._journal.tiles())} of {total} tiles are finished in "
                    f"{self._directory}. Call again with the same arguments to compute the others."
                )
                raise

    def _write_all(self, tile: Callable[[int, int], np.ndarray], todo: list[Tile], bar) -> None:
        try:
            for i, j in todo:
                block = self._checked(tile(i, j), i, j)
                self._settle(bar)
                self._pending = self._chunks.write(i, j, block)
        finally:
            # Also when the next tile has failed, or Ctrl-C was pressed: this one is computed.
            self._settle(bar)

    def _settle(self, bar) -> None:
        """Waits for the tile that is being written, and records it."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.wait()
            self._journal.add(*pending.tile)
        except OSError as error:
            raise _explained(error, self._directory) from error
        bar.update()

    def _checked(self, block: np.ndarray, i: int, j: int) -> np.ndarray:
        expected = tuple(part.stop - part.start for part in self._manifest.slices(i, j))
        if block.shape != expected or block.dtype != self._manifest.numpy_dtype:
            raise ValueError(
                f"tile({i}, {j}) must have shape {expected} and dtype {self._manifest.dtype}, got "
                f"{block.shape} and {block.dtype}."
            )
        return block


def _directory_of(path: str | os.PathLike) -> pathlib.Path:
    if "://" in os.fspath(path):
        raise ValueError(f"store must be a path on this machine, got {path!r}.")
    return pathlib.Path(path).expanduser().absolute()


def _is_there(directory: pathlib.Path, manifest: Manifest) -> bool:
    """Whether this very matrix is there; `False` if nothing is. Anything else is refused."""
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file. Pass the path of a directory, or of none.")
    if not layout.manifest(directory).exists():
        # What is left if the process was killed before the manifest was written.
        remains = {layout.lock(directory), *_files.leftovers(layout.manifest(directory))}
        if directory.exists() and not remains.issuperset(directory.iterdir()):
            raise FileExistsError(
                f"{directory} holds something else than a stored matrix, and is left as it is. "
                "Pass a path where there is nothing."
            )
        return False
    stored = manifests.read(directory)
    difference = fingerprints.difference(stored.described(), manifest.described())
    if difference is not None:
        there = "Open what is there with gram.load"
        if stored.unfinished(directory):
            there = "Finish what is there with the arguments it was begun with"
        raise ValueError(
            f"{directory} holds another matrix. What differs: {difference}. {there}, pass another "
            "path, or delete it."
        )
    return True


def _check_space(directory: pathlib.Path, manifest: Manifest) -> None:
    tiles = manifest.tiles()
    if directory.exists():
        tiles = manifest.unfinished(directory)
    needed = manifest.chunk_bytes * sum(len(manifest.covers(*tile)) for tile in tiles) + _MARGIN
    there = next(parent for parent in (directory, *directory.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"the tiles to be computed need {memory.size(needed)} on the disk, and {there} has "
            f"{memory.size(free)} free. Free some, pass a path on a larger disk, or a smaller "
            "dtype",
        )


def _explained(error: OSError, directory: pathlib.Path) -> OSError:
    """The error of a tile that could not be written, with what can be done."""
    text = error.strerror or str(error)
    return OSError(
        error.errno,
        f"{directory}: {text}. Nothing half-written counts as finished: free some space, or remove "
        "what else is in the way, and call again with the same arguments to go on",
    )
