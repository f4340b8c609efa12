"""Files of numbers and labels that users have: CSV and NPZ."""

import collections
import csv
import pathlib
from collections.abc import Sequence

import numpy as np

from nt_residual.cli.options import InputError


class Csv:
    """A CSV file: fields separated by commas, their names in the first row, all as text.

    Args:
      path: of the file, in UTF-8.

    Attributes:
      names: of the columns.

    Raises:
      InputError: if there is no such file, it is no text, or its rows differ in length.
    """

    def __init__(self, path: pathlib.Path):
        if not path.is_file():
            raise InputError(f"there is no file {path}.")
        self._path = path
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file)
                # With the number of the line each row ends at. Empty lines are no rows.
                rows = [(reader.line_num, row) for row in reader if row]
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path} must be a CSV file in UTF-8, got {error}") from error
        if len(rows) < 2:
            raise InputError(f"{path} must have a row of names and rows of data, got {len(rows)}")
        (_, names), *self._rows = rows
        self.names = [name.strip() for name in names]
        self._check()

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """Some columns, shape (n, len(names)), float64.

        Raises:
          InputError: if a field is not a finite number.
        """
        index = [self.names.index(name) for name in names]
        try:
            values = np.array([[row[i] for i in index] for _, row in self._rows], np.float64)
        except ValueError:
            values = np.full(0, np.nan)
        if not (values.size and np.isfinite(values).all()):
            self._refuse_first(names, index)
        return values

    def texts(self, name: str) -> np.ndarray:
        """A column of labels as it is written, shape (n,), str.

        Raises:
          InputError: if one is missing: empty, or NaN.
        """
        index = self.names.index(name)
        texts = [row[index].strip() for _, row in self._rows]
        for (line, _), text in zip(self._rows, texts, strict=True):
            if text.lower() in ("", "nan"):
                self._refuse(line, name, text, "hold labels")
        return np.array(texts)

    def check_has(self, names: Sequence[str], role: str) -> None:
        """Refuses a file that lacks one of some columns.

        Raises:
          InputError: naming those that are missing.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise InputError(
                f"{self._path} must have {role} {_listed(missing)}, got the columns "
                f"{_listed(self.names)}"
            )

    def _check(self) -> None:
        repeated = [name for name, n in collections.Counter(self.names).items() if n > 1]
        if repeated:
            raise InputError(
                f"{self._path} must name each column once in its first row, got {repeated[0]!r} "
                "more than once"
            )
        for line, row in self._rows:
            if len(row) != len(self.names):
                raise InputError(
                    f"{self._path}, line {line} must have {len(self.names)} fields, as the first "
                    f"has, got {len(row)}"
                )

    def _refuse_first(self, names: Sequence[str], index: Sequence[int]) -> None:
        for line, row in self._rows:
            for name, i in zip(names, index, strict=True):
                if not is_finite(row[i]):
                    self._refuse(line, name, row[i], "hold finite numbers")

    def _refuse(self, line: int, name: str, text: str, expected: str) -> None:
        raise InputError(
            f"{self._path}, line {line}: column {name!r} must {expected}, got {text!r}: correct "
            "it, or leave out the row or the column"
        )


def as_rows(array: np.ndarray, name: str) -> np.ndarray:
    """Inputs of shape (n, …) as rows of finite floats, shape (n, d).

    Raises:
      InputError: if they are none.

    Example:
      >>> as_rows(np.ones((5, 2, 2)), "x").shape
      (5, 4)
    """
    if array.ndim < 2 or array.size == 0 or array.dtype.kind not in "biuf":
        raise InputError(
            f"{name} must hold numbers of shape (n, …) with features, got shape {array.shape} of "
            f"{array.dtype}"
        )
    rows = array.reshape(len(array), -1)
    rows = rows if rows.dtype.kind == "f" else rows.astype(np.float64)
    if not np.isfinite(rows).all():
        row = int(np.argmin(np.isfinite(rows).all(axis=1)))
        raise InputError(f"{name} must hold finite numbers, got NaN or infinity in row {row}")
    return rows


def as_labels(array: np.ndarray, name: str, count: int) -> np.ndarray:
    """Labels or targets, shape (n,), numbers without NaN or texts.

    Raises:
      InputError: if they are none, or not as many as inputs.
    """
    if array.shape != (count,) or array.dtype.kind not in "biufU":
        raise InputError(
            f"{name} must hold a number or a text for each input, shape ({count},), got shape "
            f"{array.shape} of {array.dtype}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array)))
        raise InputError(f"{name} must hold finite numbers, got {array[row]} in row {row}")
    return array


def is_finite(text: str) -> bool:
    """Whether a text is a finite number.

    Example:
      >>> is_finite("1e-3"), is_finite("inf"), is_finite("")
      (True, False, False)
    """
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown if len(names) <= most else f"{shown}, … ({len(names)} in all)"
