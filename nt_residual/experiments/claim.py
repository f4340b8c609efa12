"""What the claims of the paper have in common.

Each is a module of this package, with

* `TITLE`, a few words, and `STATEMENT`, what the paper claims in a sentence or two;
* `QUICK` and `FULL`, options of `run`: for some minutes on two cores at most, and for an
  accelerator or for hours;
* `run(**options)`, which returns a frozen dataclass with `rows`, a list of dataclasses;
* `findings(result)`, a list of `Finding`;
* `plot(result)`, a `matplotlib.figure.Figure`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from nt_residual.theory.rates import fit_power_law


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that theory says, beside what was measured.

    Attributes:
      claim: what the paper predicts, or what follows from it, with numbers where there are some.
      measured: what came out, with numbers.
      agrees: whether the one meets the other, by the criterion that `claim` states; `None` if
        the measurement cannot tell the prediction from others, see `VERDICTS`.
    """

    claim: str
    measured: str
    agrees: bool | None


VERDICTS = {True: "agrees", False: "does not agree", None: "not decided at these depths"}


@dataclasses.dataclass(frozen=True)
class Slope:
    """The power of a law y ~ x^value.

    Attributes:
      value: the power.
      margin: half the width of its confidence interval of 95%, NaN where it is unknown.
    """

    value: float
    margin: float

    def __str__(self) -> str:
        margin = "" if math.isnan(self.margin) else f" ± {self.margin:.2f}"
        return f"{self.value:.2f}{margin}"


def slope(x: ArrayLike, y: ArrayLike) -> Slope:
    """Fits a power law to points, by least squares of log y against log x.

    Args:
      x: shape (n,), n ≥ 2, positive, two values at least.
      y: shape (n,), positive.

    Returns:
      The power, with the interval that points scattered independently about a line give, if
      there are three or more.

    Example:
      >>> print(slope([1, 10, 100], [1.0, 0.1, 0.01]))
      -1.00 ± 0.00
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    value, error = fit_power_law(x, y)
    return Slope(value, float(scipy.stats.t.ppf(0.975, len(x) - 2)) * error)


def upper_half(rows: Sequence[Any]) -> Sequence[Any]:
    """The later half of some rows, where asymptotic laws are to hold; of three at most, all.

    Example:
      >>> upper_half([10, 30, 100, 300, 1000])
      [100, 300, 1000]
    """
    return rows[len(rows) // 2 :] if len(rows) > 3 else rows
