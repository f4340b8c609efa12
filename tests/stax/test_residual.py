import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import full
from jax import random
from neural_tangents import stax as nt_stax
from residual_networks import conv, dense_branch

from nt_residual import stax


def test_a_residual_block_takes_a_raw_input_on_its_shortcut(x1, x2):
    _, _, kernel_fn = stax.Residual(dense_branch(3), alpha=0.5)
    k = kernel_fn(x1, x2)
    assert not k.is_gaussian
    expected = x1 @ x2.T / 3 + 0.25 * dense_branch(8)[2](x1, x2, "nngp")
    np.testing.assert_allclose(k.nngp, expected, rtol=1e-5, atol=1e-6)


def test_the_sum_is_gaussian_if_the_shortcut_is(x1):
    gaussian = nt_stax.serial(nt_stax.Dense(3), stax.Residual(dense_branch(3)))
    activation = nt_stax.serial(
        nt_stax.Dense(3), stax.Residual(dense_branch(3), shortcut=stax.Relu())
    )
    assert gaussian[2](x1).is_gaussian
    assert not activation[2](x1).is_gaussian
    with pytest.raises(ValueError, match="must be Gaussian"):
        nt_stax.serial(activation, stax.Relu())[2](x1)


def test_normalizing_does_not_overflow_where_alpha_does():
    x = jnp.ones((2, 3))
    block = stax.Residual(dense_branch(3), 1e30, normalize_blocks=True)
    expected = dense_branch(3)[2](x, None, "ntk")
    np.testing.assert_allclose(block[2](x, None, "ntk"), expected, rtol=1e-5)


def test_mixed_layouts_are_refused():
    branch = nt_stax.serial(conv(3), nt_stax.Flatten(), nt_stax.Dense(5))
    shortcut = nt_stax.serial(conv(3), nt_stax.GlobalAvgPool(), nt_stax.Dense(5))
    # Both are vectors: their kernels can be added.
    stax.Residual(branch, 0.5, shortcut)[2](jnp.ones((2, 4, 4, 3)))
    transposed = nt_stax.Conv(3, (3, 3), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    wrong = nt_stax.Conv(3, (3, 3), padding="SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"))
    with pytest.raises(ValueError, match="requires `channel_axis"):
        stax.Residual(transposed, 0.5, wrong)[2](jnp.ones((2, 3, 3, 3)))


@pytest.mark.parametrize("stacked", [False, True])
def test_a_masked_input_of_several_channels_may_be_pooled_after_a_block(stacked, x64):
    x = random.normal(random.PRNGKey(0), (3, 5, 2))
    masked = x.at[:, 3:].set(100.0)
    block = stax.ResidualStack(dense_branch(2), [0.5] * 2)
    block = block if stacked else stax.Residual(dense_branch(2), 0.5)
    init_fn, apply_fn, kernel_fn = nt_stax.serial(block, nt_stax.GlobalAvgPool(), nt_stax.Dense(1))
    for get in ("nngp", "ntk"):
        got = kernel_fn(masked, None, get, mask_constant=100.0)
        np.testing.assert_allclose(got, kernel_fn(x[:, :3], None, get), rtol=1e-12)
    _, params = init_fn(random.PRNGKey(1), x.shape)
    got = nt_stax.unmask_fn(apply_fn)(params, masked, mask_constant=100.0)
    np.testing.assert_allclose(got, apply_fn(params, x[:, :3]), rtol=1e-12)


# Branches that are not independent of the shortcut. What can be told of layers in general
# is tested in `test_vanishing`.

PASSING_THROUGH = {
    "the identity": lambda: nt_stax.Identity(),
    "a stack": lambda: stax.ResidualStack(nt_stax.Dense(4), [0.5, 0.5]),
}


@pytest.mark.filterwarnings("ignore:.FanIn. layers assume independent inputs")
@pytest.mark.parametrize("branch", PASSING_THROUGH.values(), ids=PASSING_THROUGH)
@pytest.mark.parametrize("traced", [False, *full(True)])
def test_a_branch_that_passes_its_input_through_is_refused(branch, traced):
    x = random.normal(random.PRNGKey(0), (2, 5, 4))
    for block in (stax.Residual(branch()), stax.ResidualStack(branch(), [0.5])):
        _, _, kernel_fn = nt_stax.serial(nt_stax.Dense(4), block)
        kernel_fn = jax.jit(kernel_fn) if traced else kernel_fn
        with pytest.raises(ValueError, match=r"not zero when all its parameters are.*Append"):
            kernel_fn(x)


def test_a_branch_that_ends_in_a_nonlinearity_is_refused(x1):
    branch = nt_stax.serial(nt_stax.Dense(3), nt_stax.Gelu())
    for layer in (stax.Residual(branch), stax.ResidualStack(branch, [0.5, 0.5])):
        with pytest.raises(ValueError, match=r"mean-zero Gaussian outputs.*got `serial`.*Append"):
            layer[2](x1)
    with pytest.raises(ValueError, match="got `ABRelu`"):
        nt_stax.serial(nt_stax.Dense(3), stax.Residual(nt_stax.Relu()))[2](x1)


def test_the_kernel_of_a_very_wide_network_needs_no_memory_for_its_parameters():
    # 8 TB, were they drawn.
    net = stax.FullyConnectedResNet(2, 1_000_000)
    assert net[2](jnp.ones((2, 3)), None, "ntk").shape == (2, 2)


def test_a_stack_may_be_part_of_a_block_of_a_stack(x64):
    x = random.normal(random.PRNGKey(0), (3, 4))
    inner = nt_stax.serial(nt_stax.Dense(4), stax.ResidualStack(dense_branch(4), [0.7, 0.2]))
    stack = stax.ResidualStack(inner, [0.5, 0.3])
    blocks = nt_stax.serial(stax.Residual(inner, 0.5), stax.Residual(inner, 0.3))
    np.testing.assert_allclose(stack[2](x, None, "ntk"), blocks[2](x, None, "ntk"), rtol=1e-12)
    _, params = stack[0](random.PRNGKey(0), x.shape)
    in_turn = [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(2)]
    np.testing.assert_allclose(stack[1](params, x), blocks[1](in_turn, x), rtol=1e-12)


@pytest.mark.parametrize("not_a_layer", [nt_stax.Dense, None, (1, 2, 3)])
def test_a_branch_that_is_no_layer_is_refused(not_a_layer):
    for factory in (stax.Residual, lambda branch: stax.ResidualStack(branch, [0.5])):
        with pytest.raises(TypeError, match=r"`branch` must be a layer.*triple"):
            factory(not_a_layer)


@pytest.mark.parametrize("factory", [stax.Residual, stax.ResidualStack])
def test_a_layer_in_the_place_of_alpha_is_refused(factory):
    with pytest.raises(TypeError, match=r"must be real, got a layer.*stax.serial.*shortcut="):
        factory(nt_stax.Dense(8), nt_stax.Relu())


def test_a_branch_of_another_width_is_refused(x1):
    layers = (stax.Residual(dense_branch(8)), stax.ResidualStack(dense_branch(8), [1.0]))
    for init_fn, _, kernel_fn in layers:
        with pytest.raises(ValueError, match="must have the same output shape"):
            init_fn(random.PRNGKey(0), x1.shape)
        with pytest.raises(ValueError, match="must have the same output shape"):
            kernel_fn(x1)
