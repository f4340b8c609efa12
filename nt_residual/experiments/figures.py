"""Parts of the figures of experiments."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nt_residual import schedules, theory


def panels(columns: int, rows: int = 1, **options: Any) -> tuple[Any, list[Any]]:
    """Return a new figure of matplotlib, and its axes row by row. `options` are for `subplots`.

    Raises:
      ImportError: if matplotlib is missing.
    """
    figure = theory.plots.new_figure(1 + 4.2 * columns, 4 * rows)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def style(i: int) -> dict[str, Any]:
    """Return the color and marker of curve i. Later markers are smaller, to show those below."""
    shape = {"marker": "os^Dv"[i % 5], "ms": max(3.0, 8.0 - 1.5 * i), "mfc": "none"}
    return {"color": f"C{i}", **shape}


def finish(figure: Any) -> Any:
    """Return the figure with a grid, and a legend where curves have labels, in all axes."""
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize="small")
    return figure


def depth(value: float) -> str:
    """Return a depth as text.

    Example:
      >>> depth(math.inf)
      '∞'
    """
    return "∞" if value == math.inf else f"{value}"


def noise(fraction: float) -> str:
    """Return a fraction of wrong labels as text.

    Example:
      >>> noise(0.2)
      '20% wrong labels'
    """
    return f"{fraction:.0%} wrong labels" if fraction else "clean labels"


def by_depth(axes: Any, rows: Any) -> None:
    """Draw test accuracy against depth, a curve per γ; dotted is that at t = ∞."""
    depths = sorted(set(rows.depth))
    for i, gamma in enumerate(sorted(set(rows.gamma))):
        mine = rows[rows.gamma == gamma]
        places = [depths.index(depth) for depth in mine.depth]
        for column, ls in (("test_accuracy", "-"), ("test_accuracy_at_infinity", ":")):
            curve = {"ls": ls, "label": f"γ = {gamma:g}" if ls == "-" else None, **style(i)}
            axes.plot(places, 100 * mine[column], **curve)
    axes.set_xticks(range(len(depths)), map(depth, depths))
    axes.set(xlabel="depth L", ylim=(0, 102))


def decay(axes: Any, i: int, gamma: float, depths: Sequence[int], distances: Any) -> None:
    """Draw distances to a limit against depth; dashed is `theory.rate`, through the last point."""
    axes.plot(depths, distances, ls="", label=f"γ = {gamma:g}", **style(i))
    if (rate := theory.rate(schedules.PowerLaw(gamma))) is not None:
        law = rate(np.array(depths))
        axes.plot(depths, law * distances[-1] / law[-1], f"C{i}--", lw=1.2)
    axes.set(xscale="log", yscale="log", xlabel="depth L")
