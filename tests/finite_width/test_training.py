"""Training of finite networks: learning, early stopping, resuming and errors."""

import functools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import mainly, run_python

from nt_residual import data, finite_width, regression
from nt_residual.finite_width import losses
from nt_residual.finite_width.learning_rate import largest_learning_rate
from nt_residual.finite_width.networks import as_network
from nt_residual.finite_width.training import TrainingDiverged, train
from nt_residual.finite_width.training_programs import Program

RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 4)).astype("float32")
LABELS = (X[:, 0] > 0) + (X[:, 1] > 0).astype(int)
X_TEST = RNG.standard_normal((10, 4)).astype("float32")
VALIDATION = (X_TEST, (X_TEST[:, 0] > 0) + (X_TEST[:, 1] > 0).astype(int))
MESH = jax.make_mesh((8,), ("data",))
# One object each, so that programs are compiled once.
SGD, ADAM = optax.sgd(0.1), optax.adam(3e-3)
BATCHES = {"loss": "cross_entropy", "optimizer": ADAM, "batch_size": 8, "evaluate_every": 5}
RUN = BATCHES | {"validation": VALIDATION}


def model(seed=0, **options):
    return finite_width.ResNet(2, 8, 3, in_dim=4, rngs=nnx.Rngs(seed), **options)


def assert_equal(a, b):
    for one, other in zip(*(jax.tree.leaves(nnx.state(m)) for m in (a, b)), strict=True):
        np.testing.assert_array_equal(one, other)


def linear(params, x):
    return x @ params


def test_classes_are_learned_and_frozen_layers_stay():
    before = model()
    found = train(before, X, LABELS, steps=60, **RUN)
    assert found.history["step"].tolist() == list(range(0, 61, 5))
    assert found.history["loss"][-1] < 0.8 * found.history["loss"][0]
    np.testing.assert_array_equal(found.network.first[...], before.first[...])
    np.testing.assert_array_equal(found.network.alphas[...], before.alphas[...])
    assert np.any(found.network.stage0_layer0[...] != before.stage0_layer0[...])
    assert_equal(before, model())

    outputs = np.asarray(nnx.jit(found.network)(X_TEST))
    best = found.history["step"].tolist().index(found.best_step)
    error = found.history["validation_error"][best]
    assert error == pytest.approx(np.mean(outputs.argmax(axis=-1) != VALIDATION[1]))
    likelihood = np.exp(outputs)[np.arange(10), VALIDATION[1]] / np.exp(outputs).sum(axis=-1)
    loss = found.history["validation_loss"]
    assert loss[best] == loss.min() == pytest.approx(-np.log(likelihood).mean(), rel=1e-5)
    assert repr(found) == f"Trained(steps=60, best_step={found.best_step}, stopped='steps')"


@mainly("float64")
def test_a_step_is_one_of_gradient_descent_on_half_the_squared_norm(dtype):
    x, y = X.astype(dtype), data.centered_one_hot(LABELS, 3).astype(dtype)
    before = model(dtype=dtype)
    found = train(before, x, y, optimizer=SGD, steps=1)

    @jax.jit
    @nnx.grad
    def gradient(m):
        return jnp.mean(jnp.sum((m(x) - y) ** 2, axis=-1)) / 2

    params = nnx.state(before, nnx.Param)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient(before))
    got = jax.tree.leaves(nnx.state(found.network, nnx.Param))
    for a, b in zip(got, jax.tree.leaves(expected), strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=1e-10 if dtype == "float64" else 1e-4, atol=1e-6)


