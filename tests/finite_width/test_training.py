"""Training of finite networks: what is learned, kept, resumed and refused."""

import csv
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import linen, nnx
from helpers import run_python

from nt_residual import data, finite_width, regression, stax
from nt_residual.finite_width import training
from nt_residual.finite_width.learning_rate import largest_learning_rate
from nt_residual.finite_width.training import TrainingDiverged, train

RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 4)).astype("float32")
LABELS = (X[:, 0] > 0) + (X[:, 1] > 0).astype(int)
HELD_OUT = RNG.standard_normal((10, 4)).astype("float32")
VALIDATION = (HELD_OUT, (HELD_OUT[:, 0] > 0) + (HELD_OUT[:, 1] > 0).astype(int))
# One object each, so that programs are compiled once.
SGD, ADAM = optax.sgd(0.1), optax.adam(3e-3)
BATCHES = {"loss": "cross_entropy", "optimizer": ADAM, "batch_size": 8, "evaluate_every": 5}


def model(seed=0, **options):
    return finite_width.ResNet(2, 8, 3, in_dim=4, rngs=nnx.Rngs(seed), **options)


def weights(network):
    return jax.tree.leaves(nnx.state(network))


def assert_equal(a, b):
    for one, other in zip(weights(a), weights(b), strict=True):
        np.testing.assert_array_equal(one, other)


def test_classes_are_learned_and_frozen_layers_stay():
    before = model()
    found = train(before, X, LABELS, steps=60, validation=VALIDATION, **BATCHES)
    assert found.history["step"].tolist() == list(range(0, 61, 5))
    assert found.history["loss"][-1] < 0.8 * found.history["loss"][0]
    assert (found.steps, found.stopped) == (60, "steps")
    np.testing.assert_array_equal(found.network.first[...], before.first[...])
    np.testing.assert_array_equal(found.network.alphas[...], before.alphas[...])
    assert np.any(found.network.stage0_layer0[...] != before.stage0_layer0[...])
    assert_equal(before, model())

    outputs = nnx.jit(found.network)(HELD_OUT)
    log_likelihood = jax.nn.log_softmax(outputs)[np.arange(10), VALIDATION[1]]
    best = found.history["step"].tolist().index(found.best_step)
    error = found.history["validation_error"][best]
    assert f"best_step={found.best_step}, loss=" in repr(found)
    assert repr(found).endswith(f"validation_error={error:.3g}, stopped='steps')")
    assert found.history["validation_loss"][best] == pytest.approx(
        -float(log_likelihood.mean()), rel=1e-5
    )
    wrong = np.mean(np.argmax(outputs, axis=-1) != VALIDATION[1])
    assert found.history["validation_error"][best] == pytest.approx(wrong)


def test_a_step_is_that_of_gradient_descent_on_half_the_squared_norm(dtype):
    x, y = X.astype(dtype), data.centered_one_hot(LABELS, 3).astype(dtype)
    before = model(dtype=dtype)
    found = train(before, x, y, optimizer=SGD, steps=1, evaluate_every=1, validation=(x, y))

    @jax.jit
    @nnx.grad
    def gradient(m):
        return jnp.mean(jnp.sum((m(x) - y) ** 2, axis=-1)) / 2

    expected = jax.tree.map(
        lambda p, g: p - 0.1 * g, nnx.state(before, nnx.Param), gradient(before)
    )
    tolerance = {"rtol": 1e-10 if dtype == "float64" else 1e-4, "atol": 1e-6}
    for a, b in zip(
        jax.tree.leaves(nnx.state(found.network, nnx.Param)), jax.tree.leaves(expected), strict=True
    ):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, **tolerance)
    # One-hot targets are classes, of which the fraction that is wrong is told.
    assert set(found.history) == {"step", "loss", "validation_loss", "validation_error"}


