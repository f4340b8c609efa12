"""Networks of many depths and α, what is measured of them, and the folder of a sweep."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nt_residual import data
from nt_residual.experiments import depth_sweep, trained_network
from nt_residual.experiments.depth_table import DepthRun, DepthSweep
from nt_residual.finite_width import ResNet
from nt_residual.finite_width.networks import as_network

OPTIONS = {"width": 8, "steps": 3, "batch_size": 4, "seeds": 2, "rate": 0.5}


@functools.cache
def few_images():
    digits = data.load("digits", 60)
    train, test = np.flatnonzero(digits.y_train < 2)[:10], np.flatnonzero(digits.y_test < 2)[:8]
    return data.Dataset(
        digits.x_train[train], digits.y_train[train], digits.x_test[test], digits.y_test[test]
    )


@functools.cache
def small_sweep():
    return depth_sweep.run(few_images(), gammas=(0.0, 1.0), depths=(2,), **OPTIONS)


def network(x, *arguments, **options):
    return as_network(ResNet(*arguments, rngs=nnx.Rngs(0), **options), x)


def test_rows_are_complete_and_means_over_seeds():
    found = small_sweep()
    assert [(row.gamma, row.depth) for row in found.rows] == [(0, 2), (1, 2)]
    for row in found.rows:
        runs = [run for run in found.runs if (run.gamma, run.depth) == (row.gamma, row.depth)]
        assert [run.seed for run in runs] == [0, 1]
        errors = np.array([run.test_error for run in runs])
        np.testing.assert_allclose(row.test_error, errors.mean())
        np.testing.assert_allclose(row.test_error_se, abs(errors[0] - errors[1]) / 2, atol=1e-12)
        drifts = [run.ntk_drift for run in runs]
        np.testing.assert_allclose(row.ntk_drift_se, abs(drifts[0] - drifts[1]) / 2)
        assert (row.runs, row.diverged, len(row.gradient_norms)) == (2, 0, row.depth)
        np.testing.assert_allclose(np.mean(np.square(runs[0].gradient_norms)), 1, rtol=1e-5)
    trained, *text = found.table().splitlines()
    assert "blocks are trained, the first and the last layer are not" in trained
    best = min(100 * row.test_error for row in found.rows)
    assert repr(found).startswith(f"DepthSweep(4 runs, 0 diverged, least test error {best:.1f} ±")
    assert len(text) == 4
    assert len({len(line) for line in text}) == 1
    figure = found.plot()
    assert [len(axes.get_legend().get_texts()) for axes in figure.axes] == [2, 2, 2]


def test_the_learning_rate_follows_the_scale_of_the_ntk():
    rates = {(run.gamma, run.depth): run.learning_rate for run in small_sweep().runs}
    # Σ α²/(1 + α²) is 2/5 for γ = 1; for γ = 0 it is 1.
    assert rates[1, 2] > 1.5 * rates[0, 2]


def test_a_step_without_length_leaves_the_ntk():
    found = depth_sweep.run(few_images(), gammas=[0.5], depths=[2], **OPTIONS | {"rate": 1e-12})
    assert all(run.ntk_drift < 1e-5 for run in found.runs)
    assert all(run.ntk_drift > 1e-3 for run in small_sweep().runs if run.best_step)


def test_convolutional_networks_are_swept_too():
    found = depth_sweep.run(
        few_images(), gammas=[0.5], depths=[2], architecture="conv", **OPTIONS | {"seeds": 1}
    )
    (row,) = found.rows
    assert 0 <= row.test_error <= 1
    assert math.isnan(row.test_error_se)
    assert len(row.gradient_norms) == 2


@pytest.mark.parametrize("mirrored", [False, True])
def test_gradient_norms_are_those_of_jax_grad(mirrored):
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.standard_normal((6, 5))), jnp.asarray(rng.standard_normal((6, 2)))
    net = network(x, 3, 8, 2, in_dim=5, mirrored=mirrored)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    @jax.grad
    def gradient_of(params):
        return jnp.mean(jnp.sum((net(params, x) - y) ** 2, axis=1)) / 2

    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient_of(net.params))]
    leaves = leaves if mirrored else [leaf[None] for leaf in leaves]
    assert len(leaves) == 2
    norms = np.sqrt([sum(np.sum(leaf[:, i] ** 2) for leaf in leaves) for i in range(3)])
    found = trained_network.gradient_norms(net, x, y, axis=int(mirrored))
    np.testing.assert_allclose(found, norms / np.sqrt(np.mean(norms**2)), rtol=1e-4)


def test_the_measured_ntk_is_the_mean_over_outputs():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5)), jnp.float32)
    net = network(x, 2, 4, 2, in_dim=5)
    jacobian_of = jax.jit(
        jax.jacobian(lambda params: net(params, x)),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    leaves = jax.tree.leaves(jacobian_of(net.params))
    flat = np.concatenate([leaf.reshape(3, 2, -1) for leaf in leaves], axis=-1)
    expected = np.einsum("aop,bop->ab", flat, flat) / 2
    np.testing.assert_allclose(trained_network.mean_ntk(net, x), expected, rtol=1e-4, atol=1e-5)


def test_a_sweep_that_was_interrupted_goes_on(tmp_path):
    arguments = {"gammas": (0.0, 1.0), "depths": (2,), "out": tmp_path / "sweep", **OPTIONS}
    depth_sweep.run(few_images(), **arguments | {"gammas": (0.0,)})
    runs = tmp_path / "sweep" / "runs.jsonl"
    lines = runs.read_text("utf-8").splitlines(keepends=True)
    assert len(lines) == 2
    kept = json.loads(lines[0]) | {"test_error": 0.123}
    # As a kill in the middle of the second line leaves it.
    runs.write_text(json.dumps(kept) + "\n" + lines[1][:30], "utf-8")

    found = depth_sweep.run(few_images(), **arguments)
    expected = small_sweep().runs
    # The first was not done again, the others are as without an interruption.
    assert found.runs[0].test_error == 0.123
    assert found.runs[1:] == expected[1:]
    assert len(runs.read_text("utf-8").splitlines()) == 4

    again = depth_sweep.run(few_images(), **arguments)
    assert again == found
    table = (tmp_path / "sweep" / "table.csv").read_text("utf-8").splitlines()
    assert table[0].startswith("gamma,depth,test_error,test_error_se")
    assert len(table) == 3
    # Damage elsewhere is no kill, and what is damaged is not deleted.
    damaged = "{" + runs.read_text("utf-8")
    runs.write_text(damaged, "utf-8")
    with pytest.raises(ValueError, match=r"line 1 of .*runs.jsonl must be a run as JSON"):
        depth_sweep.run(few_images(), **arguments)
    assert runs.read_text("utf-8") == damaged


def test_a_folder_of_something_else_is_refused(tmp_path):
    arguments = {"gammas": (0.0,), "depths": (2,), **OPTIONS, "seeds": 1}
    depth_sweep.run(few_images(), **arguments, out=tmp_path / "sweep")
    with pytest.raises(ValueError, match=r"differs in momentum \(there 0.9, now 0.5\)"):
        depth_sweep.run(few_images(), **arguments, momentum=0.5, out=tmp_path / "sweep")
    other = few_images()._replace(y_test=few_images().y_test[::-1].copy())
    with pytest.raises(ValueError, match="differs in dataset"):
        depth_sweep.run(other, **arguments, out=tmp_path / "sweep")
    (tmp_path / "sweep" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json must hold .* as JSON, but cannot be read"):
        depth_sweep.run(few_images(), **arguments, out=tmp_path / "sweep")
    with pytest.raises(FileExistsError, match="out must be a new folder"):
        depth_sweep.run(few_images(), **arguments, out=tmp_path)


def test_diverged_runs_are_counted_and_kept(tmp_path):
    # Without normalization outputs of 300 blocks of α = 1 leave float32.
    arguments = {"gammas": (0.0,), "depths": (300,), "out": tmp_path / "sweep", **OPTIONS}
    (row,) = depth_sweep.run(few_images(), normalize_blocks=False, **arguments).rows
    assert (row.runs, row.diverged) == (2, 2)
    assert math.isnan(row.test_error)
    found = depth_sweep.run(few_images(), normalize_blocks=False, **arguments)
    assert [run.diverged for run in found.runs] == [True, True]
    assert math.isnan(found.runs[0].test_error)
    assert "2 of 2" in found.table()
    assert repr(found) == "DepthSweep(2 runs, 2 diverged)"
    found.plot()


def test_diverged_runs_do_not_count_in_means():
    good = {"test_error": 0.25, "ntk_drift": 0.5, "gradient_norms": (1.2, 0.75)}
    runs = [DepthRun(0.5, 2, 0, **good), DepthRun(0.5, 2, 1, diverged=True)]
    (row,) = DepthSweep(runs).rows
    assert (row.test_error, row.ntk_drift, row.runs, row.diverged) == (0.25, 0.5, 2, 1)
    assert row.gradient_ratio == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"gammas": []}, ValueError, "gammas and depths must not be empty"),
        ({"gammas": [-1.0]}, ValueError, "gamma must be finite and ≥ 0"),
        ({"depths": [0]}, ValueError, "depths must be at least 1"),
        ({"seeds": 0}, ValueError, "seeds must be at least 1"),
        ({"rate": 1.0}, ValueError, "rate must be less than 1"),
        ({"rate": 0.0}, ValueError, "rate must be positive"),
        ({"seeds": True}, TypeError, "seeds must be an integer, got True"),
        ({"rate": True}, TypeError, "rate must be a real number, got True"),
        ({"steps": 2.5}, TypeError, "steps must be an integer"),
        ({"batch_size": 1000}, ValueError, "batch_size must be at most"),
        ({"validation_fraction": 0.01}, ValueError, "validation_fraction must leave"),
        ({"architecture": "cnn"}, ValueError, "architecture must be 'fc' or 'conv'"),
        (
            {"depths": [1000], "width": 100_000},
            MemoryError,
            "parameters of a network of 1000 blocks",
        ),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        depth_sweep.run(few_images(), **{"gammas": [0.5], "depths": [2], **OPTIONS, **change})


def test_data_that_cannot_be_classified_is_refused():
    some = few_images()
    with pytest.raises(TypeError, match="dataset must have one integer label"):
        depth_sweep.run(some._replace(y_test=some.y_test.astype(float)), **OPTIONS)
    with pytest.raises(ValueError, match="at least two classes"):
        depth_sweep.run(some._replace(y_train=np.zeros_like(some.y_train)), **OPTIONS)
    flat = some._replace(x_train=some.x_train.reshape(len(some.x_train), -1))
    with pytest.raises(ValueError, match="images of shape"):
        depth_sweep.run(flat, architecture="conv", **OPTIONS)
