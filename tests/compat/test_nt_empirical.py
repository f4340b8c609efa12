"""The finite-width functions of neural-tangents against the definitions in their docstrings."""

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from neural_tangents import stax
from nt_networks import VECTORS, array, parameters


@pytest.fixture
def network(x64):
    init_fn, f, _ = stax.serial(stax.Dense(8, b_std=0.1), stax.Erf(), stax.Dense(3))
    params = jax.tree.map(jnp.asarray, parameters(init_fn, (-1, 6)))
    return f, params, *map(jnp.asarray, VECTORS)


def jacobian(f, params, x):
    """Of shape (n, outputs, parameters)."""
    leaves = jax.tree.leaves(jax.jacobian(f)(params, x))
    return np.concatenate([leaf.reshape(*f(params, x).shape, -1) for leaf in leaves], axis=-1)


@pytest.mark.parametrize("implementation", nt.NtkImplementation)
def test_the_ntk_is_the_product_of_jacobians(network, implementation):
    f, params, x1, x2 = network
    j1, j2 = jacobian(f, params, x1), jacobian(f, params, x2)

    def ntk(**axes):
        return nt.empirical_ntk_fn(f, **axes, implementation=implementation)(x1, x2, params)

    whole = np.einsum("aip,bjp->abij", j1, j2)
    np.testing.assert_allclose(ntk(trace_axes=()), whole, rtol=1e-9)
    np.testing.assert_allclose(ntk(), np.einsum("abii->ab", whole) / 3, rtol=1e-9)
    diagonal = ntk(trace_axes=(), diagonal_axes=(1,))
    np.testing.assert_allclose(diagonal, np.einsum("abii->abi", whole), rtol=1e-9)


@pytest.mark.parametrize("implementation", nt.NtkImplementation)
def test_ntks_can_be_jitted_and_differentiated(network, implementation):
    f, params, x1, x2 = network
    ntk_fn = nt.empirical_ntk_fn(f, implementation=implementation)
    reference_fn = nt.empirical_ntk_fn(f, implementation=1)

    def total(fn, x):
        return jnp.sin(fn(x, x2, params)).sum()

    gradient = jax.jit(jax.grad(lambda x: total(ntk_fn, x)))(x1)
    expected = jax.grad(lambda x: total(reference_fn, x))(x1)
    np.testing.assert_allclose(gradient, expected, rtol=1e-8)


def test_auto_compares_floating_point_operations_once_per_shape(network, capsys):
    f, params, x1, x2 = network
    ntk_fn = nt.empirical_ntk_fn(f, implementation=nt.NtkImplementation.AUTO)
    ntk_fn(x1, x2, params)
    counts = [float(line.split("flops=")[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(counts) == 3
    assert all(count > 0 for count in counts)
    ntk_fn(x1 + 1.0, x2, params)
    assert not capsys.readouterr().out
    ntk_fn(x1[:2], x2, params)
    assert capsys.readouterr().out


def test_structured_derivatives_are_compiled_once(network):
    f, params, x1, x2 = network
    ntk_fn = jax.jit(nt.empirical_ntk_fn(f, implementation=3))
    for shift in range(3):
        ntk_fn(x1 + shift, x2, params)
    assert ntk_fn._cache_size() == 1


def test_structured_derivatives_take_fewer_operations_where_their_paper_says_so():
    width, outputs = 256, 32

    def f(params, x):
        for w in params[:-1]:
            x = jax.nn.relu(x @ w)
        return x @ params[-1]

    shapes = [(width, width)] * 3 + [(width, outputs)]
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    x = jax.ShapeDtypeStruct((4, width), jnp.float32)

    def flops(implementation):
        ntk_fn = nt.empirical_ntk_fn(f, (), vmap_axes=0, implementation=implementation)
        return jax.jit(ntk_fn).lower(x, None, params).compile().cost_analysis()["flops"]

    assert flops(1) > 20 * flops(3)
    assert flops(2) > 5 * flops(3)


@pytest.mark.parametrize("implementation", nt.NtkImplementation)
def test_keyword_arguments_and_parameters_may_be_python_numbers(implementation, x64):
    def f(params, x, scale):
        return scale * jnp.tanh(x * params["w"] + params["b"])

    ntk_fn = nt.empirical_ntk_fn(f, (), implementation=implementation)
    x = jnp.array([[0.5], [1.0]])
    ntk = ntk_fn(x, None, {"w": 1.5, "b": jnp.array([0.25])}, scale=2.0)
    slope = 2 / np.cosh(1.5 * x[:, 0] + 0.25) ** 2
    expected = np.outer(slope, slope) * (1 + np.outer(x, x))
    np.testing.assert_allclose(ntk[:, :, 0, 0], expected, rtol=1e-12)


@pytest.mark.skipif(not hasattr(jax, "new_ref"), reason="this JAX has no mutable arrays")
def test_mutable_arrays_are_refused_by_structured_derivatives(network):
    def f(params, x):
        ref = jax.new_ref(jnp.zeros((4, 3)))
        ref[...] = x @ params
        return jnp.sin(ref[...])

    x1, params = network[2], jnp.asarray(array(6, 3))
    with pytest.raises(NotImplementedError, match=r"mutable arrays.*Pass implementation=1"):
        nt.empirical_ntk_fn(f, implementation=3)(x1, None, params)


def test_a_large_loop_costs_no_more_than_with_jacobians():
    def f(params, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, params)[0][:, 0]

    params = jax.ShapeDtypeStruct((8, 64, 64), jnp.float32)
    x = jax.ShapeDtypeStruct((4, 64), jnp.float32)

    def memory(implementation):
        ntk_fn = nt.empirical_ntk_fn(f, (), vmap_axes=0, implementation=implementation)
        compiled = jax.jit(ntk_fn).lower(x, None, params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(3) < 2 * memory(1)


def test_a_parameter_that_is_no_floating_point_number_is_refused(network):
    _, _, x1, _ = network
    ntk_fn = nt.empirical_ntk_fn(lambda p, x: x * p["w"] ** p["n"], implementation=3)
    with pytest.raises(TypeError, match=r"floating-point.* int64 of shape \(6,\).*[Cc]lose f over"):
        ntk_fn(x1, None, {"n": jnp.arange(6), "w": jnp.ones(6)})
