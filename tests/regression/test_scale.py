import numpy as np
import pytest
import scipy.linalg

from nt_residual.regression import GradientFlow, holdout

SOLVERS = ["eigh", "lanczos"]
N = 40


def _problem(dtype):
    """A kernel matrix with diagonal 1, rows of it at new inputs, and targets of two outputs."""
    rng = np.random.default_rng(0)
    x, new = rng.standard_normal((N, 2)), rng.standard_normal((5, 2))
    k_train, k_test = (np.exp(-((a[:, None] - x) ** 2).sum(2) / 4).astype(dtype) for a in (x, new))
    y = np.sin(3 * x) + 0.1 * rng.standard_normal((N, 2))
    return (k_train + k_train.T) / 2, k_test, y


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [1e-30, 1e20, 1e36])
def test_predictions_at_any_scale_of_the_kernel_are_those_of_the_closed_form(solver, scale):
    k_train, k_test, y = (value.astype(np.float64) for value in _problem(np.float32))
    scaled = [(scale * k).astype(np.float32) for k in (k_train, k_test)]
    k_train, k_test = (k.astype(np.float64) / scale for k in scaled)
    learned = np.eye(N) - scipy.linalg.expm(-20 * k_train / N)
    expected = k_test @ np.linalg.lstsq(k_train, learned @ y, rcond=1e-12)[0]
    flow = GradientFlow.fit(scaled[0], y, solver=solver)
    np.testing.assert_allclose(flow.predict(scaled[1], 20 / scale), expected, atol=2e-4)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [1e-100, 1e-42, 1e100])
def test_targets_may_have_any_scale(solver, scale):
    k_train, k_test, y = _problem(np.float32)
    expected = GradientFlow.fit(k_train, y, solver=solver).predict(k_test, 20.0)
    flow = GradientFlow.fit(k_train, scale * y, solver=solver)
    found = flow.predict(k_test, 20.0)
    np.testing.assert_allclose(found / scale, expected, rtol=1e-4)
    assert holdout(flow, k_test, found, [1.0, 20.0, 300.0]).time == 20.0


@pytest.mark.parametrize("solver", SOLVERS)
def test_after_a_very_short_time_the_gradient_itself_is_learned(solver):
    k_train, k_test, y = _problem(np.float32)
    # In float64, which holds the predictions, a kernel in float32 otherwise.
    found = GradientFlow.fit(k_train, y, solver=solver).predict(k_test.astype(float), 1e-60)
    np.testing.assert_allclose(found / 1e-60, k_test @ y / N, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_kernel_that_is_zero_is_refused_with_its_likely_cause(solver):
    with pytest.raises(ValueError, match=r"eigenvalues from 0 to 0.*Inputs so small"):
        GradientFlow.fit(np.zeros((3, 3), np.float32), np.ones(3), solver=solver)
