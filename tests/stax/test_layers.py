import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from jax import random
from neural_tangents import stax as nt_stax

from nt_residual import stax

# neural-tangents takes the angle between equal inputs from 1 − cos²: near the
# diagonal its own rounding is the root of machine epsilon.
OFF_DIAGONAL = {"float32": 1e-5, "float64": 1e-13}
DIAGONAL = {"float32": 1e-3, "float64": 1e-7}

ALPHAS = np.array([0.1, 1.0, 0.0, 0.6, 0.3])


def _dense_branch(alpha=1.0, width=8):
    return nt_stax.serial(
        nt_stax.Dense(width, W_std=2**0.5), nt_stax.Relu(), nt_stax.Dense(width, W_std=alpha)
    )


def _conv_branch(alpha=1.0):
    return nt_stax.serial(nt_stax.Relu(), nt_stax.Conv(4, (3, 3), W_std=alpha, padding="SAME"))


def _unrolled(branch, alphas):
    """A stack as neural-tangents can write it: α is part of the last layer of each branch."""
    blocks = [
        nt_stax.serial(
            nt_stax.FanOut(2),
            nt_stax.parallel(nt_stax.Identity(), branch(alpha)),
            nt_stax.FanInSum(),
        )
        for alpha in alphas
    ]
    return nt_stax.serial(*blocks)


def _assert_same_kernel(ours, theirs, x1, x2, dtype):
    for name in ("nngp", "ntk", "cov1"):
        got, expected = (np.asarray(getattr(net(x1, x2), name)) for net in (ours, theirs))
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=DIAGONAL[dtype.name])
        if x2 is not None:
            np.testing.assert_allclose(got, expected, rtol=0, atol=OFF_DIAGONAL[dtype.name])


@pytest.fixture
def x1(dtype):
    return random.normal(random.PRNGKey(0), (4, 3), dtype)


@pytest.fixture
def x2(dtype):
    return random.normal(random.PRNGKey(1), (2, 3), dtype)


@pytest.mark.filterwarnings("ignore:.FanIn. layers assume")
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_stack_kernel_equals_that_of_the_unrolled_network(x1, x2, symmetric, dtype):
    first, last = nt_stax.Dense(8), nt_stax.Dense(1)
    ours = nt_stax.serial(first, stax.ResidualStack(_dense_branch(), ALPHAS), last)
    theirs = nt_stax.serial(first, _unrolled(_dense_branch, ALPHAS), last)
    _assert_same_kernel(ours[2], theirs[2], x1, None if symmetric else x2, dtype)


@pytest.mark.filterwarnings("ignore:.FanIn. layers assume")
@pytest.mark.parametrize("pooling", [nt_stax.Flatten, nt_stax.GlobalAvgPool])
def test_a_stack_with_one_convolution_per_branch_equals_the_unrolled_network(pooling, x64):
    # neural-tangents' `repeat` does not allow an odd number of convolutions.
    dtype = jnp.dtype("float64")
    x1, x2 = (random.normal(random.PRNGKey(i), (2, 5, 4, 3), dtype) for i in range(2))
    first, last = nt_stax.Conv(4, (3, 3)), nt_stax.serial(pooling(), nt_stax.Dense(1))
    ours = nt_stax.serial(first, stax.ResidualStack(_conv_branch(), ALPHAS[:3]), last)
    theirs = nt_stax.serial(first, _unrolled(_conv_branch, ALPHAS[:3]), last)
    _assert_same_kernel(ours[2], theirs[2], x1, x2, dtype)


def test_a_stack_of_one_block_is_that_block(x1, x2):
    stack = stax.ResidualStack(_dense_branch(width=3), [0.7])
    block = stax.Residual(_dense_branch(width=3), 0.7)
    for name in ("nngp", "ntk"):
        np.testing.assert_array_equal(stack[2](x1, x2, name), block[2](x1, x2, name))


def test_normalising_keeps_the_variance_constant(x1):
    first = nt_stax.Dense(8)
    stack = stax.ResidualStack(_dense_branch(), np.ones(300), normalize=True)
    start = np.diag(first[2](x1, None, "nngp"))
    end = np.diag(nt_stax.serial(first, stack)[2](x1, None, "nngp"))
    np.testing.assert_allclose(end, start, rtol=1e-3)


