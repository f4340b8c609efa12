"""`neural_tangents.stax` does what its documentation says: shapes, masks, `get`, own layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from neural_tangents import stax
from nt_networks import SEQUENCES, VECTORS


def dense(*layers):
    return stax.serial(stax.Dense(16, W_std=1.3), *layers, stax.Dense(3))


def test_kernels_are_jittable_and_differentiable_in_the_inputs(x64):
    x1, x2 = map(jnp.asarray, VECTORS)
    _, _, kernel_fn = dense(stax.Erf())
    ntk = jax.jit(lambda x: kernel_fn(x, x2, "ntk")[0, 1])
    direction, step = jnp.sin(x1), 1e-6
    numerical = (ntk(x1 + step * direction) - ntk(x1 - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(jax.grad(ntk)(x1), direction), numerical, rtol=1e-7)


@pytest.mark.parametrize("pooling", [stax.GlobalSumPool, stax.Flatten])
def test_a_masked_sequence_has_the_kernel_of_the_cropped_one(pooling, x64):
    x1, x2 = map(jnp.asarray, SEQUENCES)
    network = stax.serial(stax.Dense(4), stax.Relu(), pooling())
    masked = x1.at[:, 3:].set(jnp.nan)
    actual = network[2](masked, x2.at[:, 3:].set(jnp.nan), "ntk", mask_constant=jnp.nan)
    expected = network[2](x1[:, :3], x2[:, :3], "ntk")
    # Flatten divides by the number of positions, masked or not.
    scale = 5 / 3 if pooling is stax.Flatten else 1.0
    np.testing.assert_allclose(scale * actual, expected, rtol=1e-12)


POOLING = {
    "GlobalAvgPool": stax.GlobalAvgPool,
    "GlobalSumPool": stax.GlobalSumPool,
    "AvgPool": lambda: stax.AvgPool((2,), padding="SAME"),
    "SumPool": lambda: stax.SumPool((2,), padding="SAME"),
}


@pytest.mark.parametrize("pooling", POOLING.values(), ids=POOLING)
def test_a_mask_goes_through_pooling_in_the_first_layer(pooling, x64):
    x = random.normal(random.PRNGKey(0), (3, 5, 1))
    masked = x.at[:, 3:].set(7.0)
    readout = stax.GlobalSumPool if "Global" not in pooling.__name__ else stax.Identity
    layers = [stax.Dense(4), stax.Erf(), stax.Dense(3)]
    _, _, kernel_fn = stax.serial(pooling(), *layers, readout())
    for kind in ("nngp", "ntk"):
        actual = kernel_fn(masked, None, kind, mask_constant=7.0)
        np.testing.assert_allclose(actual, kernel_fn(x[:, :3], None, kind), rtol=1e-12)


@pytest.mark.parametrize("pooling", POOLING.values(), ids=POOLING)
def test_a_mask_for_each_channel_is_refused_by_pooling_with_the_remedy(pooling):
    x = jnp.ones((2, 5, 3)).at[:, 3:].set(7.0)
    with pytest.raises(NotImplementedError, match=r"one mask for all channels.*stax\.Dense"):
        pooling()[2](x, None, mask_constant=7.0)
    assert stax.serial(stax.Dense(3), pooling())[2](x, None, "ntk", mask_constant=7.0).shape


@pytest.mark.parametrize("layout", [{}, {"diagonal_spatial": False}])
@pytest.mark.parametrize("first", [stax.Identity, lambda: stax.Dense(4)])
def test_flatten_refuses_batches_of_different_size(first, layout):
    _, _, kernel_fn = stax.serial(first(), stax.Flatten(), stax.Dense(1))
    with pytest.raises(ValueError, match=r"x1 and x2 of the same size.*GlobalAvgPool"):
        kernel_fn(jnp.ones((2, 4, 3)), jnp.ones((2, 6, 3)), "ntk", **layout)


def test_typed_random_keys_are_accepted():
    init_fn, apply_fn, _ = dense(stax.Relu())
    _, params = init_fn(random.key(0), (-1, 6))
    assert apply_fn(params, jnp.ones((2, 6))).shape == (2, 3)
