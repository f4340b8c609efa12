import functools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
from helpers import full
from scipy.special import gammaln

from nt_residual import rntk, schedules, theory

LEARNABLE = rntk.ResidualKernel(math.inf, schedules.PowerLaw(1.0))
CRITICAL = rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5))

KERNELS = {
    "learnable": LEARNABLE,
    "critical": CRITICAL,
    "tiny T": rntk.ResidualKernel(100, schedules.PowerLaw(0.5, 1e-3)),
    "large T": rntk.ResidualKernel(300, schedules.Constant(1.0)),
    "not normalized": rntk.ResidualKernel(10, schedules.Constant(1.0), normalize=False),
}
EACH_KIND = ["learnable", "critical", "large T", *full("tiny T", "not normalized")]


def _by_scipy(kernel, dim, degree):
    """λ_k by adaptive integration of scipy's Gegenbauer polynomials, for d ≥ 3."""
    order = (dim - 2) / 2

    def integrand(theta):
        polynomial = scipy.special.eval_gegenbauer(degree, order, math.cos(theta))
        polynomial /= scipy.special.eval_gegenbauer(degree, order, 1.0)
        return float(kernel.at_angle([theta])[0]) * polynomial * math.sin(theta) ** (dim - 2)

    value, _ = scipy.integrate.quad(integrand, 0, math.pi, limit=400, epsabs=1e-12)
    return value / scipy.special.beta(0.5, (dim - 1) / 2)


def test_the_learnable_limit_on_the_sphere_has_the_eigenvalues_of_the_closed_form():
    found = theory.spectrum(LEARNABLE, 3, 8)
    known = [1 / 4, 1 / 6, 5 / 128, 0, 1 / 384, 0, 23 / 32768, 0, 0.000289916992]
    np.testing.assert_allclose(found.eigenvalue, known, rtol=0, atol=1e-12)


def test_the_learnable_limit_has_no_odd_harmonics_beyond_degree_1_and_the_critical_one_has():
    for dim in (2, 3, 6):
        odd = slice(3, None, 2)
        learnable, critical = (theory.spectrum(k, dim, 21) for k in (LEARNABLE, CRITICAL))
        assert not learnable.resolved[odd].any()
        assert learnable.resolved[0::2].all()
        assert critical.resolved.all()
        assert (critical.eigenvalue > 0).all()


@pytest.mark.parametrize("dim", [3, 4, 7])
@pytest.mark.parametrize("degree", [0, 3, 10])
def test_eigenvalues_are_those_of_adaptive_integration(dim, degree):
    kernel = rntk.ResidualKernel(5, schedules.Constant(1.0))
    found = theory.spectrum(kernel, dim, 12)
    assert found.eigenvalue[degree] == pytest.approx(_by_scipy(kernel, dim, degree), abs=1e-11)


def test_on_the_circle_eigenvalues_are_fourier_coefficients():
    found = theory.spectrum(lambda theta: 2 + np.cos(3 * theta) + np.exp(np.cos(theta)), 2, 6)
    known = scipy.special.iv(np.arange(7), 1.0) + np.array([2, 0, 0, 0.5, 0, 0, 0])
    np.testing.assert_allclose(found.eigenvalue, known, atol=1e-14)
    np.testing.assert_array_equal(found.multiplicity, [1, 2, 2, 2, 2, 2, 2])


@pytest.mark.parametrize("name", EACH_KIND)
@pytest.mark.parametrize(
    "size", [(2, 100), (8, 40), (784, 200), *full((3, 200), (50, 60), (10_000, 200))], ids=str
)
def test_masses_are_not_negative_and_sum_to_the_diagonal(name, size):
    kernel, (dim, max_degree) = KERNELS[name], size
    found = theory.spectrum(kernel, dim, max_degree)
    assert found.diagonal == kernel.at_angle(0.0)
    assert (found.mass >= -10 * found.mass_error).all()
    assert found.tail >= -10 * found.mass_error.sum()
    assert found.tail + found.mass.sum() == pytest.approx(found.diagonal)
    if dim < 50:
        np.testing.assert_allclose(found.mass, found.multiplicity * found.eigenvalue)
        return
    # In high dimensions every degree is resolved that the kernel has.
    degrees = found.degree % 2 == 0 if name in ("learnable", "tiny T") else found.degree >= 0
    assert found.resolved[degrees].all()
    assert (found.mass_error < 1e-5 * found.mass)[degrees].all()
    assert np.isfinite(found.log_eigenvalue[degrees]).all()


