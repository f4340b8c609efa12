"""Figures of what this package computes, with matplotlib.

Each function takes one thing to draw, a list of them, or a mapping of labels to them. It draws
into `ax`, or into a new figure of 5 × 4 inches, and returns the axes:
`plots.spectrum(found).figure.savefig("spectrum.png")`. It raises an `ImportError` where
matplotlib is not installed, and a `TypeError` for anything else.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nt_residual.theory.learning import LearningCurve
from nt_residual.theory.rates import Convergence
from nt_residual.theory.spectra import Spectrum, ZonalKernel

# Okabe & Ito's colors, which the color-blind can tell apart, without the pale yellow.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def profile(kernels: Mapping[str, Any] | Sequence[Any] | Any, *, ax: Any = None) -> Any:
    """Draw kernels r(θ) against the angle, each with a method `at_angle`, one line per kernel.

    Example:
      >>> from nt_residual import rntk, schedules
      >>> schedule = schedules.PowerLaw(gamma=0.5)
      >>> ax = profile([rntk.ResidualKernel(depth, schedule) for depth in (1, math.inf)])
      >>> [line.get_label() for line in ax.lines]
      ['L = 1, T = 0.693', 'L = ∞, T = 1']
    """
    labeled = _labeled(kernels, "kernels", ZonalKernel, "rntk.ResidualKernel(…)", _kernel_label)
    ax = _axes(ax)
    # Denser toward both ends, where kernels bend.
    theta = math.pi * (1 - np.cos(np.linspace(0, math.pi, 401))) / 2
    for i, (label, kernel) in enumerate(labeled):
        ax.plot(theta, kernel.at_angle(theta), label=label, color=_color(i))
    ax.set_xticks(np.linspace(0, math.pi, 5), ["0", "π/4", "π/2", "3π/4", "π"])
    ax.set(xlabel="angle θ between inputs", ylabel="kernel r(θ)")
    return _finish(ax)


def convergence(
    convergences: Mapping[str, Convergence] | Sequence[Convergence] | Convergence, *, ax: Any = None
) -> Any:
    """Draw the distance to the limit against the depth, and the predicted law as a dashed line.

    Example:
      >>> from nt_residual import schedules, theory
      >>> found = theory.convergence(schedules.PowerLaw(gamma=1.0), [10, 20, 40])
      >>> len(convergence({"γ = 1": found}).lines)
      2
    """
    source = "theory.convergence(…)"
    labeled = _labeled(convergences, "convergences", Convergence, source, lambda _: "")
    ax = _axes(ax)
    for i, (label, found) in enumerate(labeled):
        text = f"{label}: slope {found.slope:.2f}" if label else f"slope {found.slope:.2f}"
        if found.predicted_slope is not None:
            text += f" (predicted {found.predicted_slope:.2f})"
        ax.plot(found.depths, found.error, ls="", label=text, **_points(i))
        if found.predicted is not None:
            ax.plot(found.depths, found.predicted, ls="--", lw=1.2, color=_color(i))
    ax.set(xscale="log", yscale="log", xlabel="depth L", ylabel="distance to the limit, max over θ")
    return _finish(ax)


def spectrum(
    spectra: Mapping[str, Spectrum] | Sequence[Spectrum] | Spectrum, *, ax: Any = None
) -> Any:
    """Draw eigenvalues against their degree, with the exponent of their decay in the legend.

    It leaves out degree 0, eigenvalues that are not positive, and those within their error.

    Example:
      >>> from nt_residual import rntk, schedules, theory
      >>> limit = rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma=1.0))
      >>> ax = spectrum({"γ = 1": theory.spectrum(limit, dim=3, max_degree=6)})
      >>> ax.lines[0].get_xdata()
      array([1, 2, 4, 6])
    """
    source = "theory.spectrum(kernel, dim, max_degree)"
    labeled = _labeled(spectra, "spectra", Spectrum, source, lambda found: f"d = {found.dim}")
    ax = _axes(ax)
    for i, (label, found) in enumerate(labeled):
        drawn = found.resolved & (found.eigenvalue > 0) & (found.degree > 0)
        text = label + _decay_label(found)
        ax.plot(found.degree[drawn], found.eigenvalue[drawn], ls="", label=text, **_points(i))
    ax.set(xscale="log", yscale="log", xlabel="degree k", ylabel="eigenvalue $λ_k$")
    return _finish(ax)


def learning_curve(
    curves: Mapping[str, LearningCurve] | Sequence[LearningCurve] | LearningCurve,
    *,
    ax: Any = None,
) -> Any:
    """Draw the excess error predicted for each number of training points.

    Add measured errors with `ax.errorbar`.

    Example:
      >>> from nt_residual import rntk, schedules, theory
      >>> limit = rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma=1.0))
      >>> found = theory.spectrum(limit, dim=3, max_degree=40)
      >>> curve = theory.learning_curve(found, {1: 1.0}, [10, 20, 40], noise=0.1, ridge=0.1)
      >>> learning_curve(curve).lines[0].get_label()
      'σ = 0.1, δ = 0.1'
    """

    def describe(curve: LearningCurve) -> str:
        return f"σ = {curve.noise:g}, δ = {curve.ridge:g}"

    labeled = _labeled(curves, "curves", LearningCurve, "theory.learning_curve(…)", describe)
    ax = _axes(ax)
    for i, (label, curve) in enumerate(labeled):
        n, y = np.atleast_1d(curve.n), np.atleast_1d(curve.excess)
        order = np.argsort(n)
        ax.plot(n[order], y[order], label=label, **_points(i))
    ax.set(xscale="log", yscale="log", xlabel="training points n", ylabel="predicted squared error")
    return _finish(ax)


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of a size in inches, not one of pyplot's, which would keep it.

    Raises:
      ImportError: if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError(
            "figures need matplotlib, which is not installed: pip install matplotlib "
            "(the extra 'plots')"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def _labeled(
    items: Any, name: str, kind: type, source: str, describe: Callable[[Any], str]
) -> list[tuple[str, Any]]:
    """Pairs of a label and a thing to draw, at least one, each of the given type."""
    labels = None
    if isinstance(items, Mapping):
        labels, items = list(map(str, items)), list(items.values())
    elif not isinstance(items, list | tuple):
        items = [items]
    if not items:
        raise ValueError(f"{name} must hold at least one thing to draw, got none. Pass one.")
    for item in items:
        if not isinstance(item, kind):
            raise TypeError(
                f"{name} must hold {kind.__name__}, got {type(item).__name__}. Pass {source}."
            )
    return list(zip(labels or map(describe, items), items, strict=True))


def _kernel_label(kernel: Any) -> str:
    if not hasattr(kernel, "effective_time"):
        return type(kernel).__name__
    depth = "∞" if kernel.depth == math.inf else f"{kernel.depth}"
    time = "∞" if kernel.effective_time == math.inf else f"{kernel.effective_time:.3g}"
    return f"L = {depth}, T = {time}"


def _decay_label(found: Spectrum) -> str:
    try:
        law = found.decay()
    except ValueError:
        return ""  # Too few degrees, or even and odd ones that follow no common law.
    return f": $k^{{-{law.exponent:.2f}}}$ (±{law.uncertainty:.2g})"


def _points(i: int) -> dict[str, Any]:
    """Markers, hollow and smaller each time, so that none hides another."""
    marker, size = _MARKERS[i % len(_MARKERS)], max(3.0, 8.0 - 1.5 * i)
    return {"color": _color(i), "marker": marker, "ms": size, "mfc": "none"}


def _color(i: int) -> str:
    return _COLORS[i % len(_COLORS)]


def _axes(ax: Any) -> Any:
    return new_figure(5, 4).subplots() if ax is None else ax


def _finish(ax: Any) -> Any:
    ax.grid(alpha=0.3, lw=0.6)
    ax.legend(fontsize="small", framealpha=0.8)
    return ax
