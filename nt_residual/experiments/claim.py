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
from collections.abc import Sequence

import numpy as np
import scipy.stats


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that the paper says, beside what was measured.

    Attributes:
      claim: what the paper predicts, with numbers where it has some.
      measured: what came out, with numbers.
      agrees: whether the one meets the other, by the criterion that `claim` states.
    """

    claim: str
    measured: str
    agrees: bool


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
        return f"{self.value:.2f} ± {self.margin:.2f}"


def slope(x: Sequence[float], y: Sequence[float]) -> Slope:
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
    log_x, log_y = np.log(x), np.log(y)
    (value, offset), degrees = np.polyfit(log_x, log_y, 1), len(log_x) - 2
    # scipy.stats.linregress has no error for values that are all equal.
    residual = np.square(log_y - value * log_x - offset).sum()
    error = np.sqrt(residual / max(degrees, 1) / np.square(log_x - log_x.mean()).sum())
    return Slope(float(value), float(scipy.stats.t.ppf(0.975, degrees) * error))
