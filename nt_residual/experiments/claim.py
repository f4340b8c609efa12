"""The form of a claim, and what claims share: rows, findings, fitted powers and means.

A claim is a module of this package with

* `TITLE`, a few words, and `STATEMENT`, what the paper claims, in a sentence or two;
* `QUICK` and `FULL`, options of `run`: for minutes on two cores, and for an accelerator or a day;
* `run(**options)`, which returns a `Result`, or an object with `rows` like those of one, and raises
  `TypeError` or `ValueError` if an argument is out of range;
* `findings(result)`, a list of `Finding`;
* `plot(result)`, a `matplotlib.figure.Figure`. It raises `ImportError` without matplotlib.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from nt_residual.theory.rates import fit_power_law


@dataclasses.dataclass(frozen=True)
class Finding:
    """A prediction beside a measurement.

    Attributes:
      claim: what the paper predicts, or what follows from it, and the criterion.
      measured: the measurement, with numbers.
      agrees: whether it meets the criterion; `None` if it cannot tell the prediction from others.
    """

    claim: str
    measured: str
    agrees: bool | None


VERDICTS = {True: "agrees", False: "does not agree", None: "not decided at these depths"}


def table(rows: Sequence[Mapping[str, Any]]) -> np.recarray:
    """Return a record array with a column for each key of the rows.

    Example:
      >>> found = table([{"depth": 10, "error": 0.5}, {"depth": math.inf, "error": 0.25}])
      >>> found.error.sum(), found[0].depth
      (np.float64(0.75), 10)
    """
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    arrays = [
        # Depths stay integers beside infinity.
        np.array(column, object if len(set(map(type, column))) > 1 else None)
        for column in columns.values()
    ]
    dtype = [(name, array.dtype) for name, array in zip(columns, arrays, strict=True)]
    return np.rec.fromarrays(arrays, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class Result:
    """The numbers of a claim: a record array of the columns that its `run` describes."""

    rows: np.recarray

    def of(self, **values: Any) -> Any:
        """Return the rows with these values in the columns of these names."""
        return self.rows[np.all([self.rows[key] == value for key, value in values.items()], axis=0)]


@dataclasses.dataclass(frozen=True)
class Slope:
    """The power of a law y ~ x^value.

    Attributes:
      value: the power.
      margin: half the width of its 95% confidence interval, NaN where it is unknown.
    """

    value: float
    margin: float

    def __str__(self) -> str:
        margin = "" if math.isnan(self.margin) else f" ± {self.margin:.2f}"
        return f"{self.value:.2f}{margin}"


def slope(x: ArrayLike, y: ArrayLike) -> Slope:
    """Fit a power law to positive numbers, by least squares of log y against log x.

    Example:
      >>> print(slope([1, 10, 100], [1.0, 0.1, 0.01]))
      -1.00 ± 0.00
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    value, error = fit_power_law(x, y)
    return Slope(value, float(scipy.stats.t.ppf(0.975, len(x) - 2)) * error)


def upper_half(rows: Any) -> Any:
    """Return the later half of the rows, or all if there are at most three.

    Example:
      >>> upper_half([10, 30, 100, 300, 1000])
      [100, 300, 1000]
    """
    return rows[len(rows) // 2 :] if len(rows) > 3 else rows


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error, NaN where there are too few values.

    Example:
      >>> mean_and_error([1.0, 3.0])
      (2.0, 1.0)
    """
    n = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return float(np.mean(values)) if n else math.nan, error
