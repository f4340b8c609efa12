import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from helpers import full
from jax import random
from neural_tangents import stax as nt_stax

from nt_residual import stax

IMPLEMENTATIONS = [i for i in nt.NtkImplementation if i.name != "STRUCTURED_DERIVATIVES"]


def _branch(width=8):
    return nt_stax.serial(nt_stax.Dense(width, b_std=0.3), nt_stax.Erf(), nt_stax.Dense(width))


@pytest.mark.parametrize("get", ["nngp", "ntk"])
def test_freezing_leaves_the_nngp_and_removes_the_layers_own_ntk(get, x1, x2):
    first, last = _branch(), nt_stax.Dense(1, W_std=1.5, b_std=0.2)
    frozen = nt_stax.serial(first, stax.Frozen(last))[2](x1, x2, get)
    if get == "nngp":
        expected = nt_stax.serial(first, last)[2](x1, x2, get)
    else:
        expected = 1.5**2 * first[2](x1, x2, get)
    np.testing.assert_allclose(frozen, expected, rtol=1e-6)


def test_nothing_cancels_where_the_layers_own_part_is_large():
    # The NTK of the layer itself is 1e8 times larger than what it passes on.
    x = jnp.array([[1.0, 2.0], [0.5, -1.0]])
    first, last = nt_stax.Dense(8, W_std=1e-4), nt_stax.Dense(1, W_std=1.0, b_std=1.0)
    got = nt_stax.serial(first, stax.Frozen(last))[2](x, None, "ntk")
    np.testing.assert_allclose(got, first[2](x, None, "ntk"), rtol=1e-6)


def test_freezing_leaves_outputs_and_stops_gradients(x1):
    layer = _branch()
    init_fn, apply_fn, _ = stax.Frozen(layer)
    _, params = init_fn(random.PRNGKey(0), x1.shape)
    np.testing.assert_array_equal(apply_fn(params, x1), layer[1](params, x1))
    gradient = jax.grad(lambda params: jnp.sum(apply_fn(params, x1)))(params)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "implementation", [nt.NtkImplementation.STRUCTURED_DERIVATIVES, *full(*IMPLEMENTATIONS)]
)
def test_every_empirical_ntk_leaves_frozen_parameters_out(implementation, x64):
    x = random.normal(random.PRNGKey(0), (3, 4))
    layers = [_branch(), nt_stax.Erf(), _branch(1)]
    init_fn, apply_fn, _ = nt_stax.serial(layers[0], layers[1], stax.Frozen(layers[2]))
    _, params = init_fn(random.PRNGKey(1), x.shape)

    def of_the_first(first, x):
        return nt_stax.serial(*layers)[1]([first, *params[1:]], x)

    ntk_fn = nt.empirical_ntk_fn(apply_fn, vmap_axes=0, implementation=implementation)
    expected_fn = nt.empirical_ntk_fn(of_the_first, vmap_axes=0)
    expected = expected_fn(x, None, params[0])
    np.testing.assert_allclose(ntk_fn(x, None, params), expected, rtol=1e-10)


def test_frozen_layers_can_be_parallel(x1, x2):
    layers = nt_stax.serial(
        nt_stax.FanOut(2), stax.Frozen(nt_stax.parallel(_branch(), nt_stax.Dense(8)))
    )
    kernels = layers[2](x1, x2)
    assert all(np.all(np.asarray(k.ntk) == 0) for k in kernels)


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match=r"`layer` must be a layer.*triple"):
        stax.Frozen(nt_stax.Dense)
