"""The power law by which eigenvalues on the sphere decay."""

import dataclasses
import math

import numpy as np

_LEAST = 5  # Eigenvalues that are fitted.


@dataclasses.dataclass(frozen=True)
class Decay:
    """A power law fitted to the upper half of the degrees of a spectrum.

    Attributes:
      exponent: p in λ_k ~ (k + d/2 − 1)^(−p), which is k^(−p) for large k.
      uncertainty: of p. The largest of the standard error of the fit; four times the change if
        only the upper quarter of the degrees is fitted, as for a correction of relative size
        1/k²; and half the difference of even and odd degrees.
      sorted_exponent: β = p/(d−1) in λ_i ~ C i^(−β), for eigenvalues that are each counted as
        often as they occur.
      sorted_prefactor: C.
      degrees: those that were fitted, ascending.
    """

    exponent: float
    uncertainty: float
    sorted_exponent: float
    sorted_prefactor: float
    degrees: np.ndarray = dataclasses.field(repr=False)


def fit(
    dim: int, degree: np.ndarray, eigenvalue: np.ndarray, log_multiplicity: np.ndarray
) -> Decay:
    """Fit a power law to the upper half of some positive eigenvalues.

    Even and odd degrees share the exponent and have prefactors of their own, since a kink of the
    kernel at θ = π adds to the ones what it takes from the others. The center d/2 − 1 of the
    degrees is that of the exact spectrum of a cusp, with which the law is off by terms of order
    d³/k² only. Where k is not well beyond d^(3/2) the exponent fitted exceeds the final one.

    Arrays have shape (n,), degrees ascend.

    Raises:
      ValueError: if there are fewer than five eigenvalues in the upper half of the degrees, or
        the exponents of even and odd degrees differ by more than the uncertainties of both.
    """
    upper = degree >= degree[-1] / 2 if degree.size else np.zeros(0, bool)
    if upper.sum() < _LEAST:
        raise ValueError(
            f"a decay exponent needs at least {_LEAST} eigenvalues above their error in the upper "
            f"half of the degrees, got {int(upper.sum())}. Pass a larger max_degree to spectrum."
        )
    x, y = np.log(degree + dim / 2 - 1), np.log(eigenvalue)
    slope, error = _slope_and_uncertainty(x, y, degree, upper)
    parities = [upper & (degree % 2 == parity) for parity in (0, 1)]
    if all(part.sum() >= _LEAST - 1 for part in parities):
        even, odd = (_slope_and_uncertainty(x, y, degree, part) for part in parities)
        if abs(even[0] - odd[0]) > even[1] + odd[1]:
            raise ValueError(
                f"even and odd degrees must follow one law, got k^({even[0]:.3g} ± {even[1]:.1g}) "
                f"and k^({odd[0]:.3g} ± {odd[1]:.1g}). Pass parity='even' or 'odd', or a larger "
                "max_degree to spectrum."
            )
        error = max(error, abs(even[0] - odd[0]) / 2)
    beta = -slope / (dim - 1)
    # log of the number of eigenvalues down to the middle of each degree.
    log_count = np.logaddexp.accumulate(log_multiplicity)
    log_count = log_count + np.log1p(-np.exp(log_multiplicity - log_count) / 2)
    log_prefactor = float(np.mean(y[upper] + beta * log_count[upper]))
    return Decay(-slope, error, beta, math.exp(log_prefactor), degree[upper])


def _slope_and_uncertainty(
    x: np.ndarray, y: np.ndarray, degree: np.ndarray, used: np.ndarray
) -> tuple[float, float]:
    slope, error = _slope(x[used], y[used], degree[used] % 2)
    quarter = used & (degree >= 0.75 * degree[-1])
    if quarter.sum() < 3:
        return slope, error
    change = _slope(x[quarter], y[quarter], degree[quarter] % 2)[0] - slope
    return slope, max(error, 4 * abs(change))


def _slope(x: np.ndarray, y: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """The common slope of lines through each group, and its standard error."""
    member = group[:, None] == np.unique(group)
    x, y = (v - member @ (v @ member / member.sum(0)) for v in (x, y))
    slope = float(x @ y / (x @ x))
    residual = y - slope * x
    free = max(1, len(x) - 1 - member.shape[1])
    return slope, math.sqrt(float(residual @ residual / free / (x @ x)))
