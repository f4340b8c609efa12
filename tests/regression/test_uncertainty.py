import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import finite_difference
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import PairwiseKernel

from nt_residual import gram, regression, rntk, schedules, stax
from nt_residual import neural_tangents as nt
from nt_residual.finite_width import ResNet
from nt_residual.regression import (
    GradientFlow,
    ensemble_covariance,
    log_marginal_likelihood,
    posterior_covariance,
)

SCHEDULE = schedules.PowerLaw(0.5)
NTK, NNGP = (rntk.ResidualKernel(3, SCHEDULE, kind) for kind in ("ntk", "nngp"))
TIMES = [0.0, 1.0, 20.0, 400.0, math.inf]

random = np.random.default_rng(0)
x = random.standard_normal((40, 3)).astype(np.float32)
x_test = random.standard_normal((12, 3)).astype(np.float32)
y = np.sin(2 * x[:, 0]) + 0.1 * random.standard_normal(40)


def _nngp_kernels(z=x, full=False, dtype=np.float32):
    a, b = x_test.astype(dtype), z.astype(dtype)
    prior = np.asarray(NNGP(a))
    return {
        "nngp_test": prior if full else np.diag(prior),
        "nngp_test_train": NNGP(a, b),
        "nngp_train": NNGP(b),
    }


def _ensemble(flow, t=TIMES, z=x, dtype=np.float32, **options):
    ntk = NTK(x_test.astype(dtype), z.astype(dtype))
    return ensemble_covariance(flow, ntk, t, **_nngp_kernels(z, dtype=dtype, **options))


@pytest.fixture(scope="module")
def flow():
    return GradientFlow.fit(NTK(x), y, solver="eigh")


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_the_covariance_of_an_ensemble_is_that_of_neural_tangents(ridge, x64):
    """In float64, with the kernels of the same network in neural-tangents' layers."""
    inputs, tests = x.astype(float), x_test.astype(float)
    _, _, layers = stax.FullyConnectedResNet(3, 1, schedule=SCHEDULE, normalize_blocks=True)
    kernels = {
        get: [
            np.asarray(layers(*pair, get))
            for pair in ((tests, None), (tests, inputs), (inputs, None))
        ]
        for get in ("ntk", "nngp")
    }
    flow = GradientFlow.fit(
        kernels["ntk"][2], y, solver="eigh", ridge=ridge * np.trace(kernels["ntk"][2]) / 40
    )
    names = ("nngp_test", "nngp_test_train", "nngp_train")
    found = ensemble_covariance(
        flow, kernels["ntk"][1], TIMES, **dict(zip(names, kernels["nngp"], strict=True))
    )
    theirs = nt.predict.gradient_descent_mse_ensemble(
        layers, inputs, y[:, None], diag_reg=ridge, diag_reg_absolute_scale=False
    )
    for k, t in enumerate(TIMES):
        expected = theirs(None if t == math.inf else t, tests, "ntk", compute_cov=True)
        np.testing.assert_allclose(found[k], expected.covariance, atol=1e-8)
        mean = flow.predict(kernels["ntk"][1], t)
        np.testing.assert_allclose(mean, expected.mean[:, 0], atol=1e-8)


def test_variances_are_the_diagonal_of_covariances(flow):
    full = _ensemble(flow, full=True)
    assert full.shape == (5, 12, 12)
    np.testing.assert_allclose(_ensemble(flow), np.diagonal(full, axis1=1, axis2=2), atol=1e-12)
    np.testing.assert_allclose(_ensemble(flow, t=20.0), _ensemble(flow)[2], rtol=1e-12)


def test_an_untrained_ensemble_has_the_prior_and_a_trained_one_knows_the_training_points(flow):
    kernels = _nngp_kernels()
    np.testing.assert_allclose(_ensemble(flow)[0], kernels["nngp_test"], rtol=1e-6)
    at_training = {"nngp_test": np.diag(NNGP(x)), "nngp_test_train": NNGP(x), "nngp_train": NNGP(x)}
    found = ensemble_covariance(flow, NTK(x), math.inf, **at_training)
    assert np.all(found < 1e-4 * at_training["nngp_test"])


def test_float32_kernels_give_variances_to_a_ten_thousandth_of_the_prior(flow, x64):
    exact = GradientFlow.fit(NTK(x.astype(float)), y, solver="eigh")
    expected = _ensemble(exact, dtype=np.float64)
    scale = np.max(_nngp_kernels()["nngp_test"])
    np.testing.assert_allclose(_ensemble(flow), expected, atol=1e-4 * scale)