def test_the_finite_stack_applies_its_blocks_in_turn(x1):
    stack = stax.ResidualStack(_dense_branch(width=3), ALPHAS)
    shape, params = stack[0](random.PRNGKey(0), x1.shape)
    assert shape == x1.shape
    expected = x1
    for i, alpha in enumerate(ALPHAS):
        _, apply_fn, _ = stax.Residual(_dense_branch(width=3), alpha)
        expected = apply_fn(jax.tree.map(lambda leaf, i=i: leaf[i], params), expected)
    np.testing.assert_allclose(stack[1](params, x1), expected, rtol=1e-5, atol=1e-6)


def test_the_finite_stack_keeps_float32_with_x64_enabled(x64):
    init_fn, apply_fn, _ = stax.ResidualStack(_dense_branch(width=3), [0.5, 0.3])
    x = jnp.ones((2, 3), "float32")
    _, params = init_fn(random.PRNGKey(0), x.shape)
    params = jax.tree.map(lambda leaf: leaf.astype("float32"), params)
    assert apply_fn(params, x).dtype == jnp.float32


@pytest.mark.parametrize(("given", "rtol"), [("int32", 1e-5), ("bfloat16", 0.02)])
def test_the_finite_stack_promotes_its_input_as_its_blocks_do(given, rtol):
    x = jnp.arange(6).reshape(2, 3).astype(given)
    stack = stax.ResidualStack(_dense_branch(width=3), [0.5, 0.3])
    blocks = nt_stax.serial(*(stax.Residual(_dense_branch(width=3), a) for a in (0.5, 0.3)))
    _, params = stack[0](random.PRNGKey(0), x.shape)
    in_turn = [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(2)]
    got = stack[1](params, x)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, blocks[1](in_turn, x), rtol=rtol)


def test_a_convolution_on_the_shortcut_may_reverse_spatial_axes(x64):
    x = random.normal(random.PRNGKey(0), (2, 5, 4, 4))
    layers = {"branch": _conv_branch(), "shortcut": nt_stax.Conv(4, (3, 3), padding="SAME")}
    first, last = nt_stax.Conv(4, (3, 3)), nt_stax.serial(nt_stax.GlobalAvgPool(), nt_stax.Dense(1))
    stack = stax.ResidualStack(alphas=[0.5, 0.3], **layers)
    blocks = nt_stax.serial(*(stax.Residual(alpha=a, **layers) for a in (0.5, 0.3)))
    got, expected = (nt_stax.serial(first, net, last)[2](x, None, "ntk") for net in (stack, blocks))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_the_blocks_of_a_stack_have_independent_parameters():
    init_fn, _, _ = stax.ResidualStack(_dense_branch(), np.ones(3))
    _, params = init_fn(random.PRNGKey(0), (1, 8))
    weights = jax.tree.leaves(params)[0].reshape(3, -1)
    assert np.max(np.abs(np.corrcoef(weights) - np.eye(3))) < 0.4


def test_recomputing_the_blocks_leaves_gradients_as_they_are(x1):
    gradients = []
    for remat in (False, True):
        init_fn, apply_fn, _ = stax.ResidualStack(_dense_branch(width=3), ALPHAS, remat=remat)
        _, params = init_fn(random.PRNGKey(0), x1.shape)
        loss = lambda params, apply_fn=apply_fn: jnp.sum(apply_fn(params, x1) ** 2)  # noqa: E731
        gradients.append(jax.tree.leaves(jax.grad(loss)(params)))
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_compiled_size_of_a_stack_kernel_does_not_depend_on_depth(x1, x2):
    def size(depth):
        stack = stax.ResidualStack(_dense_branch(), np.full(depth, 0.01))
        net = nt_stax.serial(nt_stax.Dense(8), stack)
        kernel_fn = jax.jit(net[2], static_argnums=2)
        return kernel_fn.lower(x1, x2, "ntk").as_text().count("\n")

    assert size(1000) == size(10)


