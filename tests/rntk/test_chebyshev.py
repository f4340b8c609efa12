import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import full, mainly

from nt_residual.rntk import chebyshev

VARIABLES = [chebyshev.variable_for(t) for t in (0, 1e-20, 1e4)]


@pytest.fixture(params=VARIABLES, ids=lambda v: f"{v.end}-{v.power}-{v.offset:.1g}")
def variable(request):
    return request.param


def test_the_variable_runs_over_its_interval_and_back(variable):
    theta = np.linspace(0, np.pi, 101)
    z = variable.of_angle(theta)
    assert np.all(np.abs(z) <= 1 + 1e-14)
    np.testing.assert_allclose(variable.to_angle(z), theta, rtol=0, atol=1e-12)
    assert sorted(variable.to_angle(np.array([-1.0, 1.0]))) == [0, np.pi]


def test_the_slope_of_the_variable_is_its_derivative(variable, x64):
    theta = jnp.linspace(0.1, 3.0, 11)
    derivative = jax.vmap(jax.grad(variable.of_angle))(theta)
    np.testing.assert_allclose(variable.slope(theta), derivative, rtol=1e-12)


def test_a_fit_reports_an_error_that_holds(variable):
    fit = chebyshev.fit(np.cos, variable, tol=1e-9)
    theta = np.linspace(0, np.pi, 1001)
    error = np.max(np.abs(fit.at_angle(theta) - np.cos(theta)))
    assert error <= 2 * fit.error
    assert fit.error <= 1e-9


@mainly("float64")
@pytest.mark.parametrize("variable", [VARIABLES[2], *full(*VARIABLES[:2])], ids=str)
def test_a_series_and_its_derivative_are_those_of_the_function(variable, dtype):
    series = chebyshev.fit(np.cos, variable, tol=1e-13).cut(1e-12)
    theta = jnp.linspace(0.5, 2.5, 21, dtype=dtype)
    tol = {"float32": 2e-6, "float64": 1e-10}[dtype.name]
    np.testing.assert_allclose(series(theta), np.cos(theta), rtol=0, atol=tol)
    slope = jax.vmap(jax.grad(lambda t: series(t)))(theta)
    np.testing.assert_allclose(slope, -np.sin(theta), rtol=0, atol=50 * tol)
    assert series(theta).dtype == dtype


def test_what_is_cut_off_stays_below_the_tolerance():
    fit = chebyshev.fit(np.cos, chebyshev.PLAIN, tol=1e-13)
    theta = np.linspace(0, np.pi, 101)
    for tol in (1e-2, 1e-5, 1e-8):
        series = fit.cut(tol)
        z = chebyshev.PLAIN.of_angle(theta)
        values = np.polynomial.chebyshev.chebval(z, series.coefficients)
        assert np.max(np.abs(values - np.cos(theta))) <= tol
    assert len(fit.cut(1e-2).coefficients) < len(fit.cut(1e-8).coefficients)
