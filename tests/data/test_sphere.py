import math

import numpy as np
import pytest
import scipy.special

from nt_residual import data, rntk, schedules, theory


@pytest.fixture(scope="module")
def kernel():
    return rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma=1.0))


@pytest.fixture(scope="module")
def spectrum(kernel):
    """Of a kernel without odd degrees from 3 on."""
    return theory.spectrum(kernel, dim=3, max_degree=200)


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_points_are_uniform_on_the_sphere(dim):
    x = data.sphere.uniform(20000, dim, seed=1)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(x.T @ x / len(x), np.eye(dim) / dim, atol=0.02)


@pytest.mark.parametrize("dim", [2, 3, 6, 784])
def test_zonal_functions_are_those_of_scipy(dim):
    x = data.sphere.uniform(20, dim)
    x[0] = np.eye(dim)[0]
    coefficients = {0: 0.5, 3: -2.0, 70: 4.0}

    def polynomial(k):
        if dim == 2:
            return scipy.special.eval_chebyt(k, x[:, 0])
        order = (dim - 2) / 2
        at_one = scipy.special.eval_gegenbauer(k, order, 1.0)
        return scipy.special.eval_gegenbauer(k, order, x[:, 0]) / at_one

    expected = sum(a * polynomial(k) for k, a in coefficients.items())
    np.testing.assert_allclose(data.sphere.zonal(x, coefficients), expected, atol=1e-12)
    # Far beyond the range of the unnormalized polynomials.
    assert data.sphere.zonal(x[:1], {2000: 1.0}) == pytest.approx(1.0)


def test_noise_is_added_to_training_targets_alone():
    options = {"dim": 3, "coefficients": {1: 1.0, 2: 0.5}}
    noisy = data.sphere.load(5000, 10, **options, noise=0.3)
    noise = noisy.y_train - data.sphere.zonal(noisy.x_train, options["coefficients"])
    assert np.std(noise) == pytest.approx(0.3, rel=0.05)
    clean = data.sphere.zonal(noisy.x_test, options["coefficients"])
    np.testing.assert_array_equal(noisy.y_test, clean)


@pytest.mark.parametrize("smoothness", [0.0, 0.5, 1.0, 2.0])
def test_a_source_has_the_mean_squares_of_its_formula(smoothness, spectrum):
    target = data.sphere.source(spectrum, smoothness)
    assert list(target) == [1, *range(2, 201, 2)]
    shares = {k: spectrum.eigenvalue[k] ** smoothness / (k * math.log(k + 1) ** 2) for k in target}
    for k, a in target.items():
        expected = shares[k] / sum(shares.values())
        assert a**2 / (2 * k + 1) == pytest.approx(expected, rel=1e-9)
        assert a > 0
    assert data.sphere.norm(target, spectrum, smoothness=0) == pytest.approx(1)


@pytest.mark.parametrize("smoothness", [0.5, 1.0, 1.5])
def test_a_source_is_in_its_space_and_in_no_smaller_one(smoothness, spectrum):
    target = data.sphere.source(spectrum, smoothness)

    def squares(space):
        """Of the norm of the target, cut off at degrees that double."""
        return [
            data.sphere.norm({k: a for k, a in target.items() if k <= last}, spectrum, space) ** 2
            for last in (25, 50, 100, 200)
        ]

    # Those of a series that converges: the sum of 1/(k log²(k + 1)), up to a constant.
    at = np.diff(squares(smoothness))
    assert np.all(np.diff(at) < 0)
    constant = target[1] ** 2 / 3 / spectrum.eigenvalue[1] ** smoothness * math.log(2) ** 2
    last = sum(1 / (k * math.log(k + 1) ** 2) for k in range(102, 201, 2))
    assert at[-1] == pytest.approx(constant * last, rel=1e-6)
    # λ_k ~ k^(−3), so that here the terms are k^(−1/4)/log²(k + 1), whose sum is infinite.
    assert np.all(np.diff(np.diff(squares(smoothness + 0.25))) > 0)


def test_the_norm_of_a_kernel_section_is_the_root_of_the_kernel(spectrum):
    # k(e_1, ·) = Σ N λ_k P_k(x_1), and its norm is √k(e_1, e_1).
    section = {k: spectrum.mass[k] for k in np.flatnonzero(spectrum.resolved)}
    square = data.sphere.norm(section, spectrum) ** 2
    assert square == pytest.approx(spectrum.diagonal - spectrum.tail, rel=1e-9)
    assert square == pytest.approx(1, abs=1e-3)


def test_what_the_kernel_has_no_eigenvalue_for_is_in_none_of_its_spaces(spectrum):
    assert data.sphere.norm({1: 1.0, 3: 1.0}, spectrum) == math.inf
    assert data.sphere.norm({1: 1.0, 3: 0.0}, spectrum) < math.inf
    assert data.sphere.norm({3: 2.0}, spectrum, smoothness=0) == pytest.approx(2 / math.sqrt(7))
    assert data.sphere.norm({}, spectrum) == 0


def test_a_source_in_high_dimension_stays_in_the_range_of_floats(kernel):
    high = theory.spectrum(kernel, dim=784, max_degree=60)
    target = data.sphere.source(high, 1.0)
    assert data.sphere.norm(target, high, 0) == pytest.approx(1)


def test_bad_sphere_arguments_are_refused(kernel, spectrum):
    with pytest.raises(ValueError, match="points of norm 1"):
        data.sphere.zonal(np.ones((2, 3)), {1: 1.0})
    with pytest.raises(TypeError, match="spectrum must be a Spectrum, got ResidualKernel"):
        data.sphere.source(kernel, 1.0)
    with pytest.raises(ValueError, match=r"coefficients must not exceed .* got degree 201"):
        data.sphere.norm({201: 1.0}, spectrum)
    constant = theory.spectrum(lambda theta: np.ones_like(theta), dim=3, max_degree=4)
    with pytest.raises(ValueError, match="spectrum must have a positive eigenvalue in degrees 1"):
        data.sphere.source(constant, 1.0)
    negative = theory.spectrum(lambda theta: 1.0 - np.cos(theta) / 2, dim=3, max_degree=4)
    with pytest.raises(ValueError, match="spectrum must be that of a positive semi-definite"):
        data.sphere.source(negative, 1.0)