def test_the_degenerate_limit_is_the_mean_and_nothing_else():
    kernel = rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.25))
    found = theory.spectrum(kernel, 3, 20)
    np.testing.assert_allclose(found.eigenvalue, [0.25] + [0] * 20, atol=1e-15)
    assert found.tail == pytest.approx(0.75)
    np.testing.assert_array_equal(found.resolved, [True] + [False] * 20)


def test_the_error_estimate_covers_noise_in_the_kernel():
    noise = np.random.default_rng(0)

    def noisy(theta):
        return np.exp(np.cos(theta)) + 1e-6 * noise.standard_normal(theta.shape)

    clean = theory.spectrum(lambda theta: np.exp(np.cos(theta)), 3, 30)
    found = theory.spectrum(noisy, 3, 30)
    assert (np.abs(found.mass - clean.mass) <= 3 * found.mass_error).all()
    assert found.mass_error.max() < 1e-5


def test_the_quadrature_finds_kinks_inside_the_interval():
    # ∫_0^1 (1 − θ) sin θ dθ/2 = (1 − sin 1)/2
    found = theory.spectrum(lambda theta: np.maximum(1 - theta, 0), 3, 10)
    assert found.eigenvalue[0] == pytest.approx((1 - math.sin(1)) / 2, abs=1e-13)


@pytest.mark.parametrize("dim", [2, 3, *full(5)])
@pytest.mark.parametrize("kernel", [LEARNABLE, CRITICAL], ids=["learnable", "critical"])
def test_eigenvalues_decay_like_the_degree_to_the_minus_d(kernel, dim):
    law = theory.spectrum(kernel, dim, 100).decay()
    assert abs(law.exponent - dim) < 2 * law.uncertainty
    assert law.uncertainty < 0.02 * dim
    assert law.sorted_exponent == pytest.approx(dim / (dim - 1), rel=0.01)


def test_the_exponent_is_not_claimed_where_degrees_are_too_low_for_it():
    kernel = rntk.ResidualKernel(1000, schedules.Constant(1.0))  # T = 693
    law = theory.spectrum(kernel, 3, 60).decay()
    assert law.uncertainty > 0.2
    with pytest.raises(ValueError, match="at least 5 eigenvalues"):
        theory.spectrum(LEARNABLE, 3, 8).decay()


def test_sorted_eigenvalues_follow_the_fitted_law():
    found = theory.spectrum(CRITICAL, 3, 100)
    law = found.decay()
    every = np.repeat(found.eigenvalue, found.multiplicity.astype(int))
    every = -np.sort(-every)
    i = np.arange(4000, 9000)
    np.testing.assert_allclose(law.sorted_prefactor * i**-law.sorted_exponent, every[i], rtol=0.03)


def test_multiplicities_are_exact_and_their_logarithms_finite():
    assert theory.multiplicity(784, 1) == 784
    assert theory.multiplicity(784, 2) == 784 * 785 // 2 - 1
    # The harmonics up to degree k span what the homogeneous polynomials of k and k − 1 do.
    total = sum(theory.multiplicity(10_000, k) for k in range(201))
    assert total == math.comb(10_199, 200) + math.comb(10_198, 199)


def test_degrees_of_a_function_that_float64_cannot_resolve_are_refused_with_the_last_it_can():
    with pytest.raises(ValueError, match=r"max_degree must be at most 11 .* in 784 dimensions"):
        theory.spectrum(LEARNABLE.at_angle, 784, 200)
    theory.spectrum(LEARNABLE.at_angle, 784, 11)
    with pytest.raises(ValueError, match="or a ResidualKernel"):
        theory.spectrum(LEARNABLE.at_angle, 10_000, 200)


