"""`neural_tangents.stax` does what its documentation says: shapes, masks, `get`, own layers."""

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from jax import random
from neural_tangents import stax
from nt_cases import stored
from nt_networks import ELEMENTWISE, IMAGES, NETWORKS, SEQUENCES, VECTORS, parameters

REFERENCE = stored()

SHAPED = {name: NETWORKS[name] for name in NETWORKS if name != "GlobalSelfAttention_positions"}


def dense(*layers):
    return stax.serial(stax.Dense(16, W_std=1.3), *layers, stax.Dense(3))


def test_the_kernel_of_one_hidden_relu_layer_is_the_arc_cosine_kernel(x64):
    x = np.array([[1.0, 0.0], [0.6, 0.8]])
    theta = np.arccos(0.6)
    _, _, kernel_fn = stax.serial(stax.Dense(1, W_std=2**0.5), stax.Relu(), stax.Dense(1))
    nngp = (0.6 * (np.pi - theta) + np.sin(theta)) / np.pi / 2
    ntk = nngp + 0.6 * (1 - theta / np.pi) / 2
    between = kernel_fn(x[:1], x[1:], ("nngp", "ntk"))
    np.testing.assert_allclose(between.nngp, [[nngp]], rtol=1e-12)
    np.testing.assert_allclose(between.ntk, [[ntk]], rtol=1e-12)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SHAPED)
def test_the_three_functions_of_a_network_agree_on_the_output_shape(name):
    (x, _), network = SHAPED[name]
    init_fn, apply_fn, kernel_fn = network()
    x, shapes = jnp.asarray(x, jnp.float32), []

    def apply(key):
        shape, params = init_fn(key, x.shape)
        shapes.append(shape)
        return apply_fn(params, x, rng=key)

    shapes.append(jax.eval_shape(apply, random.PRNGKey(0)).shape)
    shapes.append(jax.eval_shape(lambda x: kernel_fn(x, None), x).shape1)
    assert len(set(shapes)) == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_float32_kernels_are_those_of_float64_between_different_inputs(name):
    x1, x2 = (jnp.asarray(x, jnp.float32) for x in VECTORS)
    layers = stax.Dense(7, W_std=1.3, b_std=0.2), ELEMENTWISE[name](), stax.Dense(3, 1.1, 0.1)
    kernel = stax.serial(*layers)[2](x1, x2, ("nngp", "ntk"))
    for kind in ("nngp", "ntk"):
        expected = REFERENCE[f"kernel/{name}"][kind]
        actual = getattr(kernel, kind)
        assert actual.dtype == jnp.float32
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_get_names_one_quantity_several_or_all():
    x = jnp.asarray(VECTORS[0], jnp.float32)
    _, _, kernel_fn = dense(stax.Erf())
    whole = kernel_fn(x, None)
    assert isinstance(whole, nt.Kernel)
    assert isinstance(kernel_fn(x, None, "ntk"), jax.Array)
    some = kernel_fn(x, None, ("nngp", "cov1"))
    assert some._fields == ("nngp", "cov1")
    np.testing.assert_array_equal(some.nngp, whole.nngp)
    np.testing.assert_array_equal(some.cov1, whole.cov1)


def test_a_kernel_of_one_network_is_the_input_of_the_next():
    x = jnp.asarray(VECTORS[0], jnp.float32)
    first, second = stax.serial(stax.Dense(8), stax.Relu()), stax.serial(stax.Dense(8), stax.Erf())
    chained = second[2](first[2](x, None)).ntk
    np.testing.assert_allclose(chained, stax.serial(first, second)[2](x, None, "ntk"), rtol=1e-6)


def test_repeat_is_serial_many_times():
    x = jnp.asarray(VECTORS[0], jnp.float32)
    block = stax.serial(stax.Dense(6), stax.Erf())
    repeated = stax.repeat(block, 4)[2](x, None, "ntk")
    np.testing.assert_allclose(repeated, stax.serial(*[block] * 4)[2](x, None, "ntk"), rtol=1e-5)


