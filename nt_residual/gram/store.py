"""Computing a matrix tile by tile onto the disk, such that it can be resumed.

The folder is a zarr v3 array with one chunk per tile. tensorstore writes a chunk whole or not at
all, with a checksum: a tile is finished if and only if its chunk is there.
"""

import errno
import os
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from nt_residual import _files, memory
from nt_residual.gram.stored import ATTRIBUTE, Stored, explained, is_ours
from nt_residual.gram.tiles import Kernel, Tiles

# Those that every reader of zarr v3 knows, and bfloat16, which many know.
_DTYPES = ("bfloat16", "float16", "float32", "float64")
# For directories and metadata.
_MARGIN = 2**20


def folder_of(path: str | os.PathLike) -> pathlib.Path:
    """Return the absolute path, or raise `ValueError` if it is an address."""
    if "://" in os.fspath(path):
        raise ValueError(f"store must be a path on this machine, got {path!r}.")
    return pathlib.Path(path).expanduser().absolute()


def tile_size_of(folder: pathlib.Path) -> int | None:
    """Return the tile size of a matrix to resume, whatever memory there is now, or `None`."""
    return max(Stored(folder).tile_shape) if is_ours(folder) else None


def compute_stored(kernel: Kernel, tiles: Tiles, folder: pathlib.Path, *, progress: bool) -> Stored:
    """Return the matrix of these tiles in a folder. Errors are those of `fill`."""
    if tiles.dtype.name not in _DTYPES:
        raise ValueError(f"dtype must be one of {_DTYPES} to be stored, got {tiles.dtype}.")
    rows, columns = tiles.cuts
    x1, x2 = tiles.inputs
    identity = {
        "kernel": _fields(kernel),
        "x1": _files.digest(x1),
        "x2": "x1" if tiles.symmetric else _files.digest(x2),
        "shape": list(tiles.shape),
        "dtype": tiles.dtype.name,
        "tile_size": [rows.size, columns.size],
        "symmetric": tiles.symmetric,
    }

    def tile(i: int, j: int) -> np.ndarray:
        values = np.asarray(tiles(i, j))
        # The last tile of a row or column may begin earlier, and repeat entries of the one before.
        return values[i * rows.size - rows.start(i) :, j * columns.size - columns.start(j) :]

    return fill(folder, tile, identity, progress=progress)


def fill(
    folder: pathlib.Path,
    tile: Callable[[int, int], np.ndarray],
    identity: dict[str, Any],
    *,
    progress: bool = False,
) -> Stored:
    """Return the stored matrix, having computed the tiles that are missing.

    Args:
      folder: created if it does not exist.
      tile: returns the entries of tile (i, j), cut off where the matrix ends.
      identity: what the matrix is computed from, as JSON. It has the shape, dtype, tile size
        and whether the matrix is symmetric.
      progress: whether to show a progress bar.

    Raises:
      ValueError: if another matrix is stored there.
      FileExistsError: if something else is there.
      BlockingIOError: if another process is writing it.
      OSError: if there is not enough space, or a tile cannot be written.
    """
    stored = _opened(folder, identity)
    if stored is None or stored.missing():
        _check_space(folder, stored, identity)
        folder.mkdir(parents=True, exist_ok=True)
        with _files.exclusive(folder / "lock"):
            # Another process may have been at work until now.
            stored = _opened(folder, identity) or _created(folder, identity)
            _check_kernel(stored, tile)
            _write_missing(stored, tile, progress)
    else:
        _check_kernel(stored, tile)
    return stored


