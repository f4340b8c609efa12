import functools
import math

import numpy as np
import pytest
import scipy.interpolate
from helpers import full

from nt_residual import data, regression, rntk, schedules, theory

LEARNABLE = rntk.ResidualKernel(math.inf, schedules.PowerLaw(1.0))
CRITICAL = rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5))


@functools.cache
def _profile(kernel):
    grid = np.linspace(0, np.pi, 2001)
    return scipy.interpolate.CubicSpline(grid, kernel.at_angle(grid))


def _matrices(kernel, points):
    """The kernel of training points, and that of test points with them."""
    n = len(points.x_train)
    theta = np.arccos(np.clip(np.r_[points.x_train, points.x_test] @ points.x_train.T, -1, 1))
    theta[np.arange(n), np.arange(n)] = 0
    return np.split(_profile(kernel)(theta), [n])


def _measure(kernel, dim, coefficients, n, noise, ridge):
    """The mean excess error of ridge regression over training sets, and its error."""
    errors = []
    for seed in range(16):
        points = data.sphere.load(n, 400, dim, coefficients, noise=noise, seed=seed)
        k_train, k_test = _matrices(kernel, points)
        weights = np.linalg.solve(k_train + ridge * np.eye(n), points.y_train)
        errors.append(np.mean((k_test @ weights - points.y_test) ** 2))
    return np.mean(errors), np.std(errors) / math.sqrt(len(errors))


@pytest.mark.parametrize(
    "case",
    [
        (LEARNABLE, 3, 200, 0.5, 0.3),
        (CRITICAL, 4, 100, 0.5, 0.1),
        (LEARNABLE, 6, 150, 0.5, 0.0),
        *full((LEARNABLE, 3, 200, 0.0, 1.0), (CRITICAL, 4, 200, 0.5, 3.0)),
    ],
)
def test_the_prediction_is_within_the_error_bars_of_simulated_regression(case):
    (kernel, dim, n, noise, ridge), coefficients = case, {1: 1.0, 2: 1.0, 4: 1.0}
    mean, error = _measure(kernel, dim, coefficients, n, noise, ridge)
    found = theory.spectrum(kernel, dim, 40)
    power = theory.zonal_power(coefficients, dim)
    curve = theory.learning_curve(found, power, n, noise, ridge)
    assert abs(curve.excess - mean) < 3 * error
    assert error < 0.1 * mean


def test_kappa_solves_its_equation_and_the_error_is_the_formula():
    found = theory.spectrum(CRITICAL, 4, 60)
    n, noise, ridge, target = np.array([10.0, 50.0, 250.0]), 0.3, 0.2, np.zeros(61)
    target[:4] = 0.1, 0.5, 0.0, 0.2
    curve = theory.learning_curve(found, dict(enumerate(target)), n, noise, ridge)
    kappa = curve.kappa[:, None]
    learned = found.eigenvalue / (found.eigenvalue + kappa)
    np.testing.assert_allclose(curve.learnability, learned)
    effective = (ridge + found.tail) / curve.kappa
    np.testing.assert_allclose((found.multiplicity * learned).sum(1) + effective, n)
    e0 = n / (n - (found.multiplicity * learned**2).sum(1))
    total = e0 * (((1 - learned) ** 2 * target).sum(1) + noise**2)
    np.testing.assert_allclose(curve.total, total)
    np.testing.assert_allclose(curve.excess, total - noise**2)


def test_the_degenerate_limit_learns_the_mean_alone():
    kernel = rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.25))
    curve = theory.learning_curve(theory.spectrum(kernel, 3, 10), {0: 1.0, 1: 1.0}, [1e2, 1e6])
    np.testing.assert_allclose(curve.excess, 1, rtol=0.02)
    np.testing.assert_allclose(curve.learnability[:, 1:], 0)


def test_the_curve_has_the_shape_of_n():
    found = theory.spectrum(CRITICAL, 3, 60)
    scalar = theory.learning_curve(found, {1: 1.0}, 50, 0.1)
    assert isinstance(scalar.excess, float)
    grid = theory.learning_curve(found, {1: 1.0}, np.array([[20, 50], [100, 200]]), 0.1)
    assert grid.excess.shape == grid.kappa.shape == (2, 2)
    assert grid.learnability.shape == (2, 2, 61)
    assert grid.excess[0, 1] == scalar.excess


def test_a_kernel_of_finite_rank_fits_by_least_squares_beyond_its_rank():
    # Linear and constant functions in three dimensions: rank 4.
    found = theory.spectrum(lambda theta: 1 + np.cos(theta), 3, 5)
    n = np.array([2.0, 4.0, 5.0, 44.0])
    curve = theory.learning_curve(found, {1: 1.0, 2: 0.3}, n, noise=0.5)
    assert np.isfinite(curve.excess[0])
    assert curve.excess[1] == math.inf
    np.testing.assert_allclose(curve.total[2:], n[2:] / (n[2:] - 4) * (0.3 + 0.25))
    np.testing.assert_array_equal(curve.kappa > 0, [True, False, False, False])
    # What is in the span and free of noise is found exactly.
    assert theory.learning_curve(found, {1: 1.0}, 4).excess == 0
    # With a ridge the threshold is passed smoothly.
    smooth = theory.learning_curve(found, {1: 1.0}, n, noise=0.5, ridge=0.1)
    assert np.isfinite(smooth.excess).all()


