"""Whether finite networks approach a kernel as they get wider."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import scipy.stats

# How far from −1/2 the interval of the slope may be: the law is that of large widths.
_SLOPE_TOLERANCE = 0.1
# Of right kernels so many are called wrong, for the luck of the draws.
_SIGNIFICANCE = 0.01


@dataclasses.dataclass(frozen=True)
class WidthSweep:
    """The empirical kernels of networks of several widths, and the kernel that they tend to.

    Distances are Frobenius norms, relative to that of the kernel.

    Attributes:
      widths: shape (W,).
      kernel: that of infinitely wide networks, float64, shape (n, n).
      draws: for each width the empirical kernels of its networks, float64, shape (seeds, n, n).
    """

    widths: np.ndarray
    kernel: np.ndarray
    draws: tuple[np.ndarray, ...]

    @property
    def error(self) -> np.ndarray:
        """For each width the distance of one network's kernel, geometric mean over seeds."""
        return np.exp([np.mean(logs) for logs in self._logs])

    @property
    def error_bar(self) -> np.ndarray:
        """The standard error of `error`, shape (W,), from the spread at all widths together."""
        return self.error * self._spread / np.sqrt(self._seeds)

    @property
    def bias(self) -> np.ndarray:
        """For each width the distance of the mean over seeds."""
        return np.array([self._size(np.mean(draws, 0) - self.kernel) for draws in self.draws])

    @property
    def sampling(self) -> np.ndarray:
        """What `bias` would be by sampling alone, root mean square, shape (W,)."""
        spreads = [np.std(d, 0, ddof=1) / math.sqrt(len(d)) for d in self.draws]
        return np.array([self._size(spread) for spread in spreads])

    @property
    def slope(self) -> float:
        """The slope of the logarithm of `error` against that of the width; −1/2 in theory."""
        return float(self._line[1])

    @property
    def slope_error(self) -> float:
        """The standard error of `slope`, see `slope_interval` for what it says."""
        leverage = _fit(np.log(self.widths), self._seeds)
        return float(np.sqrt(np.sum((leverage[1] * self.error_bar / self.error) ** 2)))

    @property
    def slope_interval(self) -> tuple[float, float]:
        """The 95% confidence interval of `slope`.

        The distances d of single networks have a heavy tail: a few networks would decide their
        mean square and its spread. log d has none. Its law is that of one width, shifted, at all
        of them, so that the interval is Student's of a line through log d of all networks.
        """
        freedom = np.sum(self._seeds - 1)
        margin = float(scipy.stats.t.ppf(0.975, freedom)) * self.slope_error
        return self.slope - margin, self.slope + margin

    @property
    def limit(self) -> np.ndarray:
        """The kernel at infinite width, extrapolated from the draws, shape (n, n).

        Their mean differs from it by a multiple of 1/width to first order, which is fitted,
        with weights for a variance in proportion to 1/width.
        """
        means = [np.mean(draws, 0) for draws in self.draws]
        return np.tensordot(self._extrapolation, means, axes=1)

    @property
    def limit_error(self) -> float:
        """The distance of `limit`."""
        return self._size(self.limit - self.kernel)

    @property
    def limit_sampling(self) -> float:
        """What `limit_error` would be by sampling alone, root mean square."""
        return float(np.sqrt(np.sum((self._extrapolation * self.sampling) ** 2)))

    @property
    def p_value(self) -> float:
        """How often a `limit_error` as large as this is due to the draws, if the kernel is right.

        The squared distance is compared with its expectation under sampling by an F test, of
        which the degrees of freedom are Satterthwaite's.
        """
        residuals, parts = [], []
        for draws, factor in zip(self.draws, self._extrapolation, strict=True):
            n = len(draws)
            centered = (draws - np.mean(draws, 0)).reshape(n, -1) / self._size_of_kernel
            residuals.append(factor * centered / math.sqrt(n * (n - 1)))
            parts.append(np.sum(residuals[-1] ** 2))
        residuals, parts = np.concatenate(residuals), np.array(parts)
        total = np.sum(parts)
        # The eigenvalues of the covariance are those of this smaller matrix.
        of_distance = total**2 / np.sum((residuals @ residuals.T) ** 2)
        of_variance = total**2 / np.sum(parts**2 / (self._seeds - 1))
        ratio = self.limit_error**2 / total
        return float(scipy.stats.f.sf(ratio, of_distance, of_variance))

    @property
    def agrees(self) -> bool:
        """Whether the networks tend to the kernel.

        That is, −1/2 is in `slope_interval` or within 0.1 of it, and `limit` differs from the
        kernel by no more than the draws explain: `p_value` ≥ 0.01.
        """
        low, high = self.slope_interval
        near = low - _SLOPE_TOLERANCE <= -0.5 <= high + _SLOPE_TOLERANCE
        return near and self.p_value >= _SIGNIFICANCE

    def __repr__(self) -> str:
        low, high = self.slope_interval
        return (
            f"WidthSweep(agrees={self.agrees}, slope={self.slope:.2f} (95%: {low:.2f} to "
            f"{high:.2f}), limit_error={self.limit_error:.2g} (p = {self.p_value:.2g}), "
            f"widths={self.widths.tolist()}, {np.sum(self._seeds)} networks)"
        )

    def plot(self, ax: Any = None, *, label: str | None = None) -> Any:
        """Draws errors against widths, with bars of two standard errors and the fitted line.

        The label has the 95% confidence interval of the slope.

        Args:
          ax: a matplotlib `Axes` to draw into; `None` for a new figure, with a line of slope −1/2.
          label: of the errors in the legend, before their slope.

        Returns:
          The `Axes`.

        Raises:
          ImportError: if matplotlib is missing.
        """
        from nt_residual.theory.plots import new_figure

        new = ax is None
        ax = new_figure(5, 4).subplots() if new else ax
        text = f"slope {self.slope:.2f} ± {self.slope_interval[1] - self.slope:.2f}"
        bars = ax.errorbar(
            self.widths,
            self.error,
            2 * self.error_bar,
            ls="",
            marker="o",
            ms=5,
            mfc="none",
            capsize=2,
            label=f"{label}: {text}" if label else text,
        )
        fitted = np.exp(self._line[0]) * self.widths**self.slope
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
    def _seeds(self) -> np.ndarray:
        return np.array([len(draws) for draws in self.draws])

    @functools.cached_property
    def _size_of_kernel(self) -> float:
        return float(np.linalg.norm(self.kernel))

    @functools.cached_property
    def _logs(self) -> list[np.ndarray]:
        """For each width the logarithms of the distances of its draws."""
        differences = [(d - self.kernel).reshape(len(d), -1) for d in self.draws]
        return [np.log(np.linalg.norm(d / self._size_of_kernel, axis=-1)) for d in differences]

    @property
    def _spread(self) -> float:
        """The standard deviation of `_logs`, within widths."""
        squares = sum(np.sum((logs - np.mean(logs)) ** 2) for logs in self._logs)
        return math.sqrt(squares / np.sum(self._seeds - 1))

    @functools.cached_property
    def _line(self) -> np.ndarray:
        leverage = _fit(np.log(self.widths), self._seeds)
        return leverage @ np.log(self.error)

    @functools.cached_property
    def _extrapolation(self) -> np.ndarray:
        """The weights of the mean of each width in `limit`."""
        return _fit(1 / self.widths, self._seeds * self.widths)[0]

    def _size(self, difference: np.ndarray) -> float:
        return float(np.linalg.norm(difference / self._size_of_kernel))


def _fit(at: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The matrix that takes values to intercept and slope of a weighted fit, shape (2, W)."""
    columns = np.stack([np.ones(len(at)), at], -1)
    weighted = columns.T * weights
    return np.linalg.solve(weighted @ columns, weighted)
