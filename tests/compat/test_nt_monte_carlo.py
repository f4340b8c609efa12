"""`nt.monte_carlo_kernel_fn`: sampled kernels approach the closed form, as its docstring says."""

import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from jax import random
from neural_tangents import stax
from nt_networks import SEQUENCES, VECTORS

X1, X2 = (jnp.asarray(x, jnp.float32) for x in VECTORS)

NETWORKS = {
    "dense": (
        (X1, X2),
        lambda width: (stax.Dense(width, 1.4), stax.Relu(), stax.Dense(width), stax.Erf()),
    ),
    "residual": (
        (X1, X2),
        lambda width: (
            stax.Dense(width),
            stax.FanOut(2),
            stax.parallel(
                stax.Identity(),
                stax.serial(stax.Dense(width, 1.4), stax.Relu(), stax.Dense(width, 0.5)),
            ),
            stax.FanInSum(),
        ),
    ),
    "convolution": (
        tuple(jnp.asarray(x, jnp.float32) for x in SEQUENCES),
        lambda width: (
            stax.Conv(width, (3,), padding="SAME"),
            stax.LayerNorm(),
            stax.Relu(),
            stax.GlobalAvgPool(),
        ),
    ),
}


@pytest.mark.filterwarnings("ignore:`FanIn` layers assume independent inputs")
@pytest.mark.full
@pytest.mark.parametrize("name", NETWORKS)
def test_samples_approach_the_closed_form(name):
    (x1, x2), layers = NETWORKS[name]
    init_fn, apply_fn, kernel_fn = stax.serial(*layers(1024), stax.Dense(64))
    sampled = nt.monte_carlo_kernel_fn(
        init_fn,
        apply_fn,
        random.PRNGKey(1),
        128,
        vmap_axes=0,
        implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
    )(x1, x2, ("nngp", "ntk"))
    expected = kernel_fn(x1, x2, ("nngp", "ntk"))
    # Means of 128 × 64 products of Gaussian outputs: four standard deviations are 0.06.
    for kind, tolerance in (("nngp", 0.06), ("ntk", 0.04)):
        actual, exact = getattr(sampled, kind), getattr(expected, kind)
        np.testing.assert_allclose(actual, exact, rtol=0, atol=tolerance * jnp.abs(exact).max())
