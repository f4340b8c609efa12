import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from nt_residual import gram, rntk, schedules
from nt_residual.regression import (
    GradientFlow,
    discrepancy,
    generalized_cross_validation,
    holdout,
    kfold,
    leave_one_out,
    time_grid,
)

SOLVERS = ["eigh", "lanczos"]
N = 40


def _kernel(x1, x2):
    # No entry is so small that at 2^(−100) float32 does not hold it.
    return jnp.exp(-jnp.sum((x1[:, None] - x2[None]) ** 2, axis=2) / 4)


def _problem(dtype):
    """A kernel matrix with diagonal 1, rows of it at new inputs, and targets of two outputs."""
    rng = np.random.default_rng(0)
    x, new = rng.standard_normal((N, 2)), rng.standard_normal((5, 2))
    k_train, k_test = (np.exp(-((a[:, None] - x) ** 2).sum(2) / 4).astype(dtype) for a in (x, new))
    y = np.sin(3 * x) + 0.1 * rng.standard_normal((N, 2))
    return (k_train + k_train.T) / 2, k_test, y


def _all_that_a_flow_knows(solver, k_train, k_test, y, *, scale=0, unit=0):
    """For 2^scale K and 2^unit y, in units of K and y."""
    k_train, k_test, y = np.ldexp(k_train, scale), np.ldexp(k_test, scale), np.ldexp(y, unit)
    flow = GradientFlow.fit(k_train, y, solver=solver, ridge=math.ldexp(0.01, scale))
    times = np.ldexp([0.0, 1.0, 300.0], -scale)
    y_test = flow.predict(k_test, times[1]) * [1.0, 0.9]
    rules = {
        "holdout": holdout(flow, k_test, y_test),
        "discrepancy": discrepancy(flow, math.ldexp(0.3, unit)),
        "kfold": kfold(k_train, y, 3, solver=solver, ridge=flow.ridge, times=times),
    }
    found = {}
    if solver == "eigh":
        rules["gcv"] = generalized_cross_validation(flow)
        rules["loo"] = leave_one_out(flow, y)
        found["degrees of freedom"] = flow.degrees_of_freedom(times)
        found["leave one out"] = np.ldexp(flow.leave_one_out(times), -unit)
        found["eigenvalues"] = np.ldexp(flow.eigenvalues, -scale)
        found["targets"] = np.ldexp(flow.targets, -unit)
    for name, stopping in rules.items():
        found[f"time of {name}"] = np.ldexp(stopping.time, scale)
    solution = flow.solve(times)
    assert solution.status == "converged"
    return found | {
        "predictions": np.ldexp(flow.predict(k_test, times).astype(float), -unit),
        "coefficients": np.ldexp(solution.value, scale - unit),
        "residual": solution.residual,
        "training error": np.ldexp(flow.training_error(times), -2 * unit),
        "spectral range": np.ldexp(flow.spectral_range(), -scale),
        "time grid": np.ldexp(time_grid(flow), scale),
    }


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("dtype", "scales", "units"),
    [
        (np.float32, [-100, -60, 67, 127], [-1, 1, 0, 0]),
        (np.float64, [-960, -400, 400, 1010, 0, 0], [10, 0, 0, 10, -400, 400]),
    ],
    ids=["float32", "float64"],
)
def test_no_bit_depends_on_the_scale_of_the_kernel_or_of_targets(solver, dtype, scales, units):
    problem = _problem(dtype)
    expected = _all_that_a_flow_knows(solver, *problem)
    for scale, unit in zip(scales, units, strict=True):
        found = _all_that_a_flow_knows(solver, *problem, scale=scale, unit=unit)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=f"{name}, 2^{scale}")


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [1e-40, 1e-37, 1e-20, 1e-19, 1e20, 3e38])
def test_predictions_at_any_scale_are_those_of_the_closed_form(solver, scale):
    k_train, k_test, y = (value.astype(np.float64) for value in _problem(np.float32))
    # What float32 holds of it: below 1e-38 not all digits.
    scaled = [(scale * k).astype(np.float32) for k in (k_train, k_test)]
    k_train, k_test = (k.astype(np.float64) / scale for k in scaled)
    learned = np.eye(N) - scipy.linalg.expm(-20 * k_train / N)
    expected = k_test @ np.linalg.lstsq(k_train, learned @ y, rcond=1e-12)[0]
    flow = GradientFlow.fit(scaled[0], y, solver=solver)
    np.testing.assert_allclose(flow.predict(scaled[1], 20 / scale), expected, atol=2e-4)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [-100, 120])
