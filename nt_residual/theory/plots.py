"""Figures of what this package computes, with matplotlib.

Each function draws into `ax`, or into a new figure of 5 × 4 inches, and returns the axes:
`plots.spectrum(found).figure.savefig("spectrum.png")`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from nt_residual import _checks
from nt_residual.theory.depth import Convergence
from nt_residual.theory.learning import LearningCurve
from nt_residual.theory.spectra import Spectrum

# Okabe & Ito's colors, which the color-blind can tell apart, without the pale yellow.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1)), (0, (5, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def profile(kernels: Mapping[str, Any] | Sequence[Any] | Any, *, ax: Any = None) -> Any:
    """Draws kernels r(θ) against the angle.

    Args:
      kernels: a kernel with a method `at_angle`, several, or a mapping of labels to these.
      ax: a matplotlib `Axes` to draw into; `None` for a new figure.

    Returns:
      The `Axes`, one line per kernel.

    Raises:
      ImportError: if matplotlib is missing.
      TypeError: if something else is passed.

    Example:
      >>> from nt_residual import rntk, schedules
      >>> schedule = schedules.PowerLaw(gamma=0.5)
      >>> ax = profile([rntk.ResidualKernel(depth, schedule) for depth in (1, math.inf)])
      >>> [line.get_label() for line in ax.lines]
      ['L = 1, T = 0.693', 'L = ∞, T = 1']
    """
    labeled = _labeled(kernels, "kernels", _kernel_label)
    for _, kernel in labeled:
        if not hasattr(kernel, "at_angle"):
            raise TypeError(
                f"kernels must have a method at_angle, got {type(kernel).__name__}. Pass "
                "rntk.ResidualKernel(…)."
            )
    ax = _axes(ax)
    # Denser toward both ends, where kernels bend.
    theta = math.pi * (1 - np.cos(np.linspace(0, math.pi, 401))) / 2
    for i, (label, kernel) in enumerate(labeled):
        ax.plot(theta, kernel.at_angle(theta), label=label, **_line_style(i))
    ax.set_xticks(np.linspace(0, math.pi, 5), ["0", "π/4", "π/2", "3π/4", "π"])
    ax.set(xlabel="angle θ between inputs", ylabel="kernel r(θ)")
    return _finish(ax)


def convergence(
    convergences: Mapping[str, Convergence] | Sequence[Convergence] | Convergence, *, ax: Any = None
) -> Any:
    """Draws the distance to the limit against the depth, with the predicted slope.

    Args:
      convergences: what `theory.convergence` returned, several, or a mapping of labels.
      ax: a matplotlib `Axes` to draw into; `None` for a new figure.

    Returns:
      The `Axes`: for each the errors as markers, with slopes in the legend, and the
      prediction as a dashed line where there is one.

    Raises:
      ImportError: if matplotlib is missing.
      TypeError: if something else is passed.

    Example:
      >>> from nt_residual import schedules, theory
      >>> found = theory.convergence(schedules.PowerLaw(gamma=1.0), [10, 20, 40])
      >>> len(convergence({"γ = 1": found}).lines)
      2
    """
    labeled = _labeled(convergences, "convergences", lambda _: "")
    _check_type(labeled, Convergence, "theory.convergence(…)")
    ax = _axes(ax)
    for i, (label, found) in enumerate(labeled):
        style = _point_style(i)
        ax.plot(found.depths, found.error, ls="", label=_slope_label(label, found), **style)
        if found.predicted is not None:
            ax.plot(found.depths, found.predicted, ls="--", lw=1.2, color=style["color"])
    ax.set(xscale="log", yscale="log", xlabel="depth L", ylabel="distance to the limit, max over θ")
    # Room below for the legend, as tall as its lines: curves that fall leave none inside.
    low, high = ax.get_ylim()
    share = min(0.5, 0.04 + 0.065 * len(labeled))
    ax.set_ylim(low * (low / high) ** (share / (1 - share)), high)
    return _finish(ax, loc="lower left")


def spectrum(
    spectra: Mapping[str, Spectrum] | Sequence[Spectrum] | Spectrum, *, ax: Any = None
) -> Any:
    """Draws eigenvalues against their degree, on logarithmic axes.

    Degree 0, eigenvalues that are not positive and those within their error, such as
    the odd ones of a kernel without them, are left out.

    Args:
      spectra: what `theory.spectrum` returned, several, or a mapping of labels.
      ax: a matplotlib `Axes` to draw into; `None` for a new figure.

    Returns:
      The `Axes`, one line of markers per spectrum; the legend has the exponent of the
      decay where there are enough eigenvalues to fit it.

    Raises:
      ImportError: if matplotlib is missing.
      TypeError: if something else is passed.

    Example:
      >>> from nt_residual import rntk, schedules, theory
      >>> limit = rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma=1.0))
      >>> ax = spectrum({"γ = 1": theory.spectrum(limit, dim=3, max_degree=6)})
      >>> ax.lines[0].get_xdata()
      array([1, 2, 4, 6])
    """
    labeled = _labeled(spectra, "spectra", lambda found: f"d = {found.dim}")
    _check_type(labeled, Spectrum, "theory.spectrum(kernel, dim, max_degree)")
    ax = _axes(ax)
    for i, (label, found) in enumerate(labeled):
        drawn = found.resolved & (found.eigenvalue > 0) & (found.degree > 0)
        text = label + _decay_label(found)
        ax.plot(found.degree[drawn], found.eigenvalue[drawn], ls="", label=text, **_point_style(i))
    ax.set(xscale="log", yscale="log", xlabel="degree k", ylabel="eigenvalue $λ_k$")
    return _finish(ax)


def learning_curve(
    curves: Mapping[str, LearningCurve] | Sequence[LearningCurve] | LearningCurve,
    *,
    error: Literal["excess", "total"] = "excess",
    ax: Any = None,
) -> Any:
    """Draws predicted test errors against the number of training points.

    Args:
      curves: what `theory.learning_curve` returned, several, or a mapping of labels.
      error: 'excess' for the error against the noiseless target, 'total' for that against
        noisy ones.
      ax: a matplotlib `Axes` to draw into; `None` for a new figure. Measured errors can be
        added to it with `ax.errorbar`.

    Returns:
      The `Axes`, one line per curve.

    Raises:
      ImportError: if matplotlib is missing.
      TypeError: if something else is passed.
      ValueError: if `error` is unknown.

    Example:
      >>> from nt_residual import rntk, schedules, theory
      >>> limit = rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma=1.0))
      >>> found = theory.spectrum(limit, dim=3, max_degree=40)
      >>> curve = theory.learning_curve(found, {1: 1.0}, [10, 20, 40], noise=0.1, ridge=0.1)
      >>> learning_curve(curve).lines[0].get_label()
      'σ = 0.1, δ = 0.1'
    """
    _checks.choice(error, "error", ("excess", "total"))
    labeled = _labeled(curves, "curves", lambda c: f"σ = {c.noise:g}, δ = {c.ridge:g}")
    _check_type(labeled, LearningCurve, "theory.learning_curve(…)")
    ax = _axes(ax)
    for i, (label, curve) in enumerate(labeled):
        n, y = np.atleast_1d(curve.n), np.atleast_1d(getattr(curve, error))
        order = np.argsort(n)
        marker = {"marker": _MARKERS[i % len(_MARKERS)], "ms": 4} if n.size < 20 else {}
        ax.plot(n[order], y[order], label=label, **_line_style(i), **marker)
    target = "the target" if error == "excess" else "noisy targets"
    ax.set(xscale="log", yscale="log", xlabel="training points n")
    ax.set(ylabel=f"predicted squared error to {target}")
    return _finish(ax)


def new_figure(width: float, height: float) -> Any:
    """An empty figure of matplotlib, of a size in inches.

    It is not one of pyplot's, which would keep it until it is closed.

    Raises:
      ImportError: if matplotlib is missing.

    Example:
      >>> new_figure(5, 4).axes
      []
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError(
            "figures need matplotlib, which is not installed: pip install matplotlib "
            "(the extra 'plots')"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def _labeled(items: Any, name: str, describe: Any) -> list[tuple[str, Any]]:
    """Pairs of a label and a thing to draw, at least one."""
    if isinstance(items, Mapping):
        pairs = [(str(label), item) for label, item in items.items()]
    elif isinstance(items, list | tuple):
        pairs = [(_described(item, describe), item) for item in items]
    else:
        pairs = [(_described(items, describe), items)]
    if not pairs:
        raise ValueError(f"{name} must hold at least one thing to draw, got none. Pass one.")
    return pairs


def _described(item: Any, describe: Any) -> str:
    try:
        return describe(item)
    except AttributeError:
        # Of another type, which the caller refuses or which has no more to say.
        return type(item).__name__


def _kernel_label(kernel: Any) -> str:
    depth = "∞" if kernel.depth == math.inf else f"{kernel.depth}"
    time = "∞" if kernel.effective_time == math.inf else f"{kernel.effective_time:.3g}"
    return f"L = {depth}, T = {time}"


def _slope_label(label: str, found: Convergence) -> str:
    text = f"{label}: slope {found.slope:.2f}" if label else f"slope {found.slope:.2f}"
    if found.predicted_slope is None:
        return text
    return f"{text} (predicted {found.predicted_slope:.2f})"


def _decay_label(found: Spectrum) -> str:
    try:
        law = found.decay()
    except ValueError:
        return ""  # Too few degrees, or even and odd ones that follow no common law.
    return f": $k^{{-{law.exponent:.2f}}}$ (±{law.uncertainty:.2g})"


def _check_type(labeled: list[tuple[str, Any]], kind: type, source: str) -> None:
    for _, item in labeled:
        if not isinstance(item, kind):
            raise TypeError(
                f"things to draw must be {kind.__name__}, got {type(item).__name__}. Pass {source}."
            )


def _line_style(i: int) -> dict[str, Any]:
    return {"color": _COLOURS[i % len(_COLOURS)], "ls": _DASHES[i % len(_DASHES)], "lw": 1.8}


def _point_style(i: int) -> dict[str, Any]:
    # Hollow and smaller each time, so that none hides another.
    size = max(3.0, 8.0 - 1.5 * i)
    shape = {"marker": _MARKERS[i % len(_MARKERS)], "ms": size, "mfc": "none"}
    return {"color": _COLOURS[i % len(_COLOURS)], **shape}


def _axes(ax: Any) -> Any:
    return new_figure(5, 4).subplots() if ax is None else ax


def _finish(ax: Any, loc: str = "best") -> Any:
    ax.grid(alpha=0.3, lw=0.6)
    ax.legend(fontsize="small", framealpha=0.8, loc=loc)
    return ax