@pytest.mark.parametrize("noise", [0.01, 0.5])
def test_the_posterior_is_that_of_scikit_learn(noise, x64):
    inputs, tests = x.astype(float), x_test.astype(float)

    def kernel(a, b, **_):
        return np.asarray(NNGP(np.atleast_2d(a), np.atleast_2d(b)))[0, 0]

    theirs = GaussianProcessRegressor(
        PairwiseKernel(metric=kernel, pairwise_kernels_kwargs={}), alpha=noise, optimizer=None
    ).fit(inputs, y)
    mean, expected = theirs.predict(tests, return_cov=True)
    flow = GradientFlow.fit(NNGP(inputs), y, solver="eigh", ridge=noise)
    k = NNGP(tests, inputs)
    np.testing.assert_allclose(flow.predict(k, math.inf), mean, atol=1e-8)
    np.testing.assert_allclose(posterior_covariance(flow, k, NNGP(tests)), expected, atol=1e-8)
    variances = posterior_covariance(flow, k, np.diag(NNGP(tests)))
    np.testing.assert_allclose(variances, np.diag(expected), atol=1e-8)
    found = log_marginal_likelihood(NNGP(inputs), y, noise)
    np.testing.assert_allclose(found, theirs.log_marginal_likelihood_value_, rtol=1e-8)


@pytest.mark.parametrize("which", ["gamma", "c", "noise"])
def test_the_evidence_has_the_derivatives_of_finite_differences(which, x64):
    inputs = jnp.asarray(x, float)

    def evidence(value):
        parameters = {"gamma": 0.4, "c": 1.2, "noise": 0.1, which: value}
        noise = parameters.pop("noise")
        law = schedules.PowerLaw(**parameters)
        k = rntk.recursive_kernel(inputs, schedule=law, depth=3, kind="nngp")
        return log_marginal_likelihood(k, y, noise)

    found, expected = jax.grad(evidence)(0.3), finite_difference(lambda v: evidence(v), 0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_outputs_add_up_in_the_evidence():
    k = NNGP(x)
    both = log_marginal_likelihood(k, np.stack([y, y**2], 1), 0.1)
    one, other = (log_marginal_likelihood(k, part, 0.1) for part in (y, y**2))
    np.testing.assert_allclose(both, one + other, rtol=1e-5)


def test_ninety_per_cent_of_new_targets_lie_in_their_intervals(x64):
    """Where functions are drawn from the prior and the noise is known."""
    inputs = np.random.default_rng(1).standard_normal((400, 3))
    k, noise = np.asarray(NNGP(inputs)), 0.05
    root = np.linalg.cholesky(k + 1e-10 * np.eye(400))
    draws = root @ np.random.default_rng(2).standard_normal((400, 40))
    targets = draws + noise**0.5 * np.random.default_rng(3).standard_normal(draws.shape)
    flow = GradientFlow.fit(k[:100, :100], targets[:100], solver="eigh", ridge=noise)
    variance = posterior_covariance(flow, k[100:, :100], np.diag(k)[100:]) + noise
    errors = flow.predict(k[100:, :100], math.inf) - targets[100:]
    covered = np.mean(np.abs(errors) < 1.645 * np.sqrt(variance)[:, None])
    assert abs(covered - 0.9) < 0.03


@functools.partial(jax.jit, static_argnames=("graphdef", "steps"))
def _trained_outputs(graphdef, params, rest, inputs, targets, rate, steps):
    """Outputs at the test inputs of a network after each number of steps of gradient descent."""

    def outputs(params, inputs):
        return nnx.merge(graphdef, params, rest)(inputs)

    def loss(params):
        return jnp.sum((outputs(params, inputs) - targets) ** 2) / (2 * len(inputs))

    def step(_, params):
        return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))

    found = []
    for more in np.diff(steps, prepend=0).tolist():
        params = jax.lax.fori_loop(0, more, step, params)
        found.append(outputs(params, x_test))
    return jnp.stack(found)


def test_trained_networks_differ_as_the_law_of_the_ensemble_says():
    width, count = 256, 32
    options = {"schedule": SCHEDULE, "normalize_blocks": True}
    _, _, kernel_fn = stax.FullyConnectedResNet(2, width, **options)
    ntk, nngp = (functools.partial(kernel_fn, get=kind) for kind in ("ntk", "nngp"))
    inputs, targets = x[:16], 0.3 * y[:16]
    flow = GradientFlow.fit(ntk(inputs), targets, solver="eigh")
    # A fifteenth of the largest stable rate: descent follows the flow to a per cent.
    rate, steps = flow.n_train / flow.spectral_range()[1] / 15, (0, 15, 90)
    expected = ensemble_covariance(
        flow,
        ntk(x_test, inputs),
        rate * np.array(steps),
        nngp_test=nngp(x_test),
        nngp_test_train=nngp(x_test, inputs),
        nngp_train=nngp(inputs),
    )
    found = []
    for seed in range(count):
        model = ResNet(2, width, 16, **options, in_dim=3, rngs=nnx.Rngs(seed))
        parts = nnx.split(model, nnx.Param, ...)
        found.append(_trained_outputs(*parts, inputs, targets[:, None], rate, steps))
    # Outputs are independent of each other in the limit: members × outputs samples.
    samples = np.moveaxis(np.array(found, float), 3, 1).reshape(-1, len(steps), len(x_test))
    means = flow.predict(ntk(x_test, inputs), rate * np.array(steps))
    # Kernels of networks differ from the limit by 1/√width, covariances by 1/width.
    finite = 0.5 * np.max(expected[0]) / width
    for k in range(len(steps)):
        variances = np.diagonal(expected[k])
        errors = np.sqrt((np.outer(variances, variances) + expected[k] ** 2) / len(samples))
        assert np.all(np.abs(np.cov(samples[:, k].T) - expected[k]) < 4.5 * errors + finite)
        mean_errors = np.abs(samples[:, k].mean(axis=0) - means[k])
        assert np.all(mean_errors < 4.5 * np.sqrt((variances + finite) / len(samples)))
    # Training changes the law by far more than these errors.
    assert np.mean(np.diagonal(expected[-1]) / np.diagonal(expected[0])) < 0.7


