import math
from fractions import Fraction

import numpy as np
import pytest
from helpers import full

from nt_residual import rntk, schedules
from nt_residual.rntk import taylor as module
from nt_residual.rntk.taylor import power_series

LIMIT = rntk.ResidualKernel(math.inf, schedules.PowerLaw(1.0))
CRITICAL = rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5))

KERNELS = {
    "one block": rntk.ResidualKernel(1, schedules.Constant(1.0)),
    "tiny α": rntk.ResidualKernel(7, schedules.Constant(1e-200)),
    "deep": rntk.ResidualKernel(300, schedules.Constant(1.0)),
    "critical depth": rntk.ResidualKernel(100, schedules.PowerLaw(0.5)),
    "nngp": rntk.ResidualKernel(10, schedules.Constant(1.0), kind="nngp"),
    "all": rntk.ResidualKernel(10, schedules.Constant(0.3), trained="all"),
    "not normalized": rntk.ResidualKernel(5, schedules.Constant(1.0), normalize=False),
    "limit": LIMIT,
    "limit, all": rntk.ResidualKernel(math.inf, schedules.PowerLaw(1.0), trained="all"),
    "critical": CRITICAL,
    "critical, nngp": rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5), kind="nngp"),
    "critical, all": rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5), trained="all"),
    "T = 30": rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5, math.sqrt(30))),
    "T = 10,000": rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5, 100.0)),
    "T = 1e-12": rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5, 1e-6)),
}

IN_DEFAULT = ("deep", "all", "limit")
NAMES = [*IN_DEFAULT, *full(*(name for name in KERNELS if name not in IN_DEFAULT))]


def _vanishing(count):
    """2π times the even a_j of (κ1 + u κ0)/2, from binomial series in fractions."""
    terms = [Fraction(0)] * count
    for n in range(count // 2):
        central = Fraction(math.comb(2 * n, n), 4**n)
        # √(1 − u²) = −Σ p_n/(2n − 1) u^(2n),   2u arcsin u = Σ 2 p_n/(2n + 1) u^(2n + 2)
        terms[2 * n] -= central / (2 * n - 1)
        if 2 * n + 2 < count:
            terms[2 * n + 2] += 2 * central / (2 * n + 1)
    return terms


def _harmonic(depth):
    return 1 / np.arange(1, depth + 1)


@pytest.mark.parametrize("kernel", [LIMIT, KERNELS["one block"], KERNELS["tiny α"]])
def test_one_layer_has_the_binomial_series_of_the_arcsine(kernel):
    known = np.array([float(term) for term in _vanishing(300)]) / (2 * math.pi)
    known[1] += 0.5
    exact = kernel is LIMIT
    rtol, atol = (1e-13, 0) if exact else (1e-11, 1e-15)
    np.testing.assert_allclose(power_series(kernel, 300), known, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", NAMES)
def test_the_series_sums_to_the_kernel_inside_the_interval(name):
    kernel = KERNELS[name]
    u = np.linspace(-0.9, 0.9, 19)
    found = np.polynomial.polynomial.polyval(u, power_series(kernel, 400))
    reference = kernel.at_angle(np.arccos(u)) / kernel.at_angle(0.0)
    atol = 1e-10 if kernel.depth == math.inf else 1e-13
    np.testing.assert_allclose(found, reference, rtol=0, atol=atol)


@pytest.mark.parametrize("name", NAMES)
def test_coefficients_are_not_negative_and_the_rest_is_what_further_ones_sum_to(name):
    short, long = (module.expand(KERNELS[name], count) for count in (100, 1000))
    assert (long.coefficients >= 0).all()
    for parity in (0, 1):
        between = long.coefficients[100:][parity::2].sum()
        found = short.rest[parity] - long.rest[parity]
        assert found == pytest.approx(between, rel=1e-6, abs=1e-12)
        assert long.rest[parity] > 0


@pytest.mark.parametrize(
    "name", ["deep", *full(*(name for name in KERNELS if name not in ("deep", "T = 10,000")))]
)
def test_the_error_estimate_covers_the_change_on_another_circle(name):
    short, long = (module.expand(KERNELS[name], count) for count in (2000, 8000))
    change = np.abs(short.coefficients - long.coefficients[:2000])
    assert (change <= short.error + long.error[:2000]).all()
    # High coefficients are small, of the order of j^(−3/2) or j^(−5/2), and still resolved.
    assert (long.error[:1000] < 1e-14 + 1e-11 * long.coefficients[:1000]).all()


def test_coefficients_of_deep_networks_tend_to_those_of_the_limit():
    limit = power_series(CRITICAL, 100)
    errors = [np.abs(power_series(CRITICAL.at_depth(n), 100) / limit - 1).max() for n in (50, 500)]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    assert errors[1] < 5e-3


@pytest.mark.full
def test_first_blocks_that_stay_are_followed_by_a_continuum():
    # α_ℓ = 1/ℓ, of which Π (1 + 1/ℓ²) = sinh(π)/π.
    time = math.log(math.sinh(math.pi) / math.pi)
    kernel = rntk.ResidualKernel(math.inf, _harmonic, effective_time=time)
    head, rest = kernel._head_and_rest
    assert head is not None
    assert rest > 0
    u = np.linspace(-0.8, 0.8, 9)
    found = np.polynomial.polynomial.polyval(u, module.expand(kernel, 150).coefficients)
    np.testing.assert_allclose(found, kernel.at_angle(np.arccos(u)), rtol=0, atol=1e-11)


def test_the_jump_of_the_degenerate_limit_is_in_no_coefficient():
    kernel = rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.25))
    np.testing.assert_array_equal(power_series(kernel, 4), [0.25, 0, 0, 0])
    assert module.expand(kernel, 4).rest == (0.0, 0.0)


def test_the_result_may_be_changed_by_the_caller():
    power_series(LIMIT, 3)[:] = 7
    assert power_series(LIMIT, 3)[1] == 0.5


def test_another_function_is_refused():
    with pytest.raises(TypeError, match="kernel must be a ResidualKernel"):
        power_series(np.cos, 5)
