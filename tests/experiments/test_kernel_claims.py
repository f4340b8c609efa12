"""The claims about kernels on the sphere, at small sizes; that their findings can fail."""

import math

import numpy as np
import pytest
from scipy.special import eval_legendre

from nt_residual import rntk, schedules
from nt_residual.experiments import (
    claim,
    constant_alpha,
    convergence,
    landmarks,
    minimax,
    parity,
    slow_decay,
    sphere_regression,
)

SIZES = (32, 128)


@pytest.fixture(scope="module")
def results():
    """Outcomes of all these claims, with kernels of the same few shapes."""
    tiny = {"n_train": 32, "n_seeds": 2}
    return {
        constant_alpha: constant_alpha.run([1000, 10_000], **tiny),
        slow_decay: slow_decay.run([0.1, 0.4], [10, 100, 1000], **tiny),
        convergence: convergence.run([0.5, 1.0], [10, 30, 100]),
        minimax: minimax.run(
            SIZES, dims=[3], gammas=[0.5], n_test=500, n_calibration=32, n_seeds=2
        ),
        parity: parity.run(SIZES, depths=[math.inf], n_test=500, n_seeds=2),
        landmarks: landmarks.run(SIZES, share=0.5, n_test=500, n_seeds=2),
    }


def agreed(module, result):
    return [finding.agrees for finding in module.findings(result)]


def changed(result, **values):
    """The same with other columns."""
    rows = result.rows.copy()
    for name, value in values.items():
        rows[name] = value
    return claim.Result(rows)


def test_a_constant_alpha_leads_to_a_quarter_and_to_the_error_of_the_mean(results):
    result = results[constant_alpha]
    rows = result.of(gamma=0.0)
    assert agreed(constant_alpha, result)[:2] == [True, True]
    assert [row.depth for row in rows] == [1000, 10_000]
    assert rows[0].distance > 5 * rows[1].distance
    assert 0.9 < rows[-1].error < 1.1
    assert agreed(constant_alpha, changed(result, distance=0.2, error=0.5)) == [False] * 4


def test_slowly_falling_alphas_degenerate_at_their_rate(results):
    result = results[slow_decay]
    verdicts = agreed(slow_decay, result)
    # Depth 1000 is too small for the rate of γ = 0.4.
    assert verdicts.count(None) == 1
    assert False not in verdicts
    assert not any(agreed(slow_decay, changed(result, distance=0.2, error=0.2)))


def test_kernels_converge_at_their_rates_and_a_wrong_rate_is_told_apart(results):
    result = results[convergence]
    assert all(agreed(convergence, result))
    distance = result.rows.depth**-0.5
    doctored = changed(result, distance=distance, lowest=0.25, highest=0.25, from_one_layer=0.1)
    assert not any(agreed(convergence, doctored))


def test_risk_by_number_of_points_is_judged_by_its_slope(results):
    result = results[minimax]
    made = changed(result, stopped=result.rows.n_train**-0.6, interpolated=1.0)
    assert agreed(minimax, made) == [True] * 3
    assert agreed(minimax, changed(result, stopped=0.5, interpolated=0.6)) == [False] * 3


def test_early_stopping_beats_interpolation_and_depth_1000_is_as_infinite_depth(results):
    rows = results[minimax].rows
    assert rows.stopped.mean() < rows.interpolated.mean()
    for infinite, deep in zip(rows[::2], rows[1::2], strict=True):
        assert (deep.depth, infinite.depth) == (1000, math.inf)
        assert deep.stopped == pytest.approx(infinite.stopped, rel=0.02)


def test_risks_are_of_the_size_that_eigenvalues_predict(results):
    result = results[minimax]
    rows = result.of(depth=math.inf, n_train=SIZES[-1])
    assert rows.stopped.mean() == pytest.approx(rows[0].expected, rel=0.5)


def test_landmarks_are_judged_by_slopes_and_by_the_whole_kernel(results):
    result = results[landmarks]
    rows = result.rows
    # 32 points: ½ √32 log 32, rounded up.
    assert rows.landmarks.tolist() == [10, 10, 28, 28]
    assert np.all(rows.stopped < 3 * rows.whole)
    falling = changed(
        result, stopped=rows.expected, whole=rows.expected, trained=1 / np.sqrt(rows.n_train)
    )
    assert agreed(landmarks, falling) == [True] * 3
    wrong = changed(result, stopped=rows.n_train**-0.3, whole=0.01, trained=rows.n_train**-0.7)
    assert agreed(landmarks, wrong) == [False] * 3


def test_odd_harmonics_are_learned_at_one_half_alone(results):
    result = results[parity]
    assert agreed(parity, result) == [True] * 3
    # λ_3 = 2π ∫ r(u) P_3(u) du over the area 4π of the sphere.
    u, weights = np.polynomial.legendre.leggauss(500)
    limit = rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5))
    integral = weights @ (limit.at_angle(np.arccos(u)) * eval_legendre(3, u)) / 2
    assert result.of(gamma=0.5)[0].eigenvalue == pytest.approx(integral, rel=1e-5)
    assert agreed(parity, changed(result, error=0.5, eigenvalue=0.1)) == [False] * 3


def test_the_best_error_is_the_least_of_a_naive_search_over_times():
    target = {"dim": 3, "coefficients": {1: 1.0, 2: 1.0}}
    (points,) = sets = sphere_regression.draw_sets(1, 32, n_test=500, **target)
    kernel = rntk.ResidualKernel(10, schedules.PowerLaw(0.5))
    k, k_test = (
        np.asarray(kernel(x, points.x_train), float) for x in (points.x_train, points.x_test)
    )
    values, vectors = np.linalg.eigh(k / 32)
    errors = []
    for t in np.geomspace(1e-2, 1e8, 400):
        weights = vectors * (-np.expm1(-t * values) / values) @ vectors.T @ points.y_train / 32
        errors.append(np.mean((k_test @ weights - points.y_test) ** 2))
    constant = np.mean((points.y_test - points.y_train.mean()) ** 2)
    found, error = sphere_regression.best_error(kernel, sets)
    assert found == pytest.approx(min(errors) / constant, rel=0.02)
    assert math.isnan(error)


def test_every_claim_has_criteria_numbers_and_a_figure_with_something_in_each_panel(results):
    for module, result in results.items():
        for finding in module.findings(result):
            assert "criterion" in finding.claim
            assert any(letter.isdigit() for letter in finding.measured)
        for axes in module.plot(result).axes:
            assert axes.lines or axes.containers, module.__name__


def test_the_interval_of_a_slope_covers_the_truth_19_times_in_20():
    generator = np.random.default_rng(0)
    x = np.tile(np.geomspace(1, 100, 5), 2)
    covered = 0
    for _ in range(1000):
        found = claim.slope(x, x**-0.6 * np.exp(0.1 * generator.standard_normal(x.size)))
        covered += abs(found.value + 0.6) < found.margin
    assert covered == pytest.approx(950, abs=25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: slow_decay.run([0.5]), r"between 0 and 1/2, got \[0.5\]"),
        (lambda: convergence.run([0.4]), r"at least 1/2, got \[0.4\]"),
        (lambda: minimax.run(SIZES, depths=[10]), "Add math.inf"),
        (lambda: parity.run(depths=[10]), "Add math.inf"),
    ],
)
def test_what_a_claim_is_not_about_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
