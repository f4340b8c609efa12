import copy
import gc
import pickle
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import counting, full, mainly

from nt_residual import gram, rntk, schedules
from nt_residual.regression import GradientFlow

KERNEL = rntk.ResidualKernel(100, schedules.PowerLaw(0.5))


def _inputs(n, dtype=np.float32):
    return np.random.default_rng(0).standard_normal((n, 6)).astype(dtype)


def _rbf(a, b):
    return jnp.exp(-jnp.sum((a[:, None] - b[None]) ** 2, axis=-1) / 6)


@pytest.mark.parametrize("kernel", [_rbf, *full(KERNEL)])
@pytest.mark.parametrize("tile_size", [None, 7])
@mainly("float32")
def test_products_are_those_of_the_matrix(kernel, tile_size, dtype):
    x, v = _inputs(60, dtype), np.random.default_rng(1).standard_normal((60, 3)).astype(dtype)
    matrix = gram.MatrixFree(kernel, x, tile_size=tile_size)
    expected = np.asarray(kernel(x, x), np.float64)
    rtol = {"float32": 1e-5, "float64": 1e-10}[dtype.name]
    np.testing.assert_allclose(matrix.product(v), expected @ v, rtol=rtol, atol=30 * rtol)
    np.testing.assert_allclose(matrix.diagonal(), np.diag(expected), rtol=rtol)
    assert matrix.shape == (60, 60)
    assert matrix.dtype == dtype


def test_products_with_integers_are_not_rounded():
    halves = gram.MatrixFree(lambda a, b: 0.5 * a @ b.T, np.eye(3, dtype=np.float32))
    np.testing.assert_array_equal(halves.product(jnp.ones((3, 1), int)), np.full((3, 1), 0.5))
    np.testing.assert_array_equal(halves.product(np.ones(3, int)), np.full(3, 0.5))


def test_a_product_makes_every_tile_of_the_upper_triangle_once():
    kernel, sizes = counting(_rbf)
    matrix = gram.MatrixFree(kernel, _inputs(23), tile_size=6)
    matrix.product(jnp.ones((23, 2))).block_until_ready()
    assert len(sizes) == 4 * 5 / 2


def test_products_are_compiled_once_for_all_data_of_a_size():
    traces = []

    @jax.jit
    def twice(matrix, v):
        traces.append(1)
        return matrix.product(matrix.product(v))

    for seed in range(2):
        x = np.random.default_rng(seed).standard_normal((10, 3)).astype(np.float32)
        k = np.asarray(KERNEL(x))
        found = twice(gram.MatrixFree(KERNEL, x, tile_size=4), jnp.ones((10, 1)))
        np.testing.assert_allclose(found, k @ k @ np.ones((10, 1)), rtol=1e-4)
    assert len(traces) == 1


def test_no_more_than_a_few_tiles_are_held():
    x = _inputs(2000)
    matrix = gram.MatrixFree(lambda a, b: a @ b.T, x, tile_size=100)
    compiled = jax.jit(lambda k, v: k.product(v)).lower(matrix, jnp.ones((2000, 1))).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * 2000 * 2000 * 4


@pytest.mark.parametrize(("tile_size", "outputs"), [(None, None), (16, 2), (5, None)])
def test_products_of_two_batches_are_those_of_the_matrix(tile_size, outputs):
    x1, x2 = _inputs(31), _inputs(47)[::-1]
    shape = (47,) if outputs is None else (47, outputs)
    v = np.random.default_rng(1).standard_normal(shape)
    matrix = gram.MatrixFree(_rbf, x1, x2, tile_size=tile_size)
    assert matrix.shape == (31, 47)
    for found in (matrix @ v, jax.jit(lambda k, v: k @ v)(matrix, v)):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.asarray(_rbf(x1, x2)) @ v, rtol=1e-4, atol=1e-3)


def test_vectors_that_do_not_fit_are_refused():
    for matrix in (
        gram.MatrixFree(_rbf, _inputs(4)),
        gram.MatrixFree(_rbf, _inputs(2), _inputs(4)),
    ):
        message = r"v must have shape \(4,\) or \(4, o\), got shape \(5, 1\)"
        with pytest.raises(ValueError, match=message):
            matrix @ np.ones((5, 1))
        with pytest.raises(ValueError, match="v must be finite"):
            matrix @ np.full(4, np.nan)
        with pytest.raises(TypeError, match="v must hold real numbers, got dtype complex64"):
            matrix @ (np.ones(4) * 1j)


