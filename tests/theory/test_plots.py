import math
import sys

import numpy as np
import pytest

from nt_residual import rntk, schedules, theory

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

LIMIT = rntk.ResidualKernel(math.inf, schedules.PowerLaw(1.0))


def _legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def _check(ax):
    """Check that a figure is labeled and can be drawn."""
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    ax.figure.canvas.draw()


def test_profile_draws_the_kernel_of_each_depth():
    kernels = [rntk.ResidualKernel(depth, schedules.PowerLaw(0.5)) for depth in (1, 10, math.inf)]
    ax = theory.plots.profile(kernels)
    _check(ax)
    for kernel, line in zip(kernels, ax.lines, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), kernel.at_angle(line.get_xdata()))
    assert ax.lines[0].get_xdata()[[0, -1]] == pytest.approx([0, math.pi])
    assert _legend(ax) == ["L = 1, T = 0.693", "L = 10, T = 0.953", "L = ∞, T = 1"]


def test_convergence_draws_errors_and_their_prediction():
    found = theory.convergence(schedules.PowerLaw(1.0), [10, 20, 40])
    ax = theory.plots.convergence({"γ = 1": found})
    _check(ax)
    measured, predicted = ax.lines
    np.testing.assert_array_equal(measured.get_xydata(), np.c_[found.depths, found.error])
    np.testing.assert_array_equal(predicted.get_ydata(), found.predicted)
    assert _legend(ax) == [f"γ = 1: slope {found.slope:.2f} (predicted -1.00)"]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_spectrum_draws_the_eigenvalues_that_are_there():
    found = theory.spectrum(LIMIT, 3, 40)
    ax = theory.plots.spectrum([found, theory.spectrum(LIMIT, 4, 6)])
    _check(ax)
    degrees = np.array([1, *range(2, 41, 2)])
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), degrees)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), found.eigenvalue[degrees])
    assert _legend(ax)[0].startswith("d = 3: $k^{-3.0")
    assert _legend(ax)[1] == "d = 4"  # Too few for an exponent.


def test_learning_curve_draws_the_excess_error():
    curve = theory.learning_curve(theory.spectrum(LIMIT, 3, 40), {1: 1.0}, [10, 40, 20], 0.5, 0.1)
    ax = theory.plots.learning_curve(curve)
    _check(ax)
    # In ascending order of n.
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [10, 20, 40])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), curve.excess[[0, 2, 1]])


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(TypeError, match="kernels must hold ZonalKernel, got float"):
        theory.plots.profile(1.0)
    with pytest.raises(TypeError, match="must hold Convergence, got ResidualKernel"):
        theory.plots.convergence(LIMIT)
    with pytest.raises(TypeError, match="must hold Spectrum, got ResidualKernel"):
        theory.plots.spectrum({"a": LIMIT})
    with pytest.raises(ValueError, match="at least one thing"):
        theory.plots.spectrum([])


def test_figures_say_how_to_get_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="figures need matplotlib"):
        theory.plots.profile(LIMIT)
