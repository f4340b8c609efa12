"""Where the files of a stored matrix are.

The directory is a zarr v3 array (`zarr.json`, and `c/i/j` for tile (i, j)) with three files of
ours beside it, which other readers pass over.
"""

import pathlib


def manifest(directory: pathlib.Path) -> pathlib.Path:
    """What the matrix is; it makes a directory one of ours."""
    return directory / "manifest.json"


def journal(directory: pathlib.Path) -> pathlib.Path:
    """Which tiles are finished."""
    return directory / "finished.txt"


def lock(directory: pathlib.Path) -> pathlib.Path:
    """Locked by the process that writes."""
    return directory / "lock"


def chunk(directory: pathlib.Path, i: int, j: int) -> pathlib.Path:
    """The entries of tile (i, j)."""
    return directory / "c" / str(i) / str(j)
