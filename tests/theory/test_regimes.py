import math

import numpy as np
import pytest

from nt_residual import rntk, schedules, theory


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


@pytest.mark.parametrize("gamma", [0.5, 0.75, 1.0])
def test_the_kernel_approaches_the_limit_of_its_regime(gamma):
    # Short of θ = π, where a kink halves the exponent for γ > 1/2.
    schedule, theta = schedules.PowerLaw(gamma), np.linspace(0, 2.5, 7)
    limit = theory.regime(schedule).limit.at_angle(theta)
    errors = [
        np.max(np.abs(rntk.ResidualKernel(depth, schedule).at_angle(theta) - limit))
        for depth in (100, 1600)
    ]
    rate = {0.5: 1.0, 0.75: 0.5, 1.0: 1.0}[gamma]  # 1/L, and else L^(1 − 2γ).
    assert errors[0] / errors[1] == pytest.approx(16**rate, rel=0.25)


def test_the_degenerate_limit_is_a_quarter():
    limit = theory.regime(schedules.Constant(0.1)).limit
    np.testing.assert_array_equal(limit.at_angle([0.0, 1e-9, 1.0, np.pi]), [1, 0.25, 0.25, 0.25])


def test_the_learnable_limit_has_no_odd_harmonics_and_the_critical_one_has():
    # λ_k on the sphere in three dimensions is half the integral of r(u) P_k(u).
    u, weights = np.polynomial.legendre.leggauss(400)
    third = (5 * u**3 - 3 * u) / 2 * weights / 2
    learnable, critical = (
        theory.regime(schedules.PowerLaw(gamma)).limit.at_angle(np.arccos(u)) @ third
        for gamma in (1.0, 0.5)
    )
    assert abs(learnable) < 1e-7
    assert critical > 1e-3


def test_a_schedule_without_a_known_limit_is_refused():
    with pytest.raises(TypeError, match="infinite-depth limit is known"):
        theory.regime(lambda depth: np.ones(depth))