def test_diagonals_are_the_diagonals_of_the_whole():
    x = jnp.asarray(IMAGES[0], jnp.float32)
    # Two convolutions: after an odd number neural-tangents keeps spatial axes reversed.
    conv = stax.Conv(4, (3, 3), padding="SAME")
    _, _, kernel_fn = stax.serial(conv, stax.Relu(), conv)
    whole = kernel_fn(x, None, diagonal_batch=False, diagonal_spatial=False)
    assert whole.nngp.shape == (3, 3, 6, 6, 5, 5)
    short = kernel_fn(x, None, diagonal_batch=True, diagonal_spatial=True)
    assert short.nngp.shape == (3, 3, 6, 5)
    expected = jnp.einsum("abiijj->abij", whole.nngp)
    np.testing.assert_allclose(short.nngp, expected, rtol=1e-5)
    np.testing.assert_allclose(short.cov1, jnp.einsum("aaiijj->aij", whole.cov1), rtol=1e-5)


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


def test_a_masked_input_gives_the_output_of_the_cropped_one(x64):
    x = jnp.asarray(SEQUENCES[0])
    init_fn, apply_fn, _ = stax.serial(stax.Dense(4), stax.Erf(), stax.GlobalAvgPool())
    params = parameters(init_fn, x.shape)
    masked = apply_fn(params, x.at[:, 2:].set(7.0), mask_constant=7.0)
    expected = apply_fn(params, x[:, :2])
    np.testing.assert_allclose(stax.unmask_fn(lambda y: y)(masked), expected, rtol=1e-12)


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


def test_dropout_keeps_a_share_of_the_units_and_the_mean():
    init_fn, apply_fn, _ = stax.Dropout(0.25)
    x = jnp.ones((4, 20_000))
    _, params = init_fn(random.PRNGKey(0), x.shape)
    y = apply_fn(params, x, rng=random.PRNGKey(1))
    assert set(np.unique(y)) == {0.0, 4.0}
    np.testing.assert_allclose((y > 0).mean(), 0.25, atol=0.01)


def test_typed_random_keys_are_accepted():
    init_fn, apply_fn, _ = dense(stax.Relu())
    _, params = init_fn(random.key(0), (-1, 6))
    assert apply_fn(params, jnp.ones((2, 6))).shape == (2, 3)


def test_own_layers_are_made_with_the_decorators():
    @stax.layer
    @stax.supports_masking(remask_kernel=False)
    def Double():
        def init_fn(rng, input_shape):
            return input_shape, ()

        def apply_fn(params, inputs, **kwargs):
            return 2 * inputs

        @stax.requires(diagonal_spatial=stax.Diagonal(input=stax.Bool.MAYBE))
        def kernel_fn(k, **kwargs):
            return k.replace(nngp=4 * k.nngp, ntk=4 * k.ntk, cov1=4 * k.cov1)

        return init_fn, apply_fn, kernel_fn

    x = jnp.asarray(VECTORS[0], jnp.float32)
    kernel = stax.serial(stax.Dense(1), Double())[2](x, None, ("nngp", "ntk"))
    plain = stax.Dense(1)[2](x, None, ("nngp", "ntk"))
    np.testing.assert_allclose(kernel.nngp, 4 * plain.nngp, rtol=1e-6)
    np.testing.assert_allclose(kernel.ntk, 4 * plain.ntk, rtol=1e-6)


def test_layers_without_a_kernel_say_so():
    x = jnp.ones((2, 4, 3))
    attention = stax.GlobalSelfAttention(4, 4, 4, n_heads=1, linear_scaling=False)
    with pytest.raises(NotImplementedError):
        attention[2](x, None)
    with pytest.raises(NotImplementedError):
        stax.ExpNormalized()[1]((), x)
