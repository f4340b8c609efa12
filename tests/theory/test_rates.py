import math

import numpy as np
import pytest

from nt_residual import rntk, schedules, theory


@pytest.mark.parametrize(
    ("gamma", "kind", "trained", "exponent"),
    [
        (0.5, "ntk", "blocks", -1.0),
        (0.75, "ntk", "blocks", -0.5),
        (1.0, "ntk", "blocks", -1.0),
        (1.0, "ntk", "all", -1.0),
        (1.0, "nngp", "blocks", -1.0),
        (0.5, "nngp", "blocks", -1.0),
    ],
)
def test_the_slope_is_the_predicted_one(gamma, kind, trained, exponent):
    schedule = schedules.PowerLaw(gamma)
    found = theory.convergence(schedule, [100, 200, 400, 800], kind=kind, trained=trained)
    assert found.rate.exponent == exponent
    assert found.predicted_slope == pytest.approx(exponent)
    assert found.slope == pytest.approx(exponent, abs=0.02)
    assert found.slope_error < 0.01


@pytest.mark.parametrize(
    ("schedule", "depths"),
    [
        (schedules.Constant(1.0), [500, 1000, 2000]),
        pytest.param(schedules.Constant(0.3), [1000, 2000, 4000], marks=pytest.mark.full),
        (schedules.PowerLaw(0.15), [1000, 2000, 4000]),
    ],
)
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_the_degenerate_limit_is_approached_at_the_predicted_rate(schedule, depths, kind):
    found = theory.convergence(schedule, depths, kind=kind)
    tolerance = 0.03 if kind == "ntk" else 0.08
    assert found.slope == pytest.approx(found.predicted_slope, abs=tolerance)


def test_constant_alpha_has_a_logarithm_in_its_rate_and_falling_alpha_has_none():
    # T error tends to a constant where α falls, and grows with log L where it does not.
    falling = theory.convergence(schedules.PowerLaw(0.1), [1000, 4000])
    constant = theory.convergence(schedules.Constant(1.0), [1000, 4000])
    growth = [np.diff(found.error * found.effective_time)[0] for found in (falling, constant)]
    assert growth[0] < 0
    assert growth[1] > 0.3
    assert falling.rate.log_weight == 0 < constant.rate.log_weight


def test_at_the_antipode_the_kink_of_the_limit_halves_the_exponent():
    found = theory.convergence(schedules.PowerLaw(1.0), [100, 400, 1600], theta=math.pi)
    assert found.slope == pytest.approx(-0.5, abs=0.02)
    np.testing.assert_allclose(found.error, 0.15 * np.sqrt(found.effective_time), rtol=0.05)


def test_the_distance_is_that_of_kernels_in_closed_form():
    def kappa0(u):
        return 1 - np.arccos(u) / np.pi

    def kappa1(u):
        return (np.sqrt(1 - u**2) + u * (np.pi - np.arccos(u))) / np.pi

    theta = np.array([0.7, 1.9])
    found = theory.convergence(schedules.PowerLaw(1.0), [1, 2], theta=theta)
    u, share = np.cos(theta), 0.25 / 1.25
    limit = (kappa1(u) + u * kappa0(u)) / 2
    rho = u + share * (kappa1(u) - u)
    two = (limit * (1 - share * np.arccos(rho) / np.pi) + (kappa1(rho) + rho * kappa0(rho)) / 2) / 2
    # One block has the kernel of the limit.
    np.testing.assert_allclose(found.error, [0, np.max(np.abs(two - limit))], atol=1e-14)
    np.testing.assert_allclose(found.effective_time, [math.log(2), 2 * math.log(1.25)])


def test_two_depths_determine_a_slope_and_not_its_error():
    found = theory.convergence(schedules.PowerLaw(0.5, 2.0), np.array([3, 7]))
    assert found.slope == pytest.approx(np.diff(np.log(found.error))[0] / np.log(7 / 3))
    assert math.isnan(found.slope_error)
    assert found.predicted[-1] == found.error[-1]


def test_depths_that_have_reached_the_limit_to_rounding_are_left_out_of_the_fit():
    found = theory.convergence(schedules.PowerLaw(4.0), [3, 6, 2000])
    assert found.error[-1] < 1e-10
    assert found.slope == pytest.approx(-7, abs=0.5)
    assert found.predicted[1] == pytest.approx(found.error[1])


def test_without_a_known_rate_only_the_slope_is_measured():
    def falling(depth):
        return np.sqrt(2 * np.arange(1, depth + 1)) / depth

    found = theory.convergence(falling, [50, 100, 200, 400], effective_time=1.0)
    assert (found.rate, found.predicted, found.predicted_slope) == (None, None, None)
    assert found.slope == pytest.approx(-1, abs=0.05)


@pytest.mark.parametrize(
    ("depths", "error", "message"),
    [
        ([10], ValueError, "two or more, ascending"),
        ([100, 10], ValueError, "two or more, ascending"),
        ([10, 10], ValueError, "two or more, ascending"),
        ([0, 10], ValueError, "at least 1, got 0"),
        ([10, math.inf], TypeError, r"must be an integer, got inf\. Pass .* finite"),
        ([10, 20.5], TypeError, "must be an integer, got 20.5"),
        (10, ValueError, r"shape \(n,\)"),
    ],
)
def test_depths_that_are_not_ascending_integers_are_refused(depths, error, message):
    with pytest.raises(error, match=message):
        theory.convergence(schedules.PowerLaw(1.0), depths)


def test_angles_that_are_none_are_refused():
    schedule = schedules.PowerLaw(1.0)
    for theta, message in [([], "n ≥ 1"), ([math.nan], "must be finite"), ([4.0], r"in \[0, π\]")]:
        with pytest.raises(ValueError, match=message):
            theory.convergence(schedule, [1, 2], theta=theta)


def test_a_kernel_in_place_of_a_schedule_is_refused():
    with pytest.raises(ValueError, match="whose limit is known"):
        theory.convergence(rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5)), [1, 2])