LOSSES = {
    "mse": lambda f, y: optax.squared_error(f, y).mean(),
    "half_mse": lambda f, y: optax.l2_loss(f, y).mean(),
    "half_norm": lambda f, y: optax.l2_loss(f, y).sum(axis=-1).mean(),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_has_the_meaning_and_the_time_that_regression_gives_it(loss):
    y = np.sin(X @ np.ones((4, 10)) + np.arange(10)).astype("float32")
    steps, rate = 500, 0.02
    network = linear, jnp.zeros((4, 10))
    found = train(network, X, y, optimizer=optax.sgd(rate), steps=steps, loss=loss)
    outputs = X @ found.network[1]
    np.testing.assert_allclose(found.history["loss"][-1], LOSSES[loss](outputs, y), rtol=1e-5)
    flow = regression.GradientFlow.fit(X @ X.T, y)
    time = regression.time_of_steps(steps, rate, loss=loss, n_outputs=10)
    np.testing.assert_allclose(outputs, flow.predict(X @ X.T, time), atol=0.01)


def test_batches_depend_on_the_seed_and_evaluations_change_nothing():
    one, same, other = (
        train(model(), X, LABELS, steps=11, seed=seed, **BATCHES | {"evaluate_every": every})
        for seed, every in ((0, 5), (0, 3), (1, 5))
    )
    assert_equal(one.network, same.network)
    assert np.any(one.network.stage0_layer0[...] != other.network.stage0_layer0[...])


def test_a_run_goes_on_with_more_steps(tmp_path):
    train(model(), X, LABELS, out=tmp_path, steps=13, **RUN)
    longer = train(model(), X, LABELS, out=tmp_path, steps=17, **RUN)
    assert longer.history["step"].tolist() == [0, 5, 10, 13, 15, 17]
    whole = train(model(), X, LABELS, steps=17, **RUN)
    assert_equal(longer.network, whole.network)
    assert longer.best_step == whole.best_step


PROBLEM = """
import numpy as np, optax
x = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
problem = ((lambda p, x: x @ p), np.ones((3, 1), "float32")), x, x[:, :1] ** 2
options = {"optimizer": optax.adam(0.1), "batch_size": 4, "evaluate_every": 3, "steps": 12}
"""
# Orbax gives a state its name in one step, before which the process is killed.
DIE_AT_STEP_9 = """
import os, signal, sys
import nt_residual
from nt_residual.finite_width.training import train

def rename(old, new, *arguments, **named):
    if "9" in os.path.basename(new):
        os.kill(os.getpid(), signal.SIGKILL)
    return os_rename(old, new, *arguments, **named)

os_rename, os.rename, os.replace = os.rename, rename, rename
train(*problem, **options, out=sys.argv[1])
"""


def test_a_run_killed_while_it_saves_resumes_to_the_same_result(tmp_path):
    killed = run_python(PROBLEM + DIE_AT_STEP_9, str(tmp_path))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "6" in {path.name for path in (tmp_path / "states").iterdir()}
    exec(PROBLEM, scope := {})
    resumed = train(*scope["problem"], **scope["options"], out=tmp_path)
    whole = train(*scope["problem"], **scope["options"])
    np.testing.assert_array_equal(resumed.network[1], whole.network[1])
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])


def test_random_keys_are_saved(tmp_path):
    def update(gradient, key, params=None):
        key, now = jax.random.split(key)
        return 0.1 * jax.random.normal(now, gradient.shape), key

    noise = optax.GradientTransformation(lambda params: jax.random.key(1), update)
    problem, options = ((linear, jnp.zeros((4, 1))), X, X[:, 0]), {"evaluate_every": 2}
    train(*problem, optimizer=noise, steps=2, out=tmp_path, **options)
    resumed = train(*problem, optimizer=noise, steps=4, out=tmp_path, **options)
    whole = train(*problem, optimizer=noise, steps=4, **options)
    np.testing.assert_array_equal(resumed.network[1], whole.network[1])


