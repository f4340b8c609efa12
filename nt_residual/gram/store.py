"""Computing a matrix tile by tile onto the disk, such that it can be resumed.

tensorstore writes a chunk whole or not at all: a tile is finished if its chunk is there.
"""

import errno
import math
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from nt_residual import _files, memory
from nt_residual.gram.stored import ATTRIBUTE, Stored, explained, is_ours, spec_of
from nt_residual.gram.tiles import Kernel, Tiles

# For directories and metadata, and at the end of each file.
_MARGIN, _BLOCK = 2**20, 2**12


def tile_size_of(folder: pathlib.Path) -> int | None:
    """Return the tile size of a matrix to resume, whatever memory there is now, or `None`."""
    return max(Stored(folder).tile_shape) if is_ours(folder) else None


def compute_stored(kernel: Kernel, tiles: Tiles, folder: pathlib.Path, *, progress: bool) -> Stored:
    """Return the matrix of these tiles in a folder."""
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

    `tile(i, j)` returns a tile, cut off where the matrix ends. `identity` holds what the matrix is
    computed from, as JSON: the shape, dtype, tile size and symmetry among it.
    """
    stored = _opened(folder, identity)
    if stored is not None and not stored.missing():
        _check_kernel(stored, tile)
        return stored
    _check_space(folder, identity)
    folder.mkdir(parents=True, exist_ok=True)
    with _files.exclusive(folder / "lock"):
        # Another process may have been at work until now.
        stored = _opened(folder, identity) or _created(folder, identity)
        _check_kernel(stored, tile)
        _write_missing(stored, tile, progress)
    return stored


def _opened(folder: pathlib.Path, identity: dict[str, Any]) -> Stored | None:
    """Return what is stored; `None` if nothing is. Refuse anything else than this matrix."""
    if not is_ours(folder):
        # A process that was killed at the start leaves these.
        remains = {folder / "lock", folder / "zarr.json.__lock"}
        there = {folder} if folder.is_file() else set(folder.glob("*"))
        if there - remains:
            raise FileExistsError(
                f"{folder} is or holds something else than a stored matrix, and is left as it is. "
                "Pass a path where there is nothing."
            )
        return None
    stored = Stored(folder)
    there, differs = stored.identity, []
    for key in {**identity, **there}:
        if there.get(key) != identity.get(key):
            # Digests tell a reader nothing.
            values = f" (stored {there.get(key)}, now {identity.get(key)})"
            differs.append(key + ("" if key in ("x1", "x2") else values))
    if differs:
        raise _refusal(stored, ", ".join(differs))
    return stored


def _refusal(stored: Stored, differs: str) -> ValueError:
    remedy = "Finish it with its own arguments" if stored.missing() else "Open it with gram.load"
    return ValueError(
        f"{stored.path} holds another matrix, which differs in {differs}. {remedy}, pass another "
        "path, or delete it."
    )


def _check_kernel(stored: Stored, tile: Callable[[int, int], np.ndarray]) -> None:
    """Refuse a kernel that does not reproduce the first stored tile, up to rounding.

    This identifies any kernel, whatever it is made of.
    """
    missing = set(stored.missing())
    done = next((pair for pair in stored.pairs() if pair not in missing), None)
    if done is None:
        return
    there, now = (values.astype(float) for values in (stored[stored.slices(*done)], tile(*done)))
    tolerance = min(100 * float(jnp.finfo(stored.dtype).eps), 0.02)
    off = np.abs(there - now)
    if off.max() > tolerance * np.abs(there).max():
        k = off.argmax()
        differs = f"the kernel (an entry is {there.flat[k]:.9g} there, {now.flat[k]:.9g} now)"
        raise _refusal(stored, differs)


def _created(folder: pathlib.Path, identity: dict[str, Any]) -> Stored:
    """Return an array without chunks."""
    import tensorstore

    grid = {"name": "regular", "configuration": {"chunk_shape": identity["tile_size"]}}
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    metadata = {
        "shape": identity["shape"],
        "data_type": identity["dtype"],
        "fill_value": "NaN",  # Other readers find this where nothing has been computed yet.
        "chunk_grid": grid,
        "codecs": [little, {"name": "crc32c"}],
        "attributes": {ATTRIBUTE: identity},
    }
    with explained(folder, "Pass another path"):
        tensorstore.open(spec_of(folder) | {"metadata": metadata}, create=True).result()
    return Stored(folder)


def _write_missing(stored: Stored, tile: Callable[[int, int], np.ndarray], progress: bool) -> None:
    todo, total = stored.missing(), len(stored.pairs())
    options = {"desc": f"Tiles of {stored.path.name}", "unit": "tile", "disable": not progress}
    for i, j in tqdm(todo, total=total, initial=total - len(todo), **options):
        _write(stored, i, j, tile(i, j))


def _write(stored: Stored, i: int, j: int, block: np.ndarray) -> None:
    """Write a tile and its mirror image, and return when both are on the disk."""
    writes = []
    for chunk, values in zip(stored.chunks(i, j), (block, block.T), strict=False):
        # tensorstore reads a chunk at the edge before it writes it, and fails if it is damaged.
        stored.chunk_file(*chunk).unlink(missing_ok=True)
        writes.append(stored.array[stored.slices(*chunk)].write(values))
    for write in writes:
        with explained(stored.path, "Free some space, and run the same call again"):
            write.result()


def _check_space(folder: pathlib.Path, identity: dict[str, Any]) -> None:
    sides = identity["tile_size"]
    chunks = math.prod(-(-n // side) for n, side in zip(identity["shape"], sides, strict=True))
    missing = chunks - len(list(folder.glob("c/*/[0-9]*")))
    # Files are padded to whole tiles, and to blocks of the disk.
    file = math.prod(sides) * jnp.dtype(identity["dtype"]).itemsize + _BLOCK
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    needed, free = missing * file + _MARGIN, shutil.disk_usage(there).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"the tiles to be computed need {memory.size(needed)} on the disk, and {there} has "
            f"{memory.size(free)} free. Free some, or pass a path on a larger disk",
        )


def _fields(kernel: Kernel) -> str | None:
    """Return the fields of a kernel that is a dataclass, the same in another process."""
    if not hasattr(kernel, "__dataclass_fields__"):
        return None
    return re.sub(r" at 0x[0-9a-f]+", "", repr(kernel))