@pytest.mark.parametrize("alpha", [0.5, -2.0, 0])
def test_scale_multiplies_outputs_by_alpha_and_kernels_by_its_square(alpha, x1, x2):
    dense = nt_stax.Dense(5)
    init_fn, apply_fn, kernel_fn = nt_stax.serial(dense, stax.Scale(alpha))
    _, params = init_fn(random.PRNGKey(0), x1.shape)
    np.testing.assert_allclose(apply_fn(params, x1), alpha * dense[1](params[0], x1), rtol=1e-6)
    for name in ("nngp", "ntk", "cov1", "cov2"):
        expected = alpha**2 * dense[2](x1, x2, name)
        np.testing.assert_allclose(kernel_fn(x1, x2, name), expected, rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_a_residual_block_takes_a_raw_input_on_its_shortcut(x1, x2):
    _, _, kernel_fn = stax.Residual(_dense_branch(width=3), alpha=0.5)
    k = kernel_fn(x1, x2)
    assert not k.is_gaussian
    expected = x1 @ x2.T / 3 + 0.25 * _dense_branch()[2](x1, x2, "nngp")
    np.testing.assert_allclose(k.nngp, expected, rtol=1e-5, atol=1e-6)


def test_a_residual_block_takes_a_projection_on_its_shortcut(x1, x2):
    shortcut = nt_stax.Dense(8, W_std=1.5)
    _, _, kernel_fn = stax.Residual(_dense_branch(), 0.5, shortcut=shortcut)
    for name in ("nngp", "ntk"):
        expected = shortcut[2](x1, x2, name) + 0.25 * _dense_branch()[2](x1, x2, name)
        np.testing.assert_allclose(kernel_fn(x1, x2, name), expected, rtol=1e-5, atol=1e-6)


def test_a_residual_kernel_agrees_with_monte_carlo():
    x = random.normal(random.PRNGKey(0), (3, 4))
    net = nt_stax.serial(
        nt_stax.Dense(512),
        stax.Residual(_dense_branch(width=512), alpha=0.7, normalize=True),
        nt_stax.Dense(1),
    )
    sampled = nt.monte_carlo_kernel_fn(net[0], net[1], random.PRNGKey(1), 40, vmap_axes=0)
    scale = np.max(net[2](x, None, "ntk"))
    np.testing.assert_allclose(
        sampled(x, None, "ntk"), net[2](x, None, "ntk"), atol=0.06 * scale, rtol=0
    )


MASKABLE_BRANCH = nt_stax.serial(nt_stax.Relu(), nt_stax.Conv(4, (3,), padding="SAME"))


@pytest.mark.parametrize(
    "layer",
    [stax.Residual(MASKABLE_BRANCH, 0.5), stax.ResidualStack(MASKABLE_BRANCH, [0.5, 0.3, 0.2])],
    ids=["block", "stack"],
)
@pytest.mark.parametrize("first", [nt_stax.Conv(4, (3,), padding="SAME"), nt_stax.Dense(4)])
def test_what_is_masked_reaches_neither_kernels_nor_outputs(layer, first):
    x = random.normal(random.PRNGKey(0), (2, 6, 3))
    init_fn, apply_fn, kernel_fn = nt_stax.serial(first, layer, nt_stax.GlobalAvgPool())
    _, params = init_fn(random.PRNGKey(1), x.shape)
    kernels, outputs = [], []
    for masked in (100.0, -7.0):
        x = x.at[:, 4:].set(masked)
        kernels.append(kernel_fn(x, None, "nngp", mask_constant=masked))
        outputs.append(nt_stax.unmask_fn(apply_fn)(params, x, mask_constant=masked))
    np.testing.assert_allclose(*kernels, rtol=1e-6)
    np.testing.assert_allclose(*outputs, rtol=1e-6, atol=1e-7)
    assert np.max(np.abs(kernels[0])) < 10
    assert np.max(np.abs(outputs[0])) < 10


def test_a_masked_input_may_go_straight_into_a_stack():
    x = random.normal(random.PRNGKey(0), (2, 6, 4)).at[:, 4:].set(100.0)
    branch = nt_stax.serial(nt_stax.Dense(4), MASKABLE_BRANCH)
    stack = stax.ResidualStack(branch, [0.5, 0.3])
    blocks = nt_stax.serial(stax.Residual(branch, 0.5), stax.Residual(branch, 0.3))
    _, params = stack[0](random.PRNGKey(1), x.shape)
    in_turn = [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(2)]
    np.testing.assert_allclose(
        nt_stax.unmask_fn(stack[1])(params, x, mask_constant=100.0),
        nt_stax.unmask_fn(blocks[1])(in_turn, x, mask_constant=100.0),
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        stack[2](x, None, "ntk", mask_constant=100.0),
        blocks[2](x, None, "ntk", mask_constant=100.0),
        rtol=1e-5,
    )


@pytest.mark.parametrize("get", ["nngp", "ntk"])
def test_freezing_leaves_the_nngp_and_removes_the_layers_own_ntk(get, x1, x2):
    first, last = _dense_branch(), nt_stax.Dense(1, W_std=1.5)
    frozen = nt_stax.serial(first, stax.Frozen(last))[2](x1, x2, get)
    if get == "nngp":
        expected = nt_stax.serial(first, last)[2](x1, x2, get)
    else:
        expected = 1.5**2 * first[2](x1, x2, get)
    np.testing.assert_allclose(frozen, expected, rtol=1e-6)


def test_a_network_with_all_layers_frozen_has_no_ntk(x1, x2):
    np.testing.assert_array_equal(stax.Frozen(_dense_branch())[2](x1, x2, "ntk"), np.zeros((4, 2)))


def test_freezing_leaves_outputs_and_stops_gradients(x1):
    layer = _dense_branch()
    init_fn, apply_fn, _ = stax.Frozen(layer)
    _, params = init_fn(random.PRNGKey(0), x1.shape)
    np.testing.assert_array_equal(apply_fn(params, x1), layer[1](params, x1))
    gradient = jax.grad(lambda params: jnp.sum(apply_fn(params, x1)))(params)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(gradient))


