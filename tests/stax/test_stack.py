import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import finite_difference, full, mainly
from jax import random
from neural_tangents import stax as nt_stax
from residual_networks import ALPHAS, dense_branch

from nt_residual import schedules, stax


def _relu_branch(width=8):
    return nt_stax.serial(nt_stax.Dense(width, W_std=2**0.5), stax.Relu(), nt_stax.Dense(width))


def _block(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def test_normalizing_keeps_the_variance_constant(x1):
    first = nt_stax.Dense(8)
    stack = stax.ResidualStack(_relu_branch(), np.full(1000, 1.1), normalize_blocks=True)
    start = np.diag(first[2](x1, None, "nngp"))
    end = np.diag(nt_stax.serial(first, stack)[2](x1, None, "nngp"))
    np.testing.assert_allclose(end, start, rtol=1e-6 if x1.dtype == "float32" else 1e-12)


@pytest.mark.parametrize("normalize_blocks", [False, True])
@pytest.mark.parametrize("remat", [False, True])
def test_the_finite_stack_applies_its_blocks_in_turn(normalize_blocks, remat, x1):
    options = {"normalize_blocks": normalize_blocks}
    stack = stax.ResidualStack(dense_branch(3), ALPHAS, remat=remat, **options)
    shape, params = stack[0](random.PRNGKey(0), x1.shape)
    assert shape == x1.shape
    expected = x1
    for i, alpha in enumerate(ALPHAS):
        _, apply_fn, _ = stax.Residual(dense_branch(3), alpha, **options)
        expected = apply_fn(_block(params, i), expected)
    np.testing.assert_allclose(stack[1](params, x1), expected, rtol=1e-5, atol=1e-6)


def test_the_finite_stack_keeps_float32_with_x64_enabled(x64):
    init_fn, apply_fn, _ = stax.ResidualStack(dense_branch(3), [0.5, 0.3])
    x = jnp.ones((2, 3), "float32")
    _, params = init_fn(random.PRNGKey(0), x.shape)
    params = jax.tree.map(lambda leaf: leaf.astype("float32"), params)
    assert apply_fn(params, x).dtype == jnp.float32


@pytest.mark.parametrize(("given", "rtol"), [("int32", 1e-5), ("bfloat16", 0.02)])
def test_the_finite_stack_promotes_its_input_as_its_blocks_do(given, rtol):
    x = jnp.arange(6).reshape(2, 3).astype(given)
    stack = stax.ResidualStack(dense_branch(3), [0.5, 0.3])
    blocks = nt_stax.serial(*(stax.Residual(dense_branch(3), a) for a in (0.5, 0.3)))
    _, params = stack[0](random.PRNGKey(0), x.shape)
    got = stack[1](params, x)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, blocks[1]([_block(params, i) for i in range(2)], x), rtol=rtol)


def test_the_blocks_of_a_stack_have_independent_parameters():
    init_fn, _, _ = stax.ResidualStack(nt_stax.Dense(8), np.ones(3))
    _, params = init_fn(random.PRNGKey(0), (1, 8))
    weights = jax.tree.leaves(params)[0].reshape(3, -1)
    assert np.max(np.abs(np.corrcoef(weights) - np.eye(3))) < 0.4


