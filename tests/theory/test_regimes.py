import math
import re

import numpy as np
import pytest

from nt_residual import rntk, schedules, theory

ANGLES = np.linspace(np.pi / 8, 3 * np.pi / 4, 16)


def _distance(kernel, limit, theta):
    return np.max(np.abs(kernel.at_angle(theta) - limit.at_angle(theta)))


@pytest.mark.parametrize(
    ("gamma", "name", "time"),
    [
        (0.0, "degenerate", math.inf),
        (0.49, "degenerate", math.inf),
        (0.5, "critical", 4.0),
        (0.51, "learnable", 0.0),
        (1.0, "learnable", 0.0),
    ],
)
def test_the_exponent_decides_the_regime(gamma, name, time):
    regime = theory.regime(schedules.PowerLaw(gamma, c=2.0))
    assert (regime.name, regime.effective_time) == (name, time)
    assert regime.advice


def test_training_all_layers_turns_the_learnable_limit_into_the_linear_kernel():
    regime = theory.regime(schedules.PowerLaw(1.0), trained="all")
    assert regime.name == "linear"
    theta = np.linspace(0, np.pi, 9)
    np.testing.assert_allclose(regime.limit.at_angle(theta), np.cos(theta), atol=1e-15)
    assert "linear" in regime.advice
    # Where T stays finite both kernels have a limit of their own.
    assert theory.regime(schedules.PowerLaw(0.5), trained="all").name == "critical"
    assert theory.regime(schedules.PowerLaw(0.4), trained="all").name == "degenerate"


def test_the_advice_warns_of_parity_and_of_limits_that_no_network_is_near():
    advice = theory.regime(schedules.PowerLaw(1.0)).advice
    assert "no odd harmonics beyond degree 1" in advice
    assert "slowly" not in advice
    assert "slowly" in theory.regime(schedules.PowerLaw(0.55)).advice


@pytest.mark.parametrize(
    ("gamma", "c", "trained"),
    [
        pytest.param(0.75, 1.0, "blocks", marks=pytest.mark.full),
        (0.75, 2.0, "blocks"),
        (1.0, 1.0, "blocks"),
        (1.0, 1.0, "all"),
    ],
)
def test_advice_gives_the_depth_at_which_the_limit_is_near(gamma, c, trained):
    schedule = schedules.PowerLaw(gamma, c)
    regime = theory.regime(schedule, trained=trained)
    depth = int(re.search(r"from a depth of about (\d+) on", regime.advice)[1])
    kernels = [
        rntk.ResidualKernel(max(1, int(factor * depth)), schedule, trained=trained)
        for factor in (0.7, 1.1)
    ]
    shallow, deep = (_distance(kernel, regime.limit, ANGLES) for kernel in kernels)
    assert deep < 0.0102
    assert shallow > 0.0098


@pytest.mark.parametrize("trained", ["blocks", "all"])
def test_advice_gives_the_effective_time_at_which_the_degenerate_limit_is_near(trained):
    regime = theory.regime(schedules.PowerLaw(0.1), trained=trained)
    time = int(re.search(r"if T > (\d+)\.", regime.advice)[1])
    alphas = np.full(20_000, np.sqrt(np.expm1(time / 20_000)))
    kernel = rntk.ResidualKernel(20_000, schedules.Explicit(alphas), trained=trained)
    assert _distance(kernel, regime.limit, ANGLES) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(
    ("trained", "c", "depth"),
    [("blocks", 1, 10), ("blocks", 3, 160), ("all", 1, 20), ("all", 3, 160)],
)
def test_the_depths_in_the_critical_advice_are_those_at_which_the_limit_is_near(trained, c, depth):
    schedule = schedules.PowerLaw(0.5, c)
    regime = theory.regime(schedule, trained=trained)
    assert f"from about {depth}" in regime.advice
    kernel = rntk.ResidualKernel(depth, schedule, trained=trained)
    assert _distance(kernel, regime.limit, ANGLES) == pytest.approx(0.01, rel=0.1)


def test_a_schedule_that_does_not_know_its_limit_takes_the_effective_time_of_the_user():
    def growing(depth):
        return np.sqrt(2 * np.arange(1, depth + 1)) / depth

    regime = theory.regime(growing, effective_time=1.0)
    assert (regime.name, regime.effective_time, regime.rate) == ("critical", 1.0, None)
    theta = np.linspace(0, np.pi, 5)
    known = theory.regime(schedules.PowerLaw(0.5)).limit.at_angle(theta)
    np.testing.assert_array_equal(regime.limit.at_angle(theta), known)
    assert theory.regime(growing, effective_time=0).name == "learnable"
    degenerate = theory.regime(growing, effective_time=math.inf)
    assert degenerate.name == "degenerate"
    assert "if T > 560" in degenerate.advice


def test_a_schedule_of_unknown_limit_and_an_effective_time_that_contradicts_it_are_refused():
    with pytest.raises(ValueError, match=r"whose limit is known.*effective_time="):
        theory.regime(lambda depth: np.ones(depth))
    with pytest.raises(ValueError, match=r"that of the schedule, 1\.0, got 2\.0"):
        theory.regime(schedules.PowerLaw(0.5), effective_time=2.0)
    assert theory.regime(schedules.PowerLaw(0.5), effective_time=1.0).name == "critical"


@pytest.mark.parametrize(
    ("trained", "odd_harmonics", "gamma"),
    [("blocks", False, 1.0), ("blocks", True, 0.5), ("all", False, 0.5), ("all", True, 0.5)],
)
def test_the_suitable_schedule_leaves_a_kernel_that_learns_what_matters(
    trained, odd_harmonics, gamma
):
    schedule = theory.suitable_schedule(trained=trained, odd_harmonics=odd_harmonics)
    assert schedule == schedules.PowerLaw(gamma)
    limit = rntk.ResidualKernel(math.inf, schedule, trained=trained)
    learned = theory.spectrum(limit, 3, 4).mass > 1e-3
    assert learned[[0, 2, 4]].all()
    assert learned[3] or not odd_harmonics