LOSSES = {
    "mse": lambda f, y: optax.squared_error(f, y).mean(),
    "half_mse": lambda f, y: optax.l2_loss(f, y).mean(),
    "half_norm": lambda f, y: optax.l2_loss(f, y).sum(axis=-1).mean(),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_has_the_meaning_and_the_time_that_regression_gives_it(loss):
    y = np.sin(X @ np.ones((4, 10)) + np.arange(10)).astype("float32")
    network, steps, rate = ((lambda p, x: x @ p), jnp.zeros((4, 10))), 500, 0.02
    found = train(network, X, y, optimizer=training.gradient_descent(rate), steps=steps, loss=loss)
    outputs = X @ found.network[1]
    np.testing.assert_allclose(found.history["loss"][-1], LOSSES[loss](outputs, y), rtol=1e-5)
    flow = regression.GradientFlow.fit(X @ X.T, y)
    time = regression.time_of_steps(steps, rate, loss=loss, n_outputs=10)
    np.testing.assert_allclose(outputs, flow.predict(X @ X.T, time), atol=0.01)


def test_minibatches_depend_on_the_seed_and_evaluations_change_nothing():
    one, same, other = (
        train(model(), X, LABELS, steps=11, seed=seed, **{**BATCHES, "evaluate_every": every})
        for seed, every in ((0, 5), (0, 3), (1, 5))
    )
    assert_equal(one.network, same.network)
    assert np.any(one.network.stage0_layer0[...] != other.network.stage0_layer0[...])


def test_networks_of_linen_and_stax_and_any_loss_are_trained():
    class Linen(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(1)(x)

    def absolute(outputs, targets):
        return jnp.abs(outputs[:, 0] - targets)

    module = Linen()
    init_fn, apply_fn, _ = stax.FullyConnectedResNet(1, 8)
    networks = {
        "linen": (module.apply, jax.jit(module.init)(jax.random.key(0), X)),
        "stax": (apply_fn, jax.jit(lambda key: init_fn(key, X.shape)[1])(jax.random.key(0))),
    }
    for apply, params in networks.values():
        found = train((apply, params), X, X[:, 0], optimizer=SGD, steps=20, loss=absolute)
        assert found.network[0] is apply
        out = jax.jit(apply)(found.network[1], X)[:, 0]
        assert found.history["loss"][-1] == pytest.approx(np.abs(out - X[:, 0]).mean(), rel=1e-4)
        assert found.history["loss"][-1] < 0.95 * found.history["loss"][0]


@pytest.fixture
def interrupted(monkeypatch):
    """Makes the bar of the progress raise what Ctrl-C raises, at its third step forward."""

    class Bar(training.tqdm):
        updates = 0

        def update(self, n=1):
            self.updates += 1
            if self.updates == 4:
                raise KeyboardInterrupt
            super().update(n)

    monkeypatch.setattr(training, "tqdm", Bar)


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path, interrupted, monkeypatch):
    options = {"steps": 23, "validation": VALIDATION, **BATCHES}
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(model(), X, LABELS, checkpoint=folder, **options)
    monkeypatch.undo()
    # What was appended after the last whole state, as when the process is killed between.
    with (folder / "metrics.csv").open("a") as file:
        file.write("17,0.1")
    resumed = train(model(), X, LABELS, checkpoint=folder, **options)
    whole = train(model(), X, LABELS, **options)
    assert_equal(resumed.network, whole.network)
    assert (resumed.steps, resumed.best_step) == (whole.steps, whole.best_step)
    with (folder / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    for name, column in whole.history.items():
        np.testing.assert_array_equal(resumed.history[name], column)
        np.testing.assert_array_equal([float(row[name]) for row in table], column)


def test_a_run_that_ended_goes_on_with_more_steps(tmp_path):
    train(model(), X, LABELS, checkpoint=tmp_path / "run", steps=7, **BATCHES)
    longer = train(model(), X, LABELS, checkpoint=tmp_path / "run", steps=12, **BATCHES)
    assert longer.history["step"].tolist() == [0, 5, 7, 10, 12]
    assert_equal(longer.network, train(model(), X, LABELS, steps=12, **BATCHES).network)
    again = train(model(), X, LABELS, checkpoint=tmp_path / "run", steps=7, **BATCHES)
    assert again.steps == 12
    options = BATCHES | {"evaluate_every": None}
    every = train(model(), X, LABELS, checkpoint=tmp_path / "run", steps=14, **options)
    assert every.history["step"].tolist() == [0, 5, 7, 10, 12, 14]


def damage(state):
    for file in state.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_a_damaged_state_is_kept_and_the_one_before_it_is_taken(tmp_path):
    folder = tmp_path / "run"
    train(model(), X, LABELS, checkpoint=folder, steps=10, **BATCHES)
    damage(folder / "states" / "10")
    damaged = contents(folder / "states" / "10")
    with pytest.warns(UserWarning, match=r"state of step 10 in .* cannot be read, .* step 5"):
        again = train(model(), X, LABELS, checkpoint=folder, steps=10, **BATCHES)
    assert_equal(again.network, train(model(), X, LABELS, steps=10, **BATCHES).network)
    (kept,) = (folder / "unreadable").iterdir()
    assert kept.name.startswith("10-")
    assert contents(kept) == damaged
    # Neither has the damaged one pushed out a good one.
    assert {path.name for path in (folder / "states").iterdir()} == {"5", "10"}
    damage(folder / "states" / "5")
    more = train(model(), X, LABELS, checkpoint=folder, steps=12, **BATCHES)
    assert_equal(more.network, train(model(), X, LABELS, steps=12, **BATCHES).network)


def test_nothing_is_lost_while_no_state_can_be_read(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    options = {"checkpoint": folder, "steps": 10, **BATCHES}
    whole = train(model(), X, LABELS, **options)
    config = folder / "config.json"
    # The version that wrote it differs, which alone is no reason to refuse.
    config.write_text(config.read_text().replace(orbax.checkpoint.__version__, "0.0.1"))
    before = contents(folder)

    def fail(*arguments, **named):
        raise OSError("the disk is away")

    monkeypatch.setattr(orbax.checkpoint.CheckpointManager, "restore", fail)
    with pytest.raises(OSError, match=r"step 10, OSError: the.* step 5, .*orbax 0\.0\.1, this"):
        train(model(), X, LABELS, **options)
    monkeypatch.undo()
    assert contents(folder) == before
    assert_equal(train(model(), X, LABELS, **options).network, whole.network)


def test_modules_that_keep_keys_are_saved(tmp_path):
    class Keeping(finite_width.ResNet):
        def __init__(self):
            super().__init__(2, 8, 3, in_dim=4, rngs=nnx.Rngs(0))
            self.rngs = nnx.Rngs(1)

    found = train(Keeping(), X, LABELS, checkpoint=tmp_path / "run", steps=5, **BATCHES)
    assert found.steps == 5


def test_losses_are_summed_in_float32():
    def apply(params, x):
        return jnp.float16(300) + params * x[:, :1].astype("float16")

    zero = jnp.zeros((), "float16")
    found = train((apply, zero), X, np.zeros(24), optimizer=optax.sgd(0.0), steps=1)
    np.testing.assert_allclose(found.history["loss"], 45_000, rtol=1e-5)


def test_the_folder_of_another_run_is_refused_by_what_differs(tmp_path):
    folder = tmp_path / "run"
    rate = optax.inject_hyperparams(optax.adam)(3e-3)  # Which is a part of its state.
    train(model(), X, LABELS, checkpoint=folder, steps=5, **BATCHES | {"optimizer": rate})
    others = {
        "the initial parameters": {"network": model(1)},
        "the network": {"network": model(normalize_blocks=True)},
        "x": {"x": X + 1},
        "y": {"y": (LABELS + 1) % 3},
        "validation": {"validation": VALIDATION},
        "the optimizer": {"optimizer": optax.inject_hyperparams(optax.adam)(1e-3)},
        "seed": {"seed": 1},
        "batch_size": {"batch_size": 12},
    }
    for name, other in others.items():
        arguments = {"network": model(), "x": X, "y": LABELS, "steps": 5, **BATCHES}
        arguments |= {"optimizer": rate} | other
        with pytest.raises(ValueError, match=rf"differs in {name} \(there [^,]*, now [^,]*\)\. P"):
            train(checkpoint=folder, **arguments)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="Pass another folder"):
        train(model(), X, LABELS, checkpoint=tmp_path, steps=5, **BATCHES)


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_network(tmp_path):
    def loss(outputs, targets):
        # Not finite from the eighth step on, which does not depend on rounding.
        return outputs[:, 0] - targets

    def update(gradient, count, params=None):
        bad = jnp.where(count >= 7, jnp.nan, 0.01)
        return jax.tree.map(lambda g: bad * g, gradient), count + 1

    optimizer = optax.GradientTransformation(lambda _: jnp.int32(0), update)
    options = {"optimizer": optimizer, "loss": loss, "evaluate_every": 5}
    with pytest.raises(TrainingDiverged, match=r"not finite at step 8.*step 5") as caught:
        train(model(), X, X[:, 0], steps=30, checkpoint=tmp_path / "run", **options)
    assert caught.value.step == 8
    result = caught.value.result
    assert (result.steps, result.stopped) == (5, "diverged")
    assert result.history["step"].tolist() == [0, 5]
    assert_equal(result.network, train(model(), X, X[:, 0], steps=5, **options).network)
    saved = train(model(), X, X[:, 0], steps=5, checkpoint=tmp_path / "run", **options)
    assert_equal(result.network, saved.network)


def test_early_stopping_waits_and_returns_the_best_parameters():
    # The bias goes down by one in each step: validation is best where it passes 3.
    def apply(params, x):
        return x[:, :1] * 0 + params

    def loss(outputs, targets):
        return jnp.where(targets > 0, (outputs[:, 0] + 3.2) ** 2, outputs[:, 0])

    x = X[:, :1]
    options = {"optimizer": optax.sgd(1.0), "loss": loss, "evaluate_every": 1}
    validation = (x, np.ones(len(x), "float32"))
    zeros = np.zeros(len(x), "float32")
    found = train(
        (apply, jnp.zeros(1)), x, zeros, steps=50, patience=2, validation=validation, **options
    )
    assert (found.steps, found.best_step, found.stopped) == (5, 3, "patience")
    assert found.network[1] == pytest.approx(-3, rel=1e-5)


def test_a_run_does_not_depend_on_the_number_of_devices(tmp_path):
    code = """
import os, sys
os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
import nt_residual
import jax, numpy as np, optax
from flax import nnx
from jax.sharding import AxisType
from nt_residual.finite_width import ResNet
from nt_residual.finite_width.training import train
rng = np.random.default_rng(0)
x, y = rng.standard_normal((16, 4)).astype("float32"), rng.standard_normal((16, 1))
optimizer = optax.sgd(0.01, momentum=0.9)

def run(devices, steps, size, **options):
    mesh = None
    if devices:
        axis_types = (AxisType.Auto,)
        mesh = jax.make_mesh((devices,), ("data",), axis_types, devices=jax.devices()[:devices])
    return train(
        ResNet(1, 4, in_dim=4, rngs=nnx.Rngs(0)), x, y, optimizer=optimizer, steps=steps,
        batch_size=size, mesh=mesh, validation=(x[:5], y[:5]), evaluate_every=2, **options
    )

def assert_close(one, other):
    for a, b in zip(jax.tree.leaves(one.network), jax.tree.leaves(other.network), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for name in one.history:
        np.testing.assert_allclose(one.history[name], other.history[name], rtol=1e-5)

# On 8 devices first, without a mesh in the end.
for size, meshes in (None, (8, 4, None)), (8, (8, None)):
    folder, steps = f"{sys.argv[1]}/{size}", 0
    for devices in meshes:
        steps += 2
        resumed = run(devices, steps, size, checkpoint=folder)
        assert len(resumed.network.stage0_layer0[...].devices()) == (devices or 1)
    assert_close(run(None, steps, size), resumed)
try:
    run(8, 2, 3)
except ValueError as error:
    print(error)
"""
    ran = run_python(code, str(tmp_path), devices=8)
    assert ran.returncode == 0, ran.stderr
    assert "divides the 3 inputs of a batch, got 8. Take 8 inputs" in ran.stdout


@pytest.mark.usefixtures("x64")
def test_the_largest_learning_rate_is_that_of_the_jacobian():
    x = X.astype("float64")
    network = model(dtype="float64")
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    outputs = jax.jit(jax.jacobian(lambda p: nnx.merge(graph, p, rest)(x)))(params)
    flat = np.concatenate([j.reshape(72, -1) for j in jax.tree.leaves(outputs)], axis=1)
    expected = 2 * 24 / np.linalg.eigvalsh(flat @ flat.T)[-1]
    assert largest_learning_rate(network, x) == pytest.approx(expected, rel=2e-3)
    assert largest_learning_rate(np.diag([1.0, 4.0])) == 1.0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_largest_learning_rate_is_in_the_units_of_the_network(scale):
    found = largest_learning_rate((lambda p, x: scale * (x @ p), jnp.ones((4, 1))), X)
    assert found * scale**2 == pytest.approx(48 / np.linalg.eigvalsh(X @ X.T)[-1], rel=1e-3)


def test_past_the_largest_learning_rate_training_is_refused():
    y = data.centered_one_hot(LABELS, 3)
    bound = largest_learning_rate(model(), X)
    for rate in (1.01 * bound, 1e6):
        with pytest.raises(ValueError, match=f"must be below 2n/λ_max = {bound:.4g}"):
            train(model(), X, y, learning_rate=rate, steps=5)
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="learning_rate must be positive and finite"):
            train(model(), X, y, learning_rate=rate, steps=5)
    with pytest.raises(TypeError, match=r"optax.sgd\(learning_rate\)"):
        train(model(), X, LABELS, learning_rate=0.1, loss="cross_entropy", steps=5)


def test_what_cannot_be_trained_on_is_refused():
    attempt = functools.partial(train, model(), X, LABELS, **{**BATCHES, "steps": 5})
    for other, error, message in (
        ({"loss": "hinge"}, ValueError, "loss must be 'mse', 'half_mse', 'half_norm' or 'cross"),
        ({"loss": "half_norm"}, ValueError, r"centered_one_hot\(labels, 3\)"),
        ({"optimizer": None}, TypeError, "either optimizer"),
        ({"optimizer": 0.1}, TypeError, "one of optax"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"steps": None}, TypeError, "steps must be an integer"),
        ({"steps": True}, TypeError, "steps must be an integer, got True"),
        ({"seed": "0"}, TypeError, "seed must be an integer, got '0'"),
        ({"evaluate_every": 2.0}, TypeError, "evaluate_every must be an integer, got 2.0"),
        ({"batch_size": True}, TypeError, "batch_size must be an integer, got True"),
        ({"batch_size": 25}, ValueError, "at most the number of inputs, 24"),
        ({"patience": 3}, TypeError, "patience needs validation"),
        ({"validation": (HELD_OUT, LABELS)}, ValueError, "validation y must hold labels"),
        ({"validation": (HELD_OUT + np.inf, VALIDATION[1])}, ValueError, "must be finite"),
        ({"mesh": "data"}, TypeError, "jax.sharding.Mesh"),
        ({"loss": lambda f, y: f - y[:, None]}, ValueError, r"shape \(24,\), got shape \(24, 3\)"),
    ):
        with pytest.raises(error, match=message):
            attempt(**other)
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        train(model(), X, LABELS + 1, steps=5, **BATCHES)
    with pytest.raises(TypeError, match="integer labels"):
        train(model(), X, LABELS / 2, steps=5, **BATCHES)