@pytest.mark.parametrize("form", ["jax", "matrix-free", "stored"])
def test_a_kernel_of_any_scale_may_come_in_any_form(form, scale, solver, tmp_path):
    rng = np.random.default_rng(0)
    x, x_test = (rng.standard_normal((n, 2)).astype(np.float32) for n in (21, 5))
    y, time = rng.standard_normal(21), 50.0

    def scaled(x1, x2):
        return _kernel(x1, x2) * np.float32(2.0**scale)

    def predictions(kernel, time):
        k_train = {
            "jax": lambda: kernel(x, x),
            "matrix-free": lambda: gram.MatrixFree(kernel, x, tile_size=8),
            "stored": lambda: gram.compute(kernel, x, tile_size=8, store=tmp_path / str(time)),
        }[form]()
        flow = GradientFlow.fit(k_train, y, solver=solver)
        options = {"kernel": kernel, "x_train": x, "tile_size": 8}
        return flow.predict(kernel(x_test, x), time), flow.predict(x_test=x_test, t=time, **options)

    expected = predictions(_kernel, time)
    found = predictions(scaled, math.ldexp(time, -scale))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-300, 1e-100, 1e-42, 1e100, 1e300])
def test_targets_may_have_any_scale(solver, dtype, scale):
    k_train, k_test, y = _problem(dtype)
    expected = GradientFlow.fit(k_train, y, solver=solver).predict(k_test, 20.0)
    flow = GradientFlow.fit(k_train, scale * y, solver=solver)
    found = flow.predict(k_test, 20.0)
    # float32 does not hold them.
    assert found.dtype == np.float64
    np.testing.assert_allclose(found / scale, expected, rtol=1e-4)
    times = [1.0, 20.0, 300.0]
    assert 0 < discrepancy(flow, 0.55 * scale, times).time < 300
    assert holdout(flow, k_test, found, times).time == 20.0


def test_a_deep_kernel_that_is_not_normalized_is_learned_by_lanczos():
    x = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    k_train = rntk.ResidualKernel(50, schedules.Constant(1.0), normalize=False)(x)
    assert np.max(k_train) > 1e17
    times = np.array([0.1, 10.0, 100.0]) / 1e16
    lanczos, exact = (
        GradientFlow.fit(k_train, x[:, 0], solver=solver).predict(k_train, times)
        for solver in ("lanczos", "eigh")
    )
    np.testing.assert_allclose(lanczos, exact, atol=3e-4)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("time", [1e-60, 1e-300])
def test_after_a_very_short_time_the_gradient_itself_is_learned(solver, time):
    k_train, k_test, y = _problem(np.float32)
    # In float64, which holds the predictions, a kernel in float32 otherwise.
    found = GradientFlow.fit(k_train, y, solver=solver).predict(k_test.astype(float), time)
    np.testing.assert_allclose(found / time, k_test @ y / N, atol=1e-4)


def test_coefficients_beyond_the_range_of_float64_are_refused_and_predictions_are_not():
    for solver in SOLVERS:
        flow = GradientFlow.fit(1e-200 * np.eye(3), [1e200, 2e200, 4e200], solver=solver)
        np.testing.assert_allclose(flow.predict(1e-200 * np.eye(3)[:1], math.inf), 1e200)
        with pytest.raises(ValueError, match=r"y must have a scale at which float64.*2\^667"):
            flow.solve(math.inf)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_kernel_that_is_zero_is_refused_with_its_likely_cause(solver):
    with pytest.raises(ValueError, match=r"eigenvalues from 0 to 0.*Inputs so small"):
        GradientFlow.fit(np.zeros((3, 3), np.float32), np.ones(3), solver=solver)
