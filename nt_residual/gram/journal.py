"""Which tiles of a stored matrix are finished."""

import dataclasses
import pathlib
import zlib
from collections.abc import Iterable

from nt_residual import _files

Tile = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Journal:
    """A text file with one line for each finished tile: its row, its column, a checksum.

    Lines are appended once the entries are on the disk. One that is torn, as the last may be
    when a process is killed, or damaged is no line: that tile is not finished.

    Attributes:
      path: of the file, which need not exist.
    """

    path: pathlib.Path

    def tiles(self) -> set[Tile]:
        """The tiles that are finished."""
        return {tile for tile in map(_parse, self._lines()) if tile is not None}

    def add(self, i: int, j: int) -> None:
        """Records a tile, durably.

        Raises:
          OSError: if the line cannot be written.
        """
        _files.append(self.path, _line(i, j))

    def write(self, tiles: Iterable[Tile]) -> None:
        """Replaces all lines, in one step.

        Raises:
          OSError: if the file cannot be written.
        """
        _files.replace(self.path, "".join(_line(i, j) for i, j in sorted(tiles)))

    def tidy(self) -> None:
        """Drops what is no line, after which lines can be appended.

        Raises:
          OSError: if the file cannot be written.
        """
        if any(_parse(line) is None for line in self._lines()) or not self.path.exists():
            self.write(self.tiles())

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        return self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)


def _line(i: int, j: int) -> str:
    return f"{i} {j} {zlib.crc32(f'{i} {j}'.encode()):08x}\n"


def _parse(line: str) -> Tile | None:
    try:
        i, j = map(int, line.split()[:2])
    except ValueError:
        return None
    return (i, j) if line == _line(i, j) else None