def test_frozen_layers_can_be_parallel(x1, x2):
    layers = nt_stax.serial(
        nt_stax.FanOut(2), stax.Frozen(nt_stax.parallel(_dense_branch(), nt_stax.Dense(8)))
    )
    kernels = layers[2](x1, x2)
    assert all(np.all(np.asarray(k.ntk) == 0) for k in kernels)


# Bad input.


@pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
def test_an_alpha_that_is_not_finite_is_refused(alpha):
    for factory in (stax.Scale, lambda alpha: stax.Residual(_dense_branch(), alpha)):
        with pytest.raises(ValueError, match="`alpha` must be finite, got"):
            factory(alpha)


@pytest.mark.parametrize("alpha", ["a", [1.0, 2.0], None])
def test_an_alpha_that_is_no_scalar_is_refused(alpha):
    with pytest.raises(TypeError, match="`alpha` must be a real scalar, got"):
        stax.Scale(alpha)


@pytest.mark.parametrize("alphas", [[np.nan], [1.0, np.inf], [0.5, -1.0]])
def test_alphas_that_are_not_finite_and_non_negative_are_refused(alphas):
    message = r"`alphas` must be finite and non-negative, got .* in block"
    with pytest.raises(ValueError, match=message):
        stax.ResidualStack(_dense_branch(), alphas)


@pytest.mark.parametrize("alphas", [0.5, [], [[0.5]]])
def test_alphas_of_the_wrong_shape_are_refused(alphas):
    with pytest.raises(ValueError, match=r"`alphas` must have shape \(depth,\)"):
        stax.ResidualStack(_dense_branch(), alphas)


def test_alphas_that_are_not_numbers_are_refused():
    with pytest.raises(TypeError, match="`alphas` must hold real numbers"):
        stax.ResidualStack(_dense_branch(), ["a"])


def test_a_branch_that_does_not_end_in_a_zero_mean_layer_is_refused(x1):
    branch = nt_stax.serial(nt_stax.Dense(3), nt_stax.Relu())
    for layer in (stax.Residual(branch), stax.ResidualStack(branch, [0.5, 0.5])):
        with pytest.raises(ValueError, match=r"`branch` must end in .* mean-zero.*Append"):
            layer[2](x1)


@pytest.mark.parametrize("not_a_layer", [nt_stax.Dense, None, (1, 2, 3)])
def test_a_branch_that_is_no_layer_is_refused(not_a_layer):
    for factory in (stax.Residual, lambda branch: stax.ResidualStack(branch, [0.5])):
        with pytest.raises(TypeError, match=r"`branch` must be a layer.*triple"):
            factory(not_a_layer)


def test_a_branch_without_random_layers_is_refused(x1):
    # Its output would not be independent of the shortcut.
    net = nt_stax.serial(nt_stax.Dense(3), stax.Residual(nt_stax.Identity()))
    with pytest.raises(ValueError, match="`branch` must have parameters of its own"):
        net[2](x1)


def test_a_branch_of_another_width_is_refused(x1):
    layers = (stax.Residual(_dense_branch()), stax.ResidualStack(_dense_branch(), [1.0]))
    for init_fn, _, kernel_fn in layers:
        with pytest.raises(ValueError, match="must have the same output shape"):
            init_fn(random.PRNGKey(0), x1.shape)
        with pytest.raises(ValueError, match="must have the same output shape"):
            kernel_fn(x1)


def test_a_stack_whose_blocks_change_the_shape_is_refused(x1):
    init_fn, _, kernel_fn = stax.ResidualStack(_dense_branch(), [1.0], shortcut=nt_stax.Dense(8))
    with pytest.raises(ValueError, match="must keep the shape of its input"):
        init_fn(random.PRNGKey(0), x1.shape)
    with pytest.raises(ValueError, match="must keep the shape of its input"):
        kernel_fn(x1)