def _log_learnable_mass(dim, degree, count):
    """log N λ_k of (κ1 + u κ0)/2 for even k, term by term from closed forms in gammas."""
    j = np.arange(degree, count, 2)
    n, m, nu = j / 2, (j - degree) / 2, (dim - 2) / 2
    # a_2n = C(2n, n)/4^n (2n + 1)/(2π (2n − 1)²)
    log_a = gammaln(2 * n + 1) - 2 * gammaln(n + 1) - 2 * n * math.log(2)
    log_a += np.log((2 * n + 1) / (2 * math.pi * (2 * n - 1) ** 2))
    # u^j = j!/2^j Σ_m (j − 2m + ν)/(m! (ν)_(j−m+1)) C_(j−2m)(u), and C_k(1) = (2ν)_k/k!
    log_top = gammaln(2 * nu + degree) - gammaln(2 * nu) - gammaln(degree + 1)
    log_share = gammaln(j + 1) - j * math.log(2) + math.log(degree + nu) - gammaln(m + 1)
    log_share += gammaln(nu) - gammaln(nu + j - m + 1) + log_top
    return float(np.log(np.exp(log_a + log_share).sum()))


@functools.cache
def _learnable(dim):
    return theory.spectrum(LEARNABLE, dim, 200)


@pytest.mark.parametrize("dim", [50, 784, 10_000])
@pytest.mark.parametrize("degree", [12, 50, 200])
def test_high_degrees_in_high_dimensions_are_those_of_the_closed_form(dim, degree):
    found = _learnable(dim)
    known = _log_learnable_mass(dim, degree, 12_000)
    assert math.log(found.mass[degree]) == pytest.approx(known, abs=1e-8)
    log_eigenvalue = known - found.log_multiplicity[degree]
    assert found.log_eigenvalue[degree] == pytest.approx(log_eigenvalue, abs=1e-8)
    assert found.mass_error[degree] < 2e-8 * found.mass[degree]
    # It has no odd harmonics beyond degree 1.
    np.testing.assert_allclose(found.mass[3::2], 0, atol=1e-16)
    assert not found.resolved[3::2].any()


def test_eigenvalues_below_the_range_of_floats_have_a_logarithm():
    found = _learnable(10_000)
    assert found.eigenvalue[200] == 0
    assert found.multiplicity[200] == math.inf
    assert found.resolved[200]
    low = slice(0, 100, 2)
    np.testing.assert_allclose(np.exp(found.log_eigenvalue[low]), found.eigenvalue[low], rtol=1e-9)


def test_the_zonal_polynomials_sum_to_the_kernel_in_high_dimensions():
    # P_k by its recurrence, stable in the interval; the tail bounds what is missing.
    dim, u = 784, np.linspace(-0.6, 0.6, 7)
    found = theory.spectrum(CRITICAL, dim, 100)
    previous, polynomial, total = np.ones_like(u), u, found.mass[0] + found.mass[1] * u
    for k in range(1, 100):
        following = ((2 * k + dim - 2) * u * polynomial - k * previous) / (k + dim - 2)
        previous, polynomial = polynomial, following
        total = total + found.mass[k + 1] * polynomial
    np.testing.assert_allclose(total, CRITICAL.at_angle(np.arccos(u)), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("kernel", "error", "message"),
    [
        (1.0, TypeError, "at_angle or be a function of angles, got float"),
        (lambda theta: 1.0, ValueError, "must return the shape"),
        (lambda theta: theta * np.nan, ValueError, "NaN or infinite"),
        (lambda theta: theta + 1j, TypeError, "must hold real numbers"),
        (lambda theta: -np.cos(theta), ValueError, "must be positive at θ = 0"),
    ],
)
def test_what_is_no_zonal_kernel_is_refused(kernel, error, message):
    with pytest.raises(error, match=message):
        theory.spectrum(kernel, 3, 5)


def test_even_and_odd_degrees_that_follow_two_laws_are_fitted_apart():
    kernel = rntk.ResidualKernel(1000, schedules.PowerLaw(gamma=1.0))
    found = theory.spectrum(kernel, 3, 20)
    with pytest.raises(ValueError, match=r"one law, got k\^.* Pass parity='even' or 'odd'"):
        found.decay()
    even, odd = found.decay("even"), found.decay("odd")
    assert set(even.degrees % 2) == {0}
    assert set(odd.degrees % 2) == {1}
    assert even.exponent == pytest.approx(3, abs=0.2)
    assert max(even.uncertainty, odd.uncertainty) < 0.2
    assert odd.exponent < 2


def test_even_and_odd_degrees_of_one_exponent_are_fitted_together():
    # A kink at θ = π makes even eigenvalues 1.2 times as large as odd ones.
    kernel = rntk.ResidualKernel(10, schedules.PowerLaw(gamma=1.0))
    law = theory.spectrum(kernel, 3, 100).decay()
    assert abs(law.exponent - 3) < 2 * law.uncertainty < 0.1