# With landmarks.


def test_with_all_landmarks_both_covariances_are_those_of_the_whole_kernel():
    ntk, nngp = (gram.LowRank(kernel, x, x, tile_size=16) for kernel in (NTK, NNGP))
    flow = GradientFlow.fit(ntk, y)
    kernels = {**_nngp_kernels(), "nngp_train": nngp}
    found = ensemble_covariance(flow, NTK(x_test, x), TIMES, **kernels)
    whole = GradientFlow.fit(NTK(x), y, solver="eigh")
    np.testing.assert_allclose(found, _ensemble(whole), atol=1e-4 * np.max(kernels["nngp_test"]))
    k, prior = NNGP(x_test, x), kernels["nngp_test"]
    flows = (
        GradientFlow.fit(part, y, ridge=0.1, solver=solver)
        for part, solver in ((nngp, "auto"), (NNGP(x), "eigh"))
    )
    ours, theirs = (posterior_covariance(flow, k, prior) for flow in flows)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.max(prior))


def test_far_from_the_landmarks_the_variance_is_that_of_the_prior():
    """Landmarks along one axis say nothing of the other axes, and more points there nothing new."""
    inputs = np.concatenate([x[:20] * [1, 0.01, 0.01], x[20:]]).astype(np.float32)
    low_rank = gram.LowRank(NNGP, inputs, inputs[:5])
    flow = GradientFlow.fit(low_rank, y, ridge=0.01)
    prior = np.asarray(np.diag(NNGP(x_test)))
    found = posterior_covariance(flow, NNGP(x_test, inputs[:5]), prior)
    # Nothing is known of what is not in the span of the landmarks.
    k = [
        np.asarray(NNGP(*pair), float) for pair in ((x_test, inputs[:5]), (inputs[:5], inputs[:5]))
    ]
    outside = prior - np.einsum("ij,ji->i", k[0], np.linalg.pinv(k[1], rcond=1e-6) @ k[0].T)
    assert np.all(found > outside - 1e-4)
    assert np.all(found < prior)


# Errors.


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"t": [2.0, 1.0]}, ValueError, "t must not decrease"),
        ({"nngp_test": np.ones(3)}, ValueError, r"nngp_test must have shape \(n_test,\)"),
        ({"nngp_train": np.eye(3)}, ValueError, r"nngp_train must have shape \(40, 40\)"),
        ({"nngp_test_train": np.ones((12, 3))}, ValueError, "nngp_test_train must have shape"),
        ({"nngp_test": np.full(12, 1e-3)}, ValueError, "give a variance of -"),
        ({"nngp_test": np.full(12, np.nan)}, ValueError, "nngp_test must be finite"),
    ],
)
def test_kernels_that_do_not_belong_together_are_refused(flow, change, error, message):
    arguments = {"t": 1.0, **_nngp_kernels(), **change}
    with pytest.raises(error, match=message):
        ensemble_covariance(flow, NTK(x_test, x), **arguments)


def test_what_has_no_posterior_is_refused(flow, monkeypatch):
    with pytest.raises(ValueError, match="flow must be fitted with a ridge > 0"):
        posterior_covariance(flow, NNGP(x_test, x), np.ones(12))
    lanczos = GradientFlow.fit(NNGP(x), y, solver="lanczos", ridge=0.1)
    with pytest.raises(ValueError, match="posterior_covariance needs all eigenvalues"):
        posterior_covariance(lanczos, NNGP(x_test, x), np.ones(12))
    for noise, error in ((0.0, ValueError), (-1.0, ValueError), (1j, TypeError)):
        with pytest.raises(error, match="noise must"):
            log_marginal_likelihood(np.eye(2), np.ones(2), noise)
    monkeypatch.setattr(regression.uncertainty.memory, "available", lambda: 100)
    with pytest.raises(MemoryError, match="Pass the diagonal"):
        _ensemble(flow, full=True)


def test_landmarks_of_both_kernels_must_be_the_same():
    ntk, nngp = gram.LowRank(NTK, x, x[:9]), gram.LowRank(NNGP, x, x[1:10])
    flow = GradientFlow.fit(ntk, y)
    kernels = functools.partial(ensemble_covariance, flow, NTK(x_test, x[:9]), 1.0)
    options = {"nngp_test": np.ones(12), "nngp_test_train": NNGP(x_test, x[:9])}
    with pytest.raises(ValueError, match="landmarks of the kernel of flow"):
        kernels(**options, nngp_train=nngp)
    with pytest.raises(TypeError, match=r"nngp_train must be a gram\.LowRank"):
        kernels(**options, nngp_train=NNGP(x))
