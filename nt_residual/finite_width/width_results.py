"""Statistics of the empirical kernels of networks of several widths."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import scipy.stats

from nt_residual.theory import plots

# What `agrees` allows: the slope is −1/2 for large widths only.
_SLOPE_TOLERANCE, _STANDARD_ERRORS = 0.1, 3


@dataclasses.dataclass(frozen=True)
class WidthSweep:
    """The empirical kernels of networks of several widths, next to a kernel of infinite width.

    All errors are Frobenius norms relative to that of the kernel: |A − K| / |K|.

    Attributes:
      widths: shape (W,).
      kernel: K, the kernel of infinite width, float64, shape (n, n).
      draws: the empirical kernels of the networks of each width, float64, shape (n_seeds, n, n).
    """

    widths: np.ndarray
    kernel: np.ndarray
    draws: tuple[np.ndarray, ...]

    @property
    def error(self) -> np.ndarray:
        """The error of one network of each width, geometric mean over seeds, shape (W,)."""
        return np.exp([np.mean(logs) for logs in self._log_errors])

    @property
    def error_bar(self) -> np.ndarray:
        """The standard error of `error`, shape (W,), with one variance of log errors for all."""
        return self.error * self._spread / np.sqrt(self._counts)

    @property
    def slope(self) -> float:
        """The slope of log `error` against log width, fitted to all networks; −1/2 in theory."""
        return float(self._line_weights[1] @ np.log(self.error))

    @property
    def slope_error(self) -> float:
        """The standard error of `slope`, from log errors, which have no long tail."""
        return float(self._spread * np.sqrt(np.sum(self._line_weights[1] ** 2 / self._counts)))

    @property
    def slope_interval(self) -> tuple[float, float]:
        """The 95% confidence interval of `slope`, from Student's distribution."""
        freedom = np.sum(self._counts - 1)
        margin = float(scipy.stats.t.ppf(0.975, freedom)) * self.slope_error
        return self.slope - margin, self.slope + margin

    @property
    def limit(self) -> np.ndarray:
        """The kernel extrapolated to infinite width, shape (n, n).

        For each entry, the mean over networks of width m is a + b/m to first order. A weighted
        fit, with variances in proportion to 1/m, gives a, which is Σ_m w_m mean_m.
        """
        means = [np.mean(draws, axis=0) for draws in self.draws]
        return np.tensordot(self._limit_weights, means, axes=1)

    @property
    def bias(self) -> float:
        """The error of `limit`, |limit − K| / |K|."""
        return float(np.linalg.norm(self.limit - self.kernel) / self._size)

    @property
    def bias_error(self) -> float:
        """The standard error of `bias`, its root mean square if K is the right kernel.

        It is √(Σ_m w_m² |s_m|²) / |K|, with s_m the standard errors of the entries of mean_m.
        """
        squares = [np.sum(np.var(draws, axis=0, ddof=1)) / len(draws) for draws in self.draws]
        return float(np.sqrt(np.sum(self._limit_weights**2 * squares)) / self._size)

    @property
    def agrees(self) -> bool:
        """True if `bias` is at most 3 `bias_error`, and `slope_interval` within 0.1 of −1/2."""
        low, high = self.slope_interval
        near = low - _SLOPE_TOLERANCE <= -0.5 <= high + _SLOPE_TOLERANCE
        return near and self.bias <= _STANDARD_ERRORS * self.bias_error

    def __repr__(self) -> str:
        low, high = self.slope_interval
        return (
            f"WidthSweep(agrees={self.agrees}, slope={self.slope:.2f} (95%: {low:.2f} to "
            f"{high:.2f}), bias={self.bias:.2g} ({self.bias / self.bias_error:.1f} standard "
            f"errors), widths={self.widths.tolist()}, {np.sum(self._counts)} networks)"
        )

    def plot(self, ax: Any = None, *, label: str | None = None) -> Any:
        """Draw errors against widths, with bars of two standard errors and the fitted line.

        Args:
          ax: a matplotlib `Axes` to draw into; `None` for a new figure, with a line of slope −1/2.
          label: of the errors in the legend, before their slope and its 95% interval.

        Returns:
          The `Axes`.

        Raises:
          ImportError: if matplotlib is missing.
        """
        new = ax is None
        ax = plots.new_figure(5, 4).subplots() if new else ax
        text = f"slope {self.slope:.2f} ± {self.slope_interval[1] - self.slope:.2f}"
        style = {"ls": "", "marker": "o", "ms": 5, "mfc": "none", "capsize": 2}
        style["label"] = f"{label}: {text}" if label else text
        bars = ax.errorbar(self.widths, self.error, 2 * self.error_bar, **style)
        intercept, slope = self._line_weights @ np.log(self.error)
        fitted = np.exp(intercept) * self.widths**slope
        ax.plot(self.widths, fitted, color=bars.lines[0].get_color(), lw=1.2)
        if new:
            reference = fitted[0] * (self.widths / self.widths[0]) ** -0.5
            ax.plot(self.widths, reference, "k--", lw=1, label="slope −1/2")
        ax.set(xscale="log", yscale="log", xlabel="width m", ylabel="relative error of one network")
        ax.set_xticks(self.widths, [f"{width}" for width in self.widths])
        ax.minorticks_off()
        ax.grid(alpha=0.3, lw=0.6)
        ax.legend(fontsize="small", framealpha=0.8)
        return ax

    @property
    def _counts(self) -> np.ndarray:
        return np.array([len(draws) for draws in self.draws])

    @functools.cached_property
    def _size(self) -> float:
        return float(np.linalg.norm(self.kernel))

    @functools.cached_property
    def _log_errors(self) -> list[np.ndarray]:
        norms = [np.linalg.norm(draws - self.kernel, axis=(1, 2)) for draws in self.draws]
        return [np.log(values / self._size) for values in norms]

    @property
    def _spread(self) -> float:
        """The standard deviation of log errors within widths."""
        squares = sum(np.sum((logs - np.mean(logs)) ** 2) for logs in self._log_errors)
        return math.sqrt(squares / np.sum(self._counts - 1))

    @property
    def _line_weights(self) -> np.ndarray:
        return _line_fit(np.log(self.widths), self._counts)

    @property
    def _limit_weights(self) -> np.ndarray:
        """The w_m in `limit`."""
        return _line_fit(1 / self.widths, self._counts * self.widths)[0]


def _line_fit(at: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The matrix of weighted least squares, (Xᵀ W X)⁻¹ Xᵀ W: values to intercept and slope."""
    columns = np.stack([np.ones(len(at)), at], axis=-1)
    weighted = columns.T * weights
    return np.linalg.solve(weighted @ columns, weighted)
