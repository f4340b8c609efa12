"""Kernel matrices of prepared rows, by one compiled program for all depths and numbers of rows."""

from collections.abc import Iterator

import jax
import numpy as np

from nt_residual.compat import enable_x64
from nt_residual.rntk import ResidualKernel, tiles
from nt_residual.rntk.kernel import device_profile

# The side of the tiles, and what their number of features is a multiple of.
_SIDE, _WIDTH = 256, 8

# Of the numbers that a kernel is evaluated with, and not of the kernel itself, for each of which
# `jax.jit` would compile once more.
_evaluate = jax.jit(tiles.evaluate)


def matrix(kernel: ResidualKernel, x: np.ndarray) -> np.ndarray:
    """Return the kernel matrix of rows, exactly symmetric, in their dtype."""
    out = np.empty((len(x), len(x)), x.dtype)
    for rows, columns, tile in _tiles(kernel, x, x, upper=True):
        tile = np.triu(tile) + np.triu(tile, 1).T if rows == columns else tile
        out[rows, columns], out[columns, rows] = tile, tile.T
    np.fill_diagonal(out, np.sum(np.square(x, dtype=np.float64), axis=1))
    return out


def between(kernel: ResidualKernel, x1: np.ndarray, x2: np.ndarray) -> np.ndarray:
    """Return the kernel between different rows, in their dtype."""
    out = np.empty((len(x1), len(x2)), x1.dtype)
    for rows, columns, tile in _tiles(kernel, x1, x2):
        out[rows, columns] = tile
    return out


def product(
    kernel: ResidualKernel, x1: np.ndarray, x2: np.ndarray, coefficients: np.ndarray
) -> np.ndarray:
    """Return k(x1, x2) @ coefficients, added up in float64."""
    out = np.zeros((len(x1), *coefficients.shape[1:]))
    for rows, columns, tile in _tiles(kernel, x1, x2):
        out[rows] += tile.astype(np.float64) @ coefficients[columns]
    return out


def _tiles(
    kernel: ResidualKernel, x1: np.ndarray, x2: np.ndarray, *, upper: bool = False
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield tiles of k(x1, x2), with rows and columns; if `upper`, none below the diagonal.

    Rows and features are padded, so that one program serves any number of inputs, and an entry
    does not depend on the other rows. The kernel takes longer where inputs are nearly parallel, so
    `x2` is padded with rows orthogonal to all inputs: along a feature that they do not have.
    """
    features = x1.shape[1]
    width = (features // _WIDTH + 1) * _WIDTH
    left = _padded(x1, width, np.pad(x1[0], (0, width - features)))
    right = _padded(x2, width, np.eye(1, width, features)[0])
    profile = device_profile(kernel, x1.dtype.name)
    for i in range(0, len(x1), _SIDE):
        for j in range(i if upper else 0, len(x2), _SIDE):
            with enable_x64(x1.dtype == np.float64):
                tile = np.asarray(_evaluate(profile, left[i : i + _SIDE], right[j : j + _SIDE]))
            rows, columns = slice(i, min(i + _SIDE, len(x1))), slice(j, min(j + _SIDE, len(x2)))
            yield rows, columns, tile[: rows.stop - i, : columns.stop - j]


def _padded(x: np.ndarray, width: int, row: np.ndarray) -> np.ndarray:
    """Return `x` with zeros to its right, and copies of `row` below, up to whole tiles."""
    out = np.zeros((-(-len(x) // _SIDE) * _SIDE, width), x.dtype)
    out[: len(x), : x.shape[1]] = x
    out[len(x) :] = row
    return out