def test_blocks_draw_their_own_dropout():
    branch = nt_stax.serial(nt_stax.Dense(64), nt_stax.Dropout(0.5), nt_stax.Dense(64))
    init_fn, apply_fn, _ = stax.ResidualStack(branch, [1.0, 1.0])
    x = jnp.ones((1, 64))
    _, params = init_fn(random.PRNGKey(0), x.shape)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf[0], leaf[0]]), params)
    first = stax.Residual(branch, 1.0)[1](_block(params, 0), x, rng=random.PRNGKey(1))
    outputs = [apply_fn(params, x, rng=random.PRNGKey(i)) for i in (1, 1, 2)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.max(np.abs(outputs[0] - outputs[2])) > 0.1
    assert np.max(np.abs(outputs[0] - first)) > 0.1


@mainly("float32")
@pytest.mark.parametrize("depth", [5, *full(1, 2, 12)])
def test_recomputing_blocks_leaves_values_and_gradients_as_they_are(depth, x1):
    alphas = np.linspace(0.1, 1, depth)
    results = []
    for remat in (False, True):
        init_fn, apply_fn, kernel_fn = stax.ResidualStack(dense_branch(3), alphas, remat=remat)
        _, params = init_fn(random.PRNGKey(0), x1.shape)

        def loss(params, x, apply_fn=apply_fn):
            return jnp.sum(apply_fn(params, x) ** 2)

        def entry(x, kernel_fn=kernel_fn):
            return kernel_fn(x, None, "ntk")[0, 1]

        results.append((jax.grad(loss, (0, 1))(params, x1), jax.grad(entry)(x1)))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# The size of what is compiled.


def _temporary_bytes(fn, *arguments):
    return jax.jit(fn).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def test_program_and_memory_of_the_kernel_do_not_grow_with_depth():
    x1, x2 = jnp.ones((64, 3)), jnp.ones((32, 3))
    first, branch, last = nt_stax.Dense(8), _relu_branch(), nt_stax.Dense(1)
    lines, memory = {}, {}
    for depth in (10, 10_000):
        net = nt_stax.serial(first, stax.ResidualStack(branch, np.full(depth, 0.01)), last)
        kernel_fn = jax.jit(lambda x1, x2, net=net: net[2](x1, x2, "ntk"))
        compiled = kernel_fn.lower(x1, x2).compile()
        lines[depth] = compiled.as_text().count("\n")
        memory[depth] = compiled.memory_analysis().temp_size_in_bytes
    assert lines[10_000] <= 1.05 * lines[10]
    assert memory[10_000] <= 1.3 * memory[10]


def test_gradients_through_a_thousand_blocks_need_little_memory_with_remat():
    width, batch, depth = 32, 64, 1000
    x = jnp.ones((batch, width))
    memory = {}
    for remat in (False, True):
        branch = _relu_branch(width)
        init_fn, apply_fn, _ = stax.ResidualStack(branch, np.full(depth, 0.03), remat=remat)
        params = jax.eval_shape(lambda key, f=init_fn: f(key, x.shape)[1], random.PRNGKey(0))

        def loss(params, x, apply_fn=apply_fn):
            return jnp.sum(apply_fn(params, x) ** 2)

        memory[remat] = _temporary_bytes(jax.grad(loss), params, x)
    activation = 4 * batch * width
    # One activation per block is what checkpoints of single blocks would keep.
    assert memory[True] < depth * activation / 3
    assert memory[False] > 3 * depth * activation


def test_gradients_of_the_kernel_need_little_memory_with_remat():
    x, depth = jnp.ones((64, 3)), 1000
    memory = {}
    for remat in (False, True):

        def entry(alphas, remat=remat):
            stack = stax.ResidualStack(_relu_branch(), alphas, remat=remat)
            return nt_stax.serial(nt_stax.Dense(8), stack)[2](x, None, "ntk")[0, 1]

        memory[remat] = _temporary_bytes(jax.grad(entry), jnp.full(depth, 0.03))
    assert memory[True] < memory[False] / 8


# Derivatives in α and in the parameters of a schedule.


@pytest.mark.parametrize("normalize_blocks", [False, True])
@pytest.mark.parametrize(
    "alphas_of", [lambda a: jnp.array([0.3, a, 1.0]), lambda a: [a, 0.5, a**2]]
)
def test_kernels_are_differentiable_in_alphas(alphas_of, normalize_blocks, x64):
    x = random.normal(random.PRNGKey(0), (2, 3))

    def entry(alpha):
        alphas = alphas_of(alpha)
        stack = stax.ResidualStack(dense_branch(3), alphas, normalize_blocks=normalize_blocks)
        return stack[2](x, None, "ntk")[0, 1]

    np.testing.assert_allclose(jax.grad(entry)(0.6), finite_difference(entry, 0.6), rtol=1e-7)


# Overflow.


def test_kernels_and_outputs_that_overflow_are_errors_or_if_compiled_warnings():
    net = stax.FullyConnectedResNet(1000, 8, schedule=schedules.Constant())
    x = random.normal(random.PRNGKey(0), (4, 3))
    message = r"kernel of 1000 residual blocks is infinite or NaN.*float32.*normalize_blocks=True"
    with pytest.raises(OverflowError, match=message):
        net[2](x)
    _, params = net[0](random.PRNGKey(1), x.shape)
    with pytest.raises(OverflowError, match=r"output of 1000 residual blocks is infinite or NaN"):
        net[1](params, x)
    with pytest.warns(UserWarning, match=r"multiply their output by up to exp\(347\)"):
        jax.jit(net[1])(params, x)


def test_a_compiled_kernel_that_may_overflow_gives_a_warning():
    x = random.normal(random.PRNGKey(0), (4, 3))

    def kernel(depth, **options):
        stack = stax.ResidualStack(_relu_branch(3), np.ones(depth), **options)
        return jax.jit(lambda x: stack[2](x, None, "ntk"))(x)

    with pytest.warns(UserWarning, match=r"by up to exp\((693|347)\), beyond .*float32.*norm"):
        kernel(1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.all(np.isfinite(kernel(100)))
        assert np.all(np.isfinite(kernel(1000, normalize_blocks=True)))


def test_the_growth_over_all_stages_is_counted():
    net = stax.ConvResNet((100, 100), 4, schedule=schedules.Constant())
    x = jnp.ones((1, 2, 2, 3))
    with pytest.warns(UserWarning, match=r"200 residual blocks multiply their (kernel|output)"):
        jax.jit(lambda x: net[2](x, None, "ntk"))(x)


def test_inputs_that_are_not_finite_are_not_called_an_overflow():
    stack = stax.ResidualStack(_relu_branch(3), [0.5, 0.5])
    x = jnp.array([[jnp.nan, 1.0, 2.0], [0.0, 1.0, 2.0]])
    assert np.isnan(stack[2](x, None, "nngp")[0, 0])


# Bad input.


@pytest.mark.parametrize(
    ("alphas", "error"),
    [
        *[(value, ValueError) for value in ([np.nan], [1.0, np.inf], [0.5, -1.0], [], [[0.5]])],
        *[(value, TypeError) for value in (0.5, ["a"], [1j], [None], [True])],
    ],
)
def test_alphas_other_than_non_negative_numbers_are_refused(alphas, error):
    with pytest.raises(error, match="alphas must"):
        stax.ResidualStack(dense_branch(8), alphas)


def test_a_stack_whose_blocks_change_the_shape_is_refused(x1):
    init_fn, _, kernel_fn = stax.ResidualStack(dense_branch(8), [1.0], shortcut=nt_stax.Dense(8))
    with pytest.raises(ValueError, match="must keep the shape of its input"):
        init_fn(random.PRNGKey(0), x1.shape)
    with pytest.raises(ValueError, match="must keep the shape of its input"):
        kernel_fn(x1)