def _opened(folder: pathlib.Path, identity: dict[str, Any]) -> Stored | None:
    """Return what is stored; `None` if nothing is. Refuse anything else than this matrix."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file. Pass the path of a folder, or of none.")
    if not is_ours(folder):
        # A process that was killed at the start leaves these.
        remains = {folder / "lock", folder / "zarr.json.__lock"}
        if folder.exists() and not remains.issuperset(folder.iterdir()):
            raise FileExistsError(
                f"{folder} holds something else than a stored matrix, and is left as it is. "
                "Pass a path where there is nothing."
            )
        return None
    stored = Stored(folder)
    there = stored.identity
    differs = [key for key in {**identity, **there} if there.get(key) != identity.get(key)]
    if differs:
        raise _refusal(stored, ", ".join(_difference(key, there, identity) for key in differs))
    return stored


def _difference(key: str, there: dict[str, Any], now: dict[str, Any]) -> str:
    if key in ("x1", "x2"):  # Digests tell a reader nothing.
        return key
    return f"{key} (stored {there.get(key)}, now {now.get(key)})"


def _refusal(stored: Stored, differs: str) -> ValueError:
    remedy = (
        "Open it with gram.load" if not stored.missing() else "Finish it with its own arguments"
    )
    return ValueError(
        f"{stored.path} holds another matrix, which differs in {differs}. {remedy}, pass another "
        "path, or delete it."
    )


def _check_kernel(stored: Stored, tile: Callable[[int, int], np.ndarray]) -> None:
    """Refuse a kernel whose first stored tile has other values than it has there.

    This identifies any kernel, whatever it is made of. Rounding may differ on another machine or
    with another version of JAX.
    """
    missing = set(stored.missing())
    done = next((pair for pair in stored.pairs() if pair not in missing), None)
    if done is None:
        return
    i, j = done
    rows, columns = stored.slices(i, j)
    there, now = (values.astype(float) for values in (stored[rows, columns], tile(i, j)))
    tolerance = min(100 * float(jnp.finfo(stored.dtype).eps), 0.02)
    off = np.abs(there - now)
    if off.max() > tolerance * np.abs(there).max():
        a, b = np.unravel_index(off.argmax(), off.shape)
        entry = f"entry ({rows.start + a}, {columns.start + b})"
        raise _refusal(
            stored, f"the kernel ({entry} is {there[a, b]:.9g} there, {now[a, b]:.9g} now)"
        )


def _created(folder: pathlib.Path, identity: dict[str, Any]) -> Stored:
    """Return an array without chunks."""
    import tensorstore

    grid = {"name": "regular", "configuration": {"chunk_shape": identity["tile_size"]}}
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(folder)},
        "metadata": {
            "shape": identity["shape"],
            "data_type": identity["dtype"],
            # Other readers find this where nothing has been computed yet.
            "fill_value": "NaN",
            "chunk_grid": grid,
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ],
            "attributes": {ATTRIBUTE: identity},
        },
    }
    with explained(folder, "Pass another path"):
        tensorstore.open(spec, create=True).result()
    return Stored(folder)


def _write_missing(stored: Stored, tile: Callable[[int, int], np.ndarray], progress: bool) -> None:
    """Compute each missing tile while the one before it is written."""
    todo, total = stored.missing(), len(stored.pairs())
    options = {"desc": f"Tiles of {stored.path.name}", "unit": "tile", "disable": not progress}
    writes = []
    try:
        with tqdm(total=total, initial=total - len(todo), **options) as bar:
            for i, j in todo:
                block = tile(i, j)
                _wait(stored, writes)
                writes = _write(stored, i, j, block)
                bar.update()
    except BaseException as error:
        _wait(stored, writes)
        error.add_note(
            f"{total - len(stored.missing())} of {total} tiles are finished in {stored.path}. "
            "Run the same call again to compute the others."
        )
        raise
    _wait(stored, writes)


def _write(stored: Stored, i: int, j: int, block: np.ndarray) -> list[Any]:
    """Begin to write a tile and its mirror image."""
    writes = []
    for chunk, values in zip(stored.chunks(i, j), (block, block.T), strict=False):
        # tensorstore reads a chunk at the edge before it writes it, and fails if it is damaged.
        stored.chunk_file(*chunk).unlink(missing_ok=True)
        writes.append(stored.array[stored.slices(*chunk)].write(values))
        writes[-1].copy.result()  # From here on the values may change.
    return writes


def _wait(stored: Stored, writes: list[Any]) -> None:
    """Return when all of it is on the disk."""
    remedy = "No half-written tile counts as finished: free some space, or remove what else is in "
    remedy += "the way, and run the same call again"
    for write in writes:
        with explained(stored.path, remedy):
            write.result()


def _check_space(folder: pathlib.Path, stored: Stored | None, identity: dict[str, Any]) -> None:
    rows, columns = identity["tile_size"]
    # Files are padded to whole tiles, and to 4096 bytes.
    chunk = -(-(rows * columns * jnp.dtype(identity["dtype"]).itemsize + 4) // 4096) * 4096
    if stored is None:
        count = -(-identity["shape"][0] // rows) * -(-identity["shape"][1] // columns)
    else:
        count = sum(len(stored.chunks(*tile)) for tile in stored.missing())
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    needed, free = count * chunk + _MARGIN, shutil.disk_usage(there).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"the tiles to be computed need {memory.size(needed)} on the disk, and {there} has "
            f"{memory.size(free)} free. Free some, pass a path on a larger disk, or a smaller "
            "dtype",
        )


def _fields(kernel: Kernel) -> str | None:
    """Return the fields of a kernel that is a dataclass, the same in another process."""
    if not hasattr(kernel, "__dataclass_fields__"):
        return None
    return re.sub(r" at 0x[0-9a-f]+", "", repr(kernel))