def test_powers_of_zonal_targets_are_their_mean_squares():
    x = data.sphere.uniform(200_000, dim=4)
    power = theory.zonal_power({2: 3.0}, dim=4)
    assert np.mean(data.sphere.zonal(x, {2: 3.0}) ** 2) == pytest.approx(power[2], rel=0.02)


def test_too_few_degrees_for_so_many_points_are_refused():
    found = theory.spectrum(CRITICAL, 3, 10)
    with pytest.raises(ValueError, match="larger max_degree, or pass n ≤ 20"):
        theory.learning_curve(found, {1: 1.0}, [20, 2000])
    # A ridge that keeps those degrees from being learned makes it right again.
    theory.learning_curve(found, {1: 1.0}, [20, 2000], ridge=10.0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"spectrum": LEARNABLE}, TypeError, "must be a Spectrum, got ResidualKernel"),
        ({"n": 0}, ValueError, "n must be at least 1"),
        ({"target": {21: 1.0}}, ValueError, "degrees of the spectrum, 0 to 20, got degree 21"),
        ({"target": np.ones(2)}, TypeError, "must be a mapping, got ndarray"),
        ({"target": {-1: 1.0}}, ValueError, "a degree of target must be at least 0"),
        ({"target": {1: -1.0}}, ValueError, "target must be ≥ 0"),
    ],
)
def test_what_is_out_of_range_is_refused(change, error, message):
    arguments = {"spectrum": theory.spectrum(LEARNABLE, 3, 20), "target": {1: 1.0}, "n": 10}
    with pytest.raises(error, match=message):
        theory.learning_curve(**(arguments | change))


def test_kernels_that_are_not_positive_semi_definite_are_refused():
    for kernel in (
        lambda theta: 1 - np.sin(theta) ** 2 * 0.9 - 0.5 * np.cos(theta),
        lambda theta: np.where(theta == 0, 0.5, 1.0),
    ):
        with pytest.raises(ValueError, match="positive semi-definite"):
            theory.learning_curve(theory.spectrum(kernel, 3, 4), {}, 10)


@pytest.mark.parametrize("dim", [2, 3, 10, 1000])
def test_the_minimax_rate_and_the_stopping_time_have_the_exponent_of_the_decay(dim):
    beta = dim / (dim - 1)
    assert theory.minimax_rate(dim) == pytest.approx(beta / (beta + 1))
    times = theory.stopping_time(np.array([10, 1000]), dim, scale=3.0)
    assert times[1] / times[0] == pytest.approx(100 ** (beta / (beta + 1)))
    assert theory.stopping_time(1, dim, scale=3.0) == 3.0


def test_the_stopping_scale_minimizes_bias_and_variance():
    dim, noise, norm, prefactor, n = 3, 0.7, 2.0, 0.06, 500
    scale = theory.stopping_scale(dim, noise=noise, target_norm=norm, prefactor=prefactor)
    best = theory.stopping_time(n, dim, scale=scale)

    def risk(t):
        return norm**2 / (2 * math.e * t) + noise**2 / n * (prefactor * t) ** ((dim - 1) / dim)

    assert risk(best) < min(risk(0.98 * best), risk(1.02 * best))


def test_the_estimated_stopping_time_is_about_as_good_as_the_best():
    dim, coefficients, noise = 3, {1: 1.0, 2: 1.0}, 0.5
    found = theory.spectrum(CRITICAL, dim, 100)
    power = theory.zonal_power(coefficients, dim)
    norm = math.sqrt(sum(v / found.eigenvalue[k] for k, v in power.items()))
    scale = theory.stopping_scale(
        dim, noise=noise, target_norm=norm, prefactor=found.decay().sorted_prefactor
    )
    points = data.sphere.load(300, 500, dim, coefficients, noise=noise)
    k_train, k_test = _matrices(CRITICAL, points)
    flow = regression.GradientFlow.fit(k_train, points.y_train)
    errors = regression.holdout(flow, k_test, points.y_test).errors
    time = theory.stopping_time(300, dim, scale=scale)
    stopped = regression.holdout(flow, k_test, points.y_test, [time]).errors[0]
    assert stopped < 1.5 * errors.min()
    assert stopped < errors[-1] / 3


def test_multiplicities_beyond_the_range_of_floats_leave_the_curve_as_it_is():
    few, many = (theory.spectrum(LEARNABLE, dim=10_000, max_degree=degree) for degree in (20, 200))
    assert np.isinf(many.multiplicity[-1])
    curves = [theory.learning_curve(found, {1: 1.0}, 2000, noise=0.1) for found in (few, many)]
    assert curves[0].excess == pytest.approx(curves[1].excess, rel=1e-9)
