"""Networks of many depths and α, measurements on them, and the folder of a sweep."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import full

from nt_residual import data
from nt_residual.experiments import depth_sweep, finite_networks, trained_network
from nt_residual.experiments.depth_table import DepthRun, DepthSweep
from nt_residual.finite_width import ResNet

OPTIONS = {"width": 8, "steps": 40, "batch_size": 4, "n_seeds": 2, "rate": 0.2, "depths": (2,)}


@functools.cache
def few_images(n_train=10):
    digits = data.load("digits", 6 * n_train)
    train = np.flatnonzero(digits.y_train < 2)[:n_train]
    test = np.flatnonzero(digits.y_test < 2)[:8]
    return data.Dataset(
        digits.x_train[train], digits.y_train[train], digits.x_test[test], digits.y_test[test]
    )


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A folder of four networks; one was there before, one is damaged and then deleted."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    depth_sweep.run(few_images(), gammas=(0.0,), out=out, **OPTIONS | {"n_seeds": 1})
    (there,) = (out / "runs").iterdir()
    there.write_text(json.dumps(json.loads(there.read_text("utf-8")) | {"ntk_drift": 0.123}))
    return out, depth_sweep.run(few_images(), gammas=(0.0, 1.0), out=out, **OPTIONS)


def test_rows_are_means_over_seeds(interrupted):
    out, found = interrupted
    assert [(row.gamma, row.depth) for row in found.rows] == [(0, 2), (1, 2)]
    for row in found.rows:
        runs = found.of(row.gamma, row.depth)
        assert [run.seed for run in runs] == [0, 1]
        drifts = [run.ntk_drift for run in runs]
        np.testing.assert_allclose(row.ntk_drift, np.mean(drifts))
        np.testing.assert_allclose(row.ntk_drift_se, abs(drifts[0] - drifts[1]) / 2)
        assert (row.networks, row.diverged) == (2, 0)
        np.testing.assert_allclose(np.mean(np.square(runs[0].gradient_norms)), 1, rtol=1e-5)
    trained, *text = found.table().splitlines()
    assert "Only the blocks are trained; the first and the last layer are fixed" in trained
    assert len({len(line) for line in text}) == 1
    assert [len(axes.get_legend().get_texts()) for axes in found.plot().axes] == [2, 2, 2]
    assert len((out / "table.csv").read_text("utf-8").splitlines()) == 3


@pytest.mark.full
def test_convolutional_networks_learn_two_digits_too():
    options = {**OPTIONS, "steps": 120, "gammas": [0.5], "architecture": "conv"}
    (row,) = depth_sweep.run(few_images(40), **options).rows
    assert row.train_loss < 0.1
    assert row.test_error <= 1 / 8


def test_networks_learn_two_digits_at_the_rate_of_their_own_ntk(interrupted):
    for run in interrupted[1].runs:
        # The loss of zero outputs is ½ |y|² = 1/4.
        assert run.train_loss < 0.15
        assert run.test_error <= 1 / 8
    rates = {run.gamma: run.learning_rate for run in interrupted[1].runs}
    # Σ α²/(1 + α²) is 2/5 for γ = 1; for γ = 0 it is 1.
    assert rates[1] > 1.5 * rates[0]


def test_finished_networks_of_the_same_configuration_are_kept(interrupted):
    out, found = interrupted
    assert found.runs[0].ntk_drift == 0.123
    assert depth_sweep.run(few_images(), gammas=(0.0, 1.0), out=out, **OPTIONS) == found
    with pytest.raises(ValueError, match=r"differs in momentum \(there 0.9, now 0.5\)"):
        depth_sweep.run(few_images(), momentum=0.5, out=out, **OPTIONS)
    other = few_images()._replace(y_test=few_images().y_test[::-1].copy())
    with pytest.raises(ValueError, match="differs in dataset"):
        depth_sweep.run(other, out=out, **OPTIONS)


def test_a_damaged_file_is_named_with_the_remedy_and_kept(interrupted, tmp_path):
    out, found = interrupted
    file = sorted((out / "runs").iterdir())[-1]
    whole = file.read_text("utf-8")
    file.write_text(whole[:30], "utf-8")
    with pytest.raises(ValueError, match=r"seed 1\.json must hold .* Delete the file and run"):
        depth_sweep.run(few_images(), gammas=(0.0, 1.0), out=out, **OPTIONS)
    assert file.read_text("utf-8") == whole[:30]
    file.unlink()
    assert depth_sweep.run(few_images(), gammas=(0.0, 1.0), out=out, **OPTIONS) == found
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="out must be a new folder"):
        depth_sweep.run(few_images(), out=tmp_path, **OPTIONS)


X, Y = (np.random.default_rng(0).standard_normal((6, n)).astype(np.float32) for n in (5, 2))


@pytest.mark.parametrize("mirrored", [True, *full(False)])
def test_a_network_is_measured_as_by_plain_gradient_descent_with_momentum(mirrored):
    model = ResNet(3, 8, 2, in_dim=5, mirrored=mirrored, rngs=nnx.Rngs(0))
    options = {"rate": 0.1, "momentum": 0.5, "steps": 3, "batch_size": 6, "seed": 0}
    labels = np.argmax(Y, axis=1)
    found = trained_network.measure(model, (X, Y), (X, 2 * Y), (X, labels), **options)
    graph, start, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def outputs(params):
        return nnx.merge(graph, params, rest)(X)

    def loss(params, y=Y):
        return jnp.mean(jnp.sum((outputs(params) - y) ** 2, axis=1)) / 2

    def ntk(params):
        leaves = jax.tree.leaves(jax.jit(jax.jacobian(outputs))(params))
        flat = np.concatenate([leaf.reshape(6, 2, -1) for leaf in leaves], axis=-1)
        return flat, np.einsum("aop,bop->ab", flat, flat) / 2

    gradient, (flat, before) = jax.jit(jax.grad(loss)), ntk(start)
    largest = np.linalg.eigvalsh(flat.reshape(12, -1) @ flat.reshape(12, -1).T)[-1]
    assert found["learning_rate"] == pytest.approx(0.1 * 2 * 6 / largest, rel=1e-3)
    blocks = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient(start))]
    blocks = blocks if mirrored else [leaf[None] for leaf in blocks]
    norms = np.sqrt([sum(np.sum(leaf[:, i] ** 2) for leaf in blocks) for i in range(3)])
    np.testing.assert_allclose(found["gradient_norms"], norms / np.sqrt(np.mean(norms**2)), 1e-4)

    params, velocity = start, jax.tree.map(jnp.zeros_like, start)
    for _ in range(3):
        velocity = jax.tree.map(lambda v, g: 0.5 * v + g, velocity, gradient(params))
        params = jax.tree.map(lambda p, v: p - found["learning_rate"] * v, params, velocity)
    assert found["best_step"] == 3
    assert found["train_loss"] == pytest.approx(float(loss(params)), rel=1e-4)
    assert found["validation_loss"] == pytest.approx(float(loss(params, 2 * Y)), rel=1e-4)
    drift = np.linalg.norm(ntk(params)[1] - before) / np.linalg.norm(before)
    assert found["ntk_drift"] == pytest.approx(drift, rel=1e-3)
    assert found["test_error"] == np.mean(np.argmax(outputs(params), axis=1) != labels)


def test_diverged_networks_are_counted_and_kept(tmp_path):
    # Without normalization outputs of 300 blocks of α = 1 leave float32.
    arguments = {**OPTIONS, "gammas": (0.0,), "depths": (300,), "out": tmp_path / "sweep"}
    first = depth_sweep.run(few_images(), normalize_blocks=False, **arguments)
    found = depth_sweep.run(few_images(), normalize_blocks=False, **arguments)
    assert [run.diverged for run in found.runs] == [True, True]
    assert math.isnan(first.rows[0].test_error)
    assert math.isnan(found.rows[0].test_error)
    assert "2 of 2" in found.table()
    found.plot()


def test_diverged_networks_do_not_count_in_means():
    good = {"test_error": 0.25, "ntk_drift": 0.5, "gradient_norms": (1.2, 0.75)}
    runs = [DepthRun(0.5, 2, 0, **good), DepthRun(0.5, 2, 1, diverged=True)]
    (row,) = DepthSweep(runs).rows
    assert (row.test_error, row.ntk_drift, row.networks, row.diverged) == (0.25, 0.5, 2, 1)
    assert row.gradient_ratio == pytest.approx(1.6)


def test_finite_networks_are_judged_by_their_errors():
    pairs = [(0.0, 4), (0.0, 64), (1.0, 4), (1.0, 64)]
    for errors, agrees in (([0.05, 0.5, 0.05, 0.05], True), ([0.05, 0.055, 0.05, 0.3], False)):
        runs = [DepthRun(*p, 0, test_error=e) for p, e in zip(pairs, errors, strict=True)]
        findings = finite_networks.findings(DepthSweep(runs))
        assert [finding.agrees for finding in findings] == [agrees] * 2


FLAT = few_images().x_train.reshape(10, -1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"gammas": []}, ValueError, "gammas and depths must not be empty"),
        ({"gammas": [-1.0]}, ValueError, "gamma must be ≥ 0 and finite"),
        ({"rate": 1.0}, ValueError, "rate must be less than 1"),
        ({"batch_size": 1000}, ValueError, "batch_size must be at most"),
        ({"y_test": np.zeros(8)}, TypeError, "dataset must have one integer label"),
        ({"y_train": np.zeros(10, int)}, ValueError, "at least two classes"),
        ({"x_train": FLAT, "architecture": "conv"}, ValueError, "images of shape"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    of_data = change.keys() & set(data.Dataset._fields)
    images = few_images()._replace(**{name: change[name] for name in of_data})
    options = {name: value for name, value in change.items() if name not in of_data}
    with pytest.raises(error, match=message):
        depth_sweep.run(images, **{"gammas": [0.5], **OPTIONS, **options})
