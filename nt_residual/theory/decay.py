"""The power law by which eigenvalues on the sphere decay."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Decay:
    """A power law fitted to the upper half of the degrees of a spectrum.

    Attributes:
      exponent: p in λ_k ~ (k + d/2 − 1)^(−p), which is k^(−p) for large k.
      uncertainty: of p; the larger of the standard error of the fit and four times the
        change when only the upper quarter of the degrees is fitted, which is how far a
        correction of relative size 1/k² still has to go.
      sorted_exponent: β = p/(d−1), by which eigenvalues decay when each is counted as
        often as it occurs: λ_i ~ C i^(−β).
      sorted_prefactor: C.
      degrees: those that were fitted, ascending.
    """

    exponent: float
    uncertainty: float
    sorted_exponent: float
    sorted_prefactor: float
    degrees: np.ndarray


def fit(
    dim: int, degree: np.ndarray, eigenvalue: np.ndarray, log_multiplicity: np.ndarray
) -> Decay:
    """Fits a power law to eigenvalues, all of them positive.

    The centre d/2 − 1 of the degrees is that of the exact spectrum of a cusp, a ratio of
    gamma functions; with it the law is off by terms of order d³/k² only. Where k is not well
    beyond d^(3/2) there is no power law yet, and the exponent fitted exceeds the final one.

    Args:
      dim: d.
      degree: the degrees that have an eigenvalue, ascending, shape (n,).
      eigenvalue: shape (n,).
      log_multiplicity: shape (n,).

    Returns:
      The law of the degrees in the upper half.

    Raises:
      ValueError: if there are fewer than six of these.

    Example:
      >>> k = np.arange(1, 21)
      >>> found = fit(3, k, (k + 0.5) ** -3.0, np.log(2 * k + 1))
      >>> round(found.exponent, 6)
      3.0
    """
    upper = degree >= degree[-1] / 2 if degree.size else np.zeros(0, bool)
    if upper.sum() < 6:
        raise ValueError(
            f"a decay exponent needs at least 6 eigenvalues above their error in the upper half of "
            f"the degrees, got {int(upper.sum())}. Pass a larger max_degree to spectrum."
        )
    x, y = np.log(degree + dim / 2 - 1), np.log(eigenvalue)
    slope, error = _line(x[upper], y[upper])
    quarter = degree >= 0.75 * degree[-1]
    change = 4 * abs(_line(x[quarter], y[quarter])[0] - slope) if quarter.sum() >= 3 else 0.0
    beta = -slope / (dim - 1)
    # log of the number of eigenvalues down to the middle of each degree.
    log_count = np.logaddexp.accumulate(log_multiplicity)
    log_count = log_count + np.log1p(-np.exp(log_multiplicity - log_count) / 2)
    log_prefactor = float(np.mean(y[upper] + beta * log_count[upper]))
    return Decay(
        exponent=-slope,
        uncertainty=max(error, change),
        sorted_exponent=beta,
        sorted_prefactor=math.exp(log_prefactor),
        degrees=degree[upper],
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    residual = y - slope * x
    return slope, math.sqrt(float(residual @ residual / max(1, len(x) - 2) / (x @ x)))
