import math

import numpy as np
import pytest

from nt_residual import schedules, theory


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


def test_at_the_antipode_the_kink_of_the_limit_halves_the_exponent():
    found = theory.convergence(schedules.PowerLaw(1.0), [100, 400, 1600], theta=math.pi)
    assert found.slope == pytest.approx(-0.5, abs=0.02)
    np.testing.assert_allclose(found.error, 0.15 * np.sqrt(found.effective_time), rtol=0.05)


def test_one_block_has_the_kernel_of_the_learnable_limit():
    found = theory.convergence(schedules.PowerLaw(1.0), [1, 2], theta=[0.7, 1.9])
    assert found.error[0] < 1e-14
    assert found.error[1] > 1e-3
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
        ([10, math.inf], TypeError, r"must be an integer, got inf\. Pass .* finite"),
        (10, ValueError, r"shape \(n,\)"),
    ],
)
def test_depths_that_are_not_ascending_integers_are_refused(depths, error, message):
    with pytest.raises(error, match=message):
        theory.convergence(schedules.PowerLaw(1.0), depths)


def test_angles_that_are_none_are_refused():
    schedule = schedules.PowerLaw(1.0)
    for theta, message in [
        ([], "at least one angle"),
        ([math.nan], "must be finite"),
        ([4.0], r"in \[0, π\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            theory.convergence(schedule, [1, 2], theta=theta)
