"""Layers of `neural_tangents.stax` on masks and on inputs of two sizes."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from neural_tangents import stax

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


@pytest.mark.parametrize("layout", [{}, {"diagonal_spatial": False}])
@pytest.mark.parametrize("first", [stax.Identity, lambda: stax.Dense(4)])
def test_flatten_refuses_batches_of_different_size(first, layout):
    _, _, kernel_fn = stax.serial(first(), stax.Flatten(), stax.Dense(1))
    with pytest.raises(ValueError, match=r"x1 and x2 of the same size.*GlobalAvgPool"):
        kernel_fn(jnp.ones((2, 4, 3)), jnp.ones((2, 6, 3)), "ntk", **layout)
