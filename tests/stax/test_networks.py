import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from helpers import finite_difference, full, naive_conv_kernel, naive_kernel
from jax import random
from neural_tangents import stax as nt_stax
from residual_networks import conv, residual

from nt_residual import rntk, schedules, stax


@pytest.mark.parametrize("trained", ["blocks", "all"])
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_its_kernel_is_that_of_the_textbook_recursion(kind, trained, x64):
    x1, x2 = (random.normal(random.PRNGKey(i), (4, 5)) for i in range(2))
    alphas = [1.0, 0.0, 0.5, 0.2]
    _, _, kernel_fn = stax.FullyConnectedResNet(4, 8, schedule=alphas, trained=trained)
    expected = [
        [naive_kernel(a, b, alphas, kind=kind, trained=trained) / 5 for b in x2] for a in x1
    ]
    np.testing.assert_allclose(kernel_fn(x1, x2, kind), expected, rtol=1e-12)


@pytest.mark.parametrize("trained", ["blocks", "all"])
def test_its_normalized_kernel_is_that_of_unit_variance(trained, x64):
    x1, x2 = (random.normal(random.PRNGKey(i), (4, 5)) for i in range(2))
    schedule = schedules.Constant(1.0)
    options = {"schedule": schedule, "trained": trained}
    closed_form = rntk.ResidualKernel(6, schedule, trained=trained)
    _, _, kernel_fn = stax.FullyConnectedResNet(6, 8, normalize_blocks=True, **options)
    # 2 Σ s_ℓ from the blocks, one each from the input and the output layer.
    layers = 6 + (2 if trained == "all" else 0)
    expected = layers * closed_form(x1, x2) / 5
    np.testing.assert_allclose(kernel_fn(x1, x2, "ntk"), expected, rtol=2e-9)


def test_only_the_parameters_of_the_blocks_have_an_ntk():
    x = random.normal(random.PRNGKey(0), (3, 4))
    init_fn, apply_fn, _ = stax.FullyConnectedResNet(5, 16)
    shape, params = init_fn(random.PRNGKey(1), x.shape)
    assert shape == (3, 1)
    (first, _), blocks, (last, _) = params
    changed = ((first, None), blocks, (0 * last, None))
    assert np.max(np.abs(nt.empirical_ntk_fn(apply_fn)(x, None, params))) > 0
    np.testing.assert_allclose(nt.empirical_ntk_fn(apply_fn)(x, None, changed), 0, atol=1e-12)


# What blocks can be.


BLOCKS = {
    "two_layer": lambda a, W: [nt_stax.Dense(8, W), nt_stax.Erf(), nt_stax.Dense(8, a)],
    "one_layer": lambda a, W: [nt_stax.Erf(), nt_stax.Dense(8, a * W)],
    "preactivation": lambda a, W: [
        nt_stax.Erf(),
        nt_stax.Dense(8, W),
        nt_stax.Erf(),
        nt_stax.Dense(8, a * W),
    ],
}


@pytest.mark.filterwarnings("ignore:.FanIn. layers assume independent inputs")
@pytest.mark.parametrize("block", BLOCKS)
def test_each_kind_of_block_is_that_of_the_network_unrolled(block, x64):
    x1, x2 = (random.normal(random.PRNGKey(i), (3, 5)) for i in range(2))
    alphas, W_std = [0.5, 1.0, 0.2], 1.3
    options = {"block": block, "activation": nt_stax.Erf(), "W_std": W_std}
    ours = stax.FullyConnectedResNet(3, 8, schedule=alphas, trained="all", **options)
    blocks = [residual(nt_stax.serial(*BLOCKS[block](alpha, W_std))) for alpha in alphas]
    theirs = nt_stax.serial(nt_stax.Dense(8), *blocks, nt_stax.Dense(1))
    for get in ("nngp", "ntk"):
        np.testing.assert_allclose(ours[2](x1, x2, get), theirs[2](x1, x2, get), rtol=1e-12)


# Convolutional networks.


@pytest.mark.parametrize("pooling", ["flatten", "gap"])
@pytest.mark.parametrize("trained", ["blocks", *full("all")])
@pytest.mark.parametrize("normalize", [False, *full(True)])
def test_a_convolutional_kernel_is_that_of_direct_enumeration(pooling, trained, normalize, x64):
    images = random.normal(random.PRNGKey(0), (3, 4, 4, 2))
    alphas = [0.5, 1.0, 0.3]
    options = {"pooling": pooling, "trained": trained}
    net = stax.ConvResNet(3, 8, 10, alphas, normalize_blocks=normalize, **options)
    nngp, ntk = (jax.jit(net[2], static_argnums=2)(images, None, get) for get in ("nngp", "ntk"))
    for i, j in [(0, 0), (0, 1), (2, 1)]:
        expected = naive_conv_kernel(images[i], images[j], alphas, normalize=normalize, **options)
        np.testing.assert_allclose((nngp[i, j], ntk[i, j]), expected, rtol=1e-12)


def test_convolutions_may_go_round_the_image(x64):
    images = random.normal(random.PRNGKey(0), (2, 3, 4, 2))
    options = {"pooling": "flatten", "trained": "all", "padding": "CIRCULAR"}
    _, _, kernel_fn = stax.ConvResNet(2, 8, 10, [0.5, 1.0], **options)
    _, expected = naive_conv_kernel(*images, [0.5, 1.0], normalize=False, **options)
    got = jax.jit(kernel_fn, static_argnums=2)(images, None, "ntk")
    np.testing.assert_allclose(got[0, 1], expected, rtol=1e-12)


