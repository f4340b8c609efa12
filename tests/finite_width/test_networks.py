"""Networks that are accepted, and those that are refused."""

import functools

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from neural_tangents import stax

from nt_residual import finite_width
from nt_residual.finite_width import networks

X = np.random.default_rng(0).standard_normal((4, 3)).astype("float32")
SMALL = functools.partial(finite_width.ResNet, 1, 4, in_dim=3)


class WithLayer(nnx.Module):
    """A dense network with a layer of which training and evaluation differ."""

    def __init__(self, make, rngs, evaluated=False):
        self.first = nnx.Linear(3, 2, rngs=rngs)
        self.layer = make(rngs=rngs)
        self.last = nnx.Linear(2, 2, rngs=rngs)
        if evaluated:
            self.eval()

    def __call__(self, x):
        return self.last(self.layer(self.first(x)))


BATCH_NORM, DROPOUT = functools.partial(nnx.BatchNorm, 2), functools.partial(nnx.Dropout, 0.5)


class Net(linen.Module):
    layer: str | None = None

    @linen.compact
    def __call__(self, x):
        x = linen.Dense(2)(x)
        if self.layer == "norm":
            x = linen.BatchNorm(use_running_average=True)(x)
        return linen.Dropout(0.5, deterministic=False)(x) if self.layer == "dropout" else x


def test_flax_linen_and_stax_networks_are_taken():
    init_fn, apply_fn, _ = stax.Dense(2)
    model, module = WithLayer(BATCH_NORM, nnx.Rngs(0), evaluated=True), Net()
    params, variables = init_fn(jax.random.key(0), X.shape)[1], module.init(jax.random.key(0), X)
    for given, outputs in (
        (model, model(X)),
        ((apply_fn, params), apply_fn(params, X)),
        ((module.apply, variables), module.apply(variables, X)),
    ):
        found = networks.as_network(given, X)
        np.testing.assert_allclose(found(found.params, X), outputs, rtol=1e-6)
        assert networks.as_network(found, X) is found


@pytest.mark.parametrize("network", [SMALL, Net(), stax.Dense(2)], ids=["nnx", "linen", "stax"])
def test_new_networks_differ_by_their_key(network):
    make = networks.initializer(network, X)

    @jax.jit
    def outputs(key):
        made = make(key)
        return made(made.params, X)

    one, other = (outputs(jax.random.key(i)) for i in (1, 2))
    np.testing.assert_array_equal(one, outputs(jax.random.key(1)))
    assert np.all(one != other)


@pytest.mark.parametrize(
    ("layer", "changes"), [(DROPOUT, r"layer\.rngs\.count"), (BATCH_NORM, r"layer\.mean")]
)
def test_layers_that_change_in_training_are_taken_as_for_evaluation(layer, changes):
    make, made = functools.partial(WithLayer, layer), WithLayer(layer, nnx.Rngs(0))
    for refused in (
        lambda: networks.initializer(make, X),
        lambda: finite_width.largest_learning_rate(made, X),
        lambda: finite_width.train(made, X, X[:, :2], optimizer=optax.sgd(0.1), steps=1),
    ):
        with pytest.raises(ValueError, match=rf"each call changes {changes}.*model\.eval\(\)"):
            refused()
    networks.initializer(functools.partial(make, evaluated=True), X)


def test_statistics_and_random_numbers_of_linen_are_refused_and_constants_taken():
    module = Net("norm")
    variables = module.init(jax.random.key(0), X)
    for refused in (
        lambda: networks.as_network((module.apply, variables), X),
        lambda: networks.initializer(module, X),
    ):
        with pytest.raises(ValueError, match=r"batch_stats.*'batch_stats': stats"):
            refused()
    stats, params = variables["batch_stats"], variables["params"]
    found = networks.as_network(
        (lambda p, x: module.apply({"params": p, "batch_stats": stats}, x), params), X
    )
    np.testing.assert_allclose(found(params, X), module.apply(variables, X), rtol=1e-6)
    with pytest.raises(flax.errors.InvalidRngError, match="Dropout_0"):
        networks.initializer(Net("dropout"), X)


@pytest.mark.parametrize(
    ("leaf", "got"), [(3, "int"), (1j, "complex128"), (jax.random.key(0), "key<fry>")]
)
def test_parameters_that_are_not_floats_are_named(leaf, got):
    params = {"w": np.ones((3, 1), "float32"), "off": None, "step": leaf}
    with pytest.raises(TypeError, match=rf"params\['step'\] must hold real .*got dtype {got}"):
        finite_width.largest_learning_rate((lambda p, x: x @ p["w"], params), X)


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        ((lambda p, x: p * (x - jnp.mean(x, 0)), jnp.ones(3)), ValueError, "rest of the batch"),
        ((lambda p, x: (p * x).reshape(-1), jnp.ones(3)), ValueError, r"shape \(2, outputs\), got"),
        ((lambda p, x: (p * x)[None], jnp.ones(3)), ValueError, r"shape \(2, outputs\), got"),
        ((lambda p, x: x, ()), ValueError, "all of its layers are frozen"),
        (lambda p, x: x, TypeError, r"got function.*module.apply, variables"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused(network, error, message):
    with pytest.raises(error, match=message):
        networks.as_network(network, X)


def test_what_makes_no_network_is_refused():
    with pytest.raises(TypeError, match=r"must be a function of rngs=.*got ResNet"):
        networks.initializer(SMALL(rngs=nnx.Rngs(0)), X)
    with pytest.raises(TypeError, match=r"must return a flax.nnx module, got int"):
        networks.initializer(lambda rngs: 1, X)