def test_inputs_that_do_not_fit_are_refused():
    x = _inputs(4)
    x[2] = 0

    def cosine(a, b):
        return a @ b.T / (jnp.linalg.norm(a, axis=1)[:, None] * jnp.linalg.norm(b, axis=1))

    for matrix in (gram.MatrixFree(cosine, x), gram.MatrixFree(cosine, x, _inputs(4))):
        with pytest.raises(ValueError, match=r"NaN or infinity in row \d\. Look at x1\[\d\]"):
            matrix @ np.ones(4)
    with pytest.raises(ValueError, match="x1 must be finite"):
        gram.MatrixFree(KERNEL, np.full((3, 2), np.nan, np.float32))
    with pytest.raises(ValueError, match="mesh= cannot be combined with x2"):
        gram.MatrixFree(KERNEL, x, x, mesh=jax.make_mesh((1,), ("rows",)))


# Lifetimes.


def _closure(seed):
    data = np.full(4, seed, np.float32)
    return lambda a, b: jnp.exp(a @ b.T / 6) + jnp.asarray(data).sum()


def _multiply(kernel):
    matrix = gram.MatrixFree(kernel, _inputs(4), tile_size=3)
    matrix.product(jnp.ones(4))
    matrix.diagonal()


def _in_a_function_of_the_user(kernel):
    _applied(gram.MatrixFree(kernel, _inputs(4)), jnp.ones(4))


@jax.jit
def _applied(matrix, v):
    return matrix.product(v)


def _fit(kernel):
    flow = GradientFlow.fit(gram.MatrixFree(kernel, _inputs(4)), np.arange(4.0))
    flow.predict(gram.MatrixFree(kernel, _inputs(2), _inputs(4)), 1.0)


def _compute(kernel):
    gram.compute(kernel, _inputs(4), tile_size=3)


def _spread(kernel):
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    gram.compute(kernel, _inputs(4), mesh=mesh)


@pytest.mark.parametrize(
    "use", [_multiply, _in_a_function_of_the_user, _compute, *full(_fit, _spread)]
)
def test_no_kernel_that_closes_over_data_is_kept_nor_what_was_compiled_for_it(use):
    use(_closure(0))  # What is compiled for shapes alone stays.
    gc.collect()
    before = len(jax.devices()[0].client.live_executables())
    kernels = [_closure(seed) for seed in range(1, 4)]
    for kernel in kernels:
        use(kernel)
    alive = [weakref.ref(kernel) for kernel in kernels]
    del kernel, kernels
    gc.collect()
    assert [reference() for reference in alive] == [None] * 3
    if use is not _in_a_function_of_the_user:
        assert len(jax.devices()[0].client.live_executables()) == before


def test_stored_matrices_are_not_kept(tmp_path):
    alive = []
    for seed in range(2):
        k = gram.compute(_rbf, _inputs(4) + seed, tile_size=2, store=tmp_path / str(seed))
        alive.append(weakref.ref(k))
        GradientFlow.fit(k, np.arange(4.0))
        _applied(k, jnp.ones(4))
        del k
    gc.collect()
    assert [reference() for reference in alive] == [None] * 2


def test_a_matrix_without_its_kernel_says_so():
    leaves, tree = jax.tree.flatten(gram.MatrixFree(_closure(0), _inputs(4)))
    gc.collect()
    with pytest.raises(ReferenceError, match=r"kernel of this gram\.MatrixFree is gone\. Keep"):
        jax.tree.unflatten(tree, leaves)


def test_matrices_are_copied_and_pickled_with_their_kernels():
    matrix = gram.MatrixFree(_rbf, _inputs(6), tile_size=4)
    expected = matrix.product(jnp.ones(6))
    for again in (copy.deepcopy(matrix), pickle.loads(pickle.dumps(matrix))):
        np.testing.assert_array_equal(again.product(jnp.ones(6)), expected)
