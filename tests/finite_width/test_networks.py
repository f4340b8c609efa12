"""What is taken as a network, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from neural_tangents import stax

from nt_residual import finite_width
from nt_residual.finite_width import networks

X = np.random.default_rng(0).standard_normal((4, 3)).astype("float32")
SMALL = functools.partial(finite_width.ResNet, 1, 4, in_dim=3)


class BatchNormed(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(3, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.first(x))


class AllFrozen(nnx.Module):
    def __init__(self, rngs):
        self.weights = finite_width.Frozen(jax.random.normal(rngs.params(), (3, 1)))

    def __call__(self, x):
        return x @ self.weights[...]


class Net(linen.Module):
    normed: bool = False

    @linen.compact
    def __call__(self, x):
        x = linen.Dense(2)(x)
        return linen.BatchNorm(use_running_average=True)(x) if self.normed else x


def test_flax_linen_and_stax_networks_are_taken():
    init_fn, apply_fn, _ = stax.Dense(2)
    model, module = SMALL(rngs=nnx.Rngs(0)), Net()
    params, variables = init_fn(jax.random.key(0), X.shape)[1], module.init(jax.random.key(0), X)
    for given, outputs in (
        (model, model(X)),
        ((apply_fn, params), apply_fn(params, X)),
        ((module.apply, variables), module.apply(variables, X)),
    ):
        found = networks.as_network(given, X)
        np.testing.assert_array_equal(found(found.params, X), outputs)
        assert networks.as_network(found, X) is found
    trained = networks.as_network(model, X).params
    assert {leaf.shape for leaf in jax.tree.leaves(trained)} == {(1, 4, 4)}


@pytest.mark.parametrize("network", [SMALL, Net(), stax.Dense(2)], ids=["nnx", "linen", "stax"])
def test_new_networks_differ_by_their_key(network):
    make = networks.initialiser(network, X)

    @jax.jit
    def outputs(key):
        made = make(key)
        return made(made.params, X)

    one, other = (outputs(jax.random.key(i)) for i in (1, 2))
    np.testing.assert_array_equal(one, outputs(jax.random.key(1)))
    assert np.all(one != other)


def test_batch_statistics_are_refused():
    for given in (BatchNormed, Net(normed=True)):
        with pytest.raises(ValueError, match=r"statistics of batches.*BatchNorm"):
            networks.initialiser(given, X)
    with pytest.raises(ValueError, match=r"statistics of batches.*BatchStat"):
        networks.as_network(BatchNormed(nnx.Rngs(0)), X)


def test_outputs_that_depend_on_the_batch_are_refused():
    def apply_fn(params, x):
        return params * (x - jnp.mean(x, 0))

    with pytest.raises(ValueError, match="changes with the rest of the batch"):
        networks.as_network((apply_fn, jnp.ones(3)), X)
    with pytest.raises(ValueError, match="changes with the rest of the batch"):
        networks.initialiser((lambda key, shape: (shape, jnp.ones(3)), apply_fn), X)


def test_networks_of_which_nothing_is_trained_are_refused():
    with pytest.raises(ValueError, match="all of its layers are frozen"):
        networks.as_network(AllFrozen(nnx.Rngs(0)), X)
    with pytest.raises(ValueError, match="all of its layers are frozen"):
        networks.initialiser(stax.Relu(), X)


@pytest.mark.parametrize("shape", [(-1,), (1, -1), (-1, 3, 1)])
def test_outputs_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(2, outputs\), got shape"):
        networks.as_network((lambda p, x: (p * x).reshape(shape), jnp.ones(3)), X)


def test_other_things_are_refused():
    with pytest.raises(TypeError, match=r"got function.*module.apply, variables"):
        networks.as_network(lambda p, x: x, X)
    with pytest.raises(TypeError, match=r"must be a function of rngs=.*got ResNet"):
        networks.initialiser(SMALL(rngs=nnx.Rngs(0)), X)
    with pytest.raises(TypeError, match=r"must return a flax.nnx module, got int"):
        networks.initialiser(lambda rngs: 1, X)