def test_the_stages_of_a_convolutional_network_halve_resolution_and_double_channels():
    init_fn, _, _ = stax.ConvResNet((2, 3, 1), 4, out_dim=7, pooling="gap")
    shape, params = init_fn(random.PRNGKey(0), (5, 9, 8, 3))
    assert shape == (5, 7)
    filters = [leaf.shape for leaf in jax.tree.leaves(params)]
    # The first layer, and two stacked blocks of two convolutions.
    assert filters[:3] == [(3, 3, 3, 4), (2, 3, 3, 4, 4), (2, 3, 3, 4, 4)]
    # A projection, its branch, and the other two blocks of the second stage.
    assert filters[3:6] == [(1, 1, 4, 8), (3, 3, 4, 8), (3, 3, 8, 8)]
    assert filters[6:8] == [(2, 3, 3, 8, 8), (2, 3, 3, 8, 8)]
    # The third stage has one block.
    assert filters[8:] == [(1, 1, 8, 16), (3, 3, 8, 16), (3, 3, 16, 16), (16, 7)]


def test_only_branches_are_trained_in_a_network_of_stages(x64):
    x = random.normal(random.PRNGKey(0), (2, 4, 4, 3))
    init_fn, apply_fn, _ = stax.ConvResNet((1, 1), 4, 2, block="one_layer")
    _, params = init_fn(random.PRNGKey(1), x.shape)
    gradient = jax.grad(lambda params: jnp.sum(apply_fn(params, x) ** 2))(params)
    trained = [leaf.shape for leaf in jax.tree.leaves(gradient) if np.any(np.asarray(leaf))]
    assert trained == [(1, 3, 3, 4, 4), (3, 3, 4, 8)]


def nt_wide_resnet(width):
    """The wide residual network of neural-tangents' documentation, without its readout."""

    def block(channels, strides=(1, 1), channel_mismatch=False):
        main = nt_stax.serial(
            nt_stax.Relu(), conv(channels, strides=strides), nt_stax.Relu(), conv(channels)
        )
        return residual(main, conv(channels, strides=strides) if channel_mismatch else None)

    def group(n, channels, strides=(1, 1)):
        blocks = [block(channels) for _ in range(n - 1)]
        return nt_stax.serial(block(channels, strides, channel_mismatch=True), *blocks)

    return nt_stax.serial(
        conv(16),
        group(2, 16),
        group(2, 32, (2, 2)),
        group(2, 64, (2, 2)),
        nt_stax.AvgPool((1, 1)),
        nt_stax.Flatten(),
        nt_stax.Dense(width, 1.0, 0.0),
    )


@pytest.mark.filterwarnings("ignore:.FanIn. layers assume independent inputs")
def test_the_wide_residual_network_is_that_of_neural_tangents(x64):
    x1, x2 = (random.normal(random.PRNGKey(i), (2, 4, 4, 3)) for i in range(2))
    options = {"schedule": schedules.Constant(1.0), "trained": "all", "W_std": 1.0}
    ours = stax.WideResNet(block_size=2, k=1, out_dim=10, **options)
    theirs = nt_wide_resnet(10)
    got, expected = (
        jax.jit(lambda x1, x2, net=net: net[2](x1, x2, ("nngp", "ntk")))(x1, x2)
        for net in (ours, theirs)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-12)


# Schedules.


@pytest.mark.parametrize("which", ["gamma", "c"])
def test_networks_are_differentiable_in_the_parameters_of_a_schedule(which, x64):
    vectors = random.normal(random.PRNGKey(0), (2, 3))
    images = random.normal(random.PRNGKey(0), (2, 3, 3, 3))

    def schedule(value):
        return schedules.PowerLaw(**{"gamma": 0.4, "c": 1.2, which: value})

    def dense(value):
        net = stax.FullyConnectedResNet(20, 8, schedule=schedule(value))
        return net[2](vectors, None, "ntk")[0, 1]

    def convolutional(value):
        net = stax.ConvResNet((2, 3), 8, schedule=schedule(value), normalize_blocks=True)
        return net[2](images, None, "ntk")[0, 1]

    for entry in (dense, convolutional) if which == "gamma" else (dense,):
        entry = jax.jit(entry)
        np.testing.assert_allclose(jax.grad(entry)(0.4), finite_difference(entry, 0.4), rtol=1e-6)


# Bad input.


def test_unknown_options_are_refused():
    for factory in (stax.FullyConnectedResNet, stax.ConvResNet, stax.WideResNet):
        with pytest.raises(ValueError, match="trained must be 'blocks' or 'all', got 'last'"):
            factory(2, 2, trained="last")
        with pytest.raises(ValueError, match=r"one α per block, got 5 alphas for depth=\d"):
            factory(2, 2, schedule=lambda depth: np.ones(5))
        with pytest.raises(TypeError, match="`activation` must be a layer"):
            factory(2, 2, activation=nt_stax.Relu)
        for value, error in ((-1.0, ValueError), (np.nan, ValueError), (True, TypeError)):
            with pytest.raises(error, match=f"W_std must .*, got {value}"):
                factory(2, 2, W_std=value)
    with pytest.raises(ValueError, match="padding must be 'SAME' or 'CIRCULAR', got 'VALID'"):
        stax.ConvResNet(2, 2, padding="VALID")


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("depth", (2, 0), ValueError),
        ("depth", (), ValueError),
        ("filter_shape", (), ValueError),
        ("filter_shape", 3, TypeError),
        ("filter_shape", (1.5, 3), TypeError),
    ],
)
def test_stages_and_filters_without_positive_sizes_are_refused(name, value, error):
    with pytest.raises(error, match=f"{name} must"):
        stax.ConvResNet(**{"depth": 2, "channels": 2, name: value})
