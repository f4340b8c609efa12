import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import full
from jax import lax, random
from neural_tangents import stax as nt_stax
from residual_networks import CASES

from nt_residual import stax
from nt_residual.stax.vanishing import abstract_init, vanishes

pytestmark = pytest.mark.filterwarnings("ignore:Linear scaling attention used")


def _attention(**options):
    return nt_stax.GlobalSelfAttention(
        4, n_chan_key=4, n_chan_val=4, n_heads=2, linear_scaling=True, **options
    )


def _sum(*layers):
    return nt_stax.serial(
        nt_stax.FanOut(len(layers)), nt_stax.parallel(*layers), nt_stax.FanInSum()
    )


def _layer(fn, init_fn=lambda rng, shape: (shape, random.normal(rng, shape[-1:]))):
    """A layer with one parameter for each channel, for its forward function alone."""
    return init_fn, lambda params, x, **kwargs: fn(params, x), lambda k, **kwargs: k


LAYERS = {
    "Dense": (True, nt_stax.Dense(4)),
    "Scale": (False, stax.Scale(0.5)),
    "Relu": (False, stax.Relu()),
    "Dense after Cos": (True, nt_stax.serial(nt_stax.Cos(), nt_stax.Dense(4))),
    "LayerNorm": (False, nt_stax.LayerNorm()),
    "Conv": (True, nt_stax.Conv(4, (3, 3), padding="CIRCULAR")),
    "AvgPool after Conv": (True, nt_stax.serial(nt_stax.Conv(4, (3, 3)), nt_stax.AvgPool((2, 2)))),
    "ImageResize": (False, nt_stax.ImageResize((1, 3, 3, 4), "linear")),
    "Dense after Dropout": (True, nt_stax.serial(nt_stax.Dropout(0.5), nt_stax.Dense(4))),
    "attention": (True, _attention()),
    "attention with positions": (True, _attention(pos_emb_type="SUM")),
    "attention with identity": (True, _attention(attention_mechanism="ABS")),
    "a sum of random layers": (True, _sum(nt_stax.Dense(4), _attention())),
    "a sum with the input": (False, _sum(nt_stax.Dense(4), nt_stax.Identity())),
    "Frozen": (True, stax.Frozen(nt_stax.Dense(4))),
    "Residual": (False, stax.Residual(nt_stax.Dense(4))),
    "ResidualStack": (False, stax.ResidualStack(nt_stax.Dense(4), [0.5, 0.2], remat=True)),
    "repeat": (True, nt_stax.repeat(nt_stax.Dense(4), 3)),
    "gains around one": (False, _layer(lambda gain, x: (1 + gain) * x)),
    "gains": (True, _layer(lambda gain, x: gain * x)),
    "gated": (False, _layer(lambda gain, x: jnp.exp(gain) * x)),
    "a conditional": (
        False,
        _layer(lambda gain, x: lax.cond(jnp.sum(gain) > 0, lambda: x, lambda: gain * x)),
    ),
    "a conditional of random layers": (
        True,
        _layer(lambda gain, x: lax.cond(jnp.sum(gain) > 0, lambda: -gain * x, lambda: gain * x)),
    ),
    "a loop": (
        False,
        _layer(lambda gain, x: lax.while_loop(lambda y: True, lambda y: y + x, gain * x)),
    ),
    "a loop over a random layer": (
        True,
        _layer(lambda gain, x: lax.while_loop(lambda y: True, lambda y: 2 * y, gain * x)),
    ),
}


@pytest.mark.filterwarnings("ignore:.FanIn. layers assume independent inputs")
@pytest.mark.parametrize(("expected", "layer"), LAYERS.values(), ids=LAYERS)
def test_a_layer_vanishes_if_parameters_are_on_every_path(expected, layer):
    shape = (1, 4, 4, 4)
    assert vanishes(layer, shape) is expected
    assert jax.jit(lambda x: x + vanishes(layer, shape))(0.0) == expected


@pytest.mark.parametrize("name", ["Residual_strided", "ConvResNet_stages", *full(*CASES)])
def test_what_is_said_to_vanish_does(name):
    case = CASES[name]
    layer, shape = case.outputs(8), (1, *case.input_shape(8))
    assert vanishes(layer, shape)
    init_fn, apply_fn, _ = layer
    _, params = abstract_init(init_fn, shape)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params)
    outputs = apply_fn(zeros, random.normal(random.PRNGKey(0), shape))
    np.testing.assert_array_equal(outputs, 0)


def test_keywords_are_passed_on_and_may_be_traced():
    layer = nt_stax.serial(stax.Scale("alpha"), nt_stax.Dense(3))
    assert jax.jit(lambda a: a + vanishes(layer, (1, 3), alpha=a))(0.0) == 1
    assert not vanishes(stax.Scale("alpha"), (1, 3), alpha=0.0)


def test_a_layer_without_a_finite_network_is_taken_to_vanish():
    assert vanishes(nt_stax.ExpNormalized(), (1, 3))