def test_the_folder_of_another_run_is_refused_by_what_differs(tmp_path):
    folder = tmp_path / "run"
    arguments = {"network": (linear, jnp.zeros((4, 3))), "x": X, "y": LABELS, "steps": 5, **BATCHES}
    train(out=folder, **arguments)
    for name, other in (
        ("initial state", {"network": (linear, jnp.ones((4, 3)))}),
        ("network, loss and optimizer", {"network": (lambda p, x: x @ p + 1, jnp.zeros((4, 3)))}),
        ("network, loss and optimizer", {"optimizer": optax.adam(1e-2)}),
        ("training data", {"y": (LABELS + 1) % 3}),
        ("validation data", {"validation": VALIDATION}),
        ("seed", {"seed": 1}),
        ("batch_size", {"batch_size": 12}),
    ):
        with pytest.raises(ValueError, match=rf"differs in (.*\), )?{name} \(there .*\)\. P"):
            train(out=folder, **arguments | other)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="Pass another folder"):
        train(out=tmp_path, **arguments)


def test_a_step_needs_no_memory_but_the_state_and_one_gradient():
    network = as_network(finite_width.ResNet(64, 64, 1, in_dim=4, rngs=nnx.Rngs(0)), X)
    program = Program(network.apply, losses.per_input("half_norm"), ADAM, None, None)
    state, data = program.start(network.params), (X[:2], X[:2, :1])
    until = np.int32(1)
    lowered = Program.advance.lower(program, state, network.rest, data, None, until)
    memory = lowered.compile().memory_analysis()
    weights, whole = (
        sum(a.nbytes for a in jax.tree.leaves(tree)) for tree in (network.params, state)
    )
    # The new state lies where the old one was.
    assert memory.alias_size_in_bytes == whole > 3 * weights
    # With scaled weights of all blocks it would be two and more.
    assert memory.temp_size_in_bytes < 1.5 * weights


def test_what_was_passed_to_a_run_stays_valid():
    # An optimizer whose state holds the parameters themselves.
    keeping = optax.GradientTransformation(lambda params: params, lambda g, s, params=None: (g, s))
    weights, calls = jnp.ones((4, 1)), []
    for _ in range(2):
        found = train((linear, weights), X, X[:, 0], optimizer=keeping, steps=2, evaluate_every=1)
        calls.append(np.asarray(found.network[1]))
    np.testing.assert_array_equal(*calls)
    np.testing.assert_array_equal(weights, np.ones((4, 1)))


def test_losses_are_summed_in_float32():
    def apply(params, x):
        return jnp.float16(300) + params * x[:, :1].astype("float16")

    found = train((apply, jnp.zeros((), "float16")), X, np.zeros(24), optimizer=SGD, steps=1)
    np.testing.assert_allclose(found.history["loss"][0], 45_000, rtol=1e-5)


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_network(tmp_path):
    def loss(outputs, targets):
        return outputs[:, 0] - targets

    def update(gradient, count, params=None):
        # Not finite from the eighth step on, which does not depend on rounding.
        return jnp.where(count >= 7, jnp.nan, 0.01) * gradient, count + 1

    optimizer = optax.GradientTransformation(lambda _: jnp.int32(0), update)
    options = {"optimizer": optimizer, "loss": loss, "evaluate_every": 5}
    problem = (linear, jnp.zeros((4, 1))), X, X[:, 0]
    with pytest.raises(TrainingDiverged, match=r"not finite at step 8.*step 5") as caught:
        train(*problem, steps=30, out=tmp_path / "run", **options)
    assert caught.value.step == 8
    result = caught.value.result
    assert (result.steps, result.stopped) == (5, "diverged")
    assert result.history["step"].tolist() == [0, 5]
    np.testing.assert_array_equal(result.network[1], train(*problem, steps=5, **options).network[1])
    saved = train(*problem, steps=5, out=tmp_path / "run", **options)
    np.testing.assert_array_equal(result.network[1], saved.network[1])
    with pytest.raises(TrainingDiverged, match=r"not finite at step 0\. "):
        train((linear, jnp.full((4, 1), jnp.inf)), X, X[:, 0], optimizer=SGD, steps=1, loss=loss)


def test_early_stopping_waits_and_returns_the_best_parameters(tmp_path):
    # The bias goes down by one in each step: validation is best where it passes 3.
    def apply(params, x):
        return x[:, :1] * 0 + params

    def loss(outputs, targets):
        return jnp.where(targets > 0, (outputs[:, 0] + 3.2) ** 2, outputs[:, 0])

    options = {"optimizer": optax.sgd(1.0), "loss": loss, "evaluate_every": 1, "patience": 2}
    validation = X[:, :1], np.ones(24, "float32")
    problem = (apply, jnp.zeros(1)), X[:, :1], np.zeros(24, "float32")
    train(*problem, steps=4, validation=validation, out=tmp_path, **options)
    found = train(*problem, steps=50, validation=validation, out=tmp_path, **options)
    assert (found.steps, found.best_step, found.stopped) == (5, 3, "patience")
    assert found.network[1] == pytest.approx(-3, rel=1e-5)


@pytest.mark.parametrize("size", [None, 8])
def test_a_run_does_not_depend_on_the_number_of_devices(size, tmp_path):
    options = {"optimizer": SGD, "batch_size": size, "evaluate_every": 2}
    options["validation"] = X_TEST[:5], X_TEST[:5, 0]
    problem = (linear, jnp.zeros((4, 1))), X[:16], X[:16, 0]
    spread = train(*problem, steps=2, out=tmp_path, mesh=MESH, **options)
    assert len(spread.network[1].devices()) == 8
    resumed = train(*problem, steps=4, out=tmp_path, **options)
    assert len(resumed.network[1].devices()) == 1
    whole = train(*problem, steps=4, **options)
    np.testing.assert_allclose(resumed.network[1], whole.network[1], rtol=1e-4)
    for name in whole.history:
        np.testing.assert_allclose(resumed.history[name], whole.history[name], rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_largest_learning_rate_is_twice_n_over_the_largest_eigenvalue(scale):
    found = largest_learning_rate((lambda p, x: scale * (x @ p), jnp.ones((4, 1))), X)
    assert found * scale**2 == pytest.approx(48 / np.linalg.eigvalsh(X @ X.T)[-1], rel=1e-3)
    assert largest_learning_rate(np.diag([1.0, 4.0])) == 1.0


def test_invalid_arguments_are_refused():
    attempt = functools.partial(train, (linear, jnp.zeros((4, 3))), X, **BATCHES)
    for change, error, message in (
        ({"loss": "hinge"}, ValueError, "loss must be 'mse', 'half_mse', 'half_norm' or 'cross"),
        ({"loss": "half_norm"}, ValueError, r"centered_one_hot\(labels, 3\)"),
        ({"optimizer": 0.1}, TypeError, "an optax optimizer"),
        ({"evaluate_every": 2.0}, TypeError, "evaluate_every must be an integer, got 2.0"),
        ({"batch_size": 25}, ValueError, "at most the number of inputs, 24"),
        ({"patience": 3}, TypeError, "patience needs validation"),
        ({"validation": X_TEST}, TypeError, r"validation must be a pair \(x, y\), got ndarray"),
        ({"validation": (X, X, LABELS)}, ValueError, "validation must be a pair .* got 3 entries"),
        ({"validation": (X_TEST, LABELS)}, ValueError, r"validation\[1\] must have shape \(10,\)"),
        ({"validation": (X[:, :1], LABELS)}, ValueError, r"validation\[0\] .* shape \(4,\), as x"),
        ({"validation": (X + np.inf, LABELS)}, ValueError, r"validation\[0\] must be finite"),
        ({"mesh": "data"}, TypeError, "jax.sharding.Mesh"),
        ({"mesh": MESH, "batch_size": 3}, ValueError, "the 3 inputs of a batch, got 8. Take 8"),
        ({"loss": lambda f, y: f - y[:, None]}, ValueError, r"shape \(24,\), got shape \(24, 3\)"),
        ({"y": LABELS + 1}, ValueError, r"y must lie in \[0, 3\), got 1 to 3"),
        ({"y": LABELS / 2}, TypeError, "integer labels"),
    ):
        with pytest.raises(error, match=message):
            attempt(**{"y": LABELS, "steps": 5, **change})
