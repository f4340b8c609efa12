import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import full, mainly
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from nt_residual import rntk, schedules
from nt_residual.compat import enable_x64
from nt_residual.rntk import tiles
from nt_residual.rntk.profile import profile_of

ALPHAS = schedules.PowerLaw(0.25)(100)
KERNEL = rntk.ResidualKernel(100, schedules.PowerLaw(0.25))
ERROR = {"float32": 2e-6, "float64": 1e-10}
SIDES = [None, 6, *full(tiles.CPU_TILE, 1)]


@pytest.fixture(params=SIDES, ids=str)
def side(request):
    return request.param


def _clustered(dtype, n=23, dim=4):
    """Inputs of several lengths, most of them nearly parallel to others in either direction."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, dim))
    x[5:9] = x[0] + 1e-3 * rng.standard_normal((4, dim))
    x[9:13] = -3 * x[1] + 1e-5 * rng.standard_normal((4, dim))
    x[13] = 2 * x[2]
    x[14] = x[3]
    return jnp.asarray(x, dtype)


def _exact(x1, x2=None):
    with enable_x64():
        x1, x2 = (None if x is None else np.asarray(x, np.float64) for x in (x1, x2))
        return np.asarray(rntk.recursive_kernel(x1, x2, schedule=ALPHAS))


def _profile(dtype):
    return profile_of(KERNEL.fit, dtype)


def _error(got, expected, x1, x2):
    norms = np.outer(np.linalg.norm(x1, axis=1), np.linalg.norm(x2, axis=1))
    return np.max(np.abs(np.asarray(got, np.float64) - expected) / norms)


@mainly("float64")
def test_tiles_of_every_size_give_the_kernel_between_two_batches(side, dtype):
    x1, x2 = _clustered(dtype), _clustered(dtype)[::-1][:17]
    got = tiles.gram(_profile(dtype), x1, x2, side)
    assert _error(got, _exact(x1, x2), x1, x2) < ERROR[dtype.name]


@mainly("float32")
def test_tiles_of_every_size_give_an_exactly_symmetric_kernel_of_one_batch(side, dtype):
    x = _clustered(dtype)
    got = np.asarray(tiles.gram(_profile(dtype), x, None, side))
    np.testing.assert_array_equal(got, got.T)
    np.testing.assert_allclose(np.diag(got), np.sum(x**2, axis=1), rtol=8 * jnp.finfo(dtype).eps)
    assert _error(got, _exact(x), x, x) < ERROR[dtype.name]


def test_a_batch_of_nothing_but_neighbors_is_as_accurate(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(np.ones(5) + 1e-3 * rng.standard_normal((30, 5)), dtype)
    assert _error(KERNEL(x), _exact(x), x, x) < ERROR[dtype.name]
    assert _error(KERNEL(x, -x), _exact(x, -x), x, x) < ERROR[dtype.name]


@pytest.mark.parametrize("rows", [1, 3])
def test_rounding_does_not_add_up_over_many_features(rows):
    # A product of two constant rows rounds the same way in every term.
    features = 8192
    x1 = np.full((rows, features), 0.1, np.float32)
    x2 = np.where(np.arange(features) < 0.7 * features, 0.37, 0.004).astype(np.float32)[None]
    products = np.float64(x1[0]) @ np.float64(x2[0])
    norms = np.linalg.norm(np.float64(x1[0])) * np.linalg.norm(np.float64(x2))
    theta = np.arccos(products / norms)
    np.testing.assert_allclose(KERNEL(x1, x2) / norms, KERNEL.at_angle(theta), rtol=0, atol=3e-6)


@pytest.mark.parametrize("bad", [np.nan, *full(0.0)])
def test_a_row_without_an_angle_spoils_no_other(bad, side):
    x = np.array(_clustered("float32"))
    x[4] = bad
    got = np.asarray(tiles.gram(_profile("float32"), jnp.asarray(x), jnp.asarray(x[:6]), side))
    good = np.arange(len(x)) != 4
    assert np.all(np.isfinite(got[good][:, good[:6]]))
    assert np.all(np.isnan(got[4]))


@pytest.mark.parametrize("x2_given", [True, False])
def test_gradients_are_those_of_the_recursion(x2_given, x64):
    x = _clustered("float64")
    # Not where inputs are parallel, since there the kernel has a cusp.
    x = jnp.concatenate([x[:9], x[15:]])
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((len(x), len(x))))

    def total(kernel):
        return lambda x: jnp.sum(weights * (kernel(x, x) if x2_given else kernel(x)))

    got = jax.grad(total(KERNEL))(x)
    exact = jax.grad(total(lambda *x: rntk.recursive_kernel(*x, schedule=ALPHAS)))(x)
    np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.full
def test_forward_and_second_derivatives_agree_with_the_reverse_mode(x64):
    x1, x2, v = (jnp.asarray(np.random.default_rng(s).standard_normal((3, 4))) for s in range(3))

    def total(x):
        return jnp.sum(KERNEL(x, x2) ** 2)

    forward = jax.jvp(total, (x1,), (v,))[1]
    np.testing.assert_allclose(forward, jnp.vdot(jax.grad(total)(x1), v), rtol=1e-12)
    step = 1e-5
    gradients = [jax.grad(total)(x1 + sign * step * v) for sign in (1, -1)]
    product = jax.jvp(jax.grad(total), (x1,), (v,))[1]
    np.testing.assert_allclose(product, (gradients[0] - gradients[1]) / (2 * step), rtol=1e-6)


def test_the_memory_between_product_and_kernel_is_that_of_a_tile():
    x = jax.ShapeDtypeStruct((6000, 10), np.float32)
    compiled = jax.jit(tiles.gram).lower(_profile("float32"), x, x).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary < 0.25 * compiled.memory_analysis().output_size_in_bytes


def test_the_gradient_keeps_no_differences_of_all_pairs():
    n, d = 300, 200
    x = jax.ShapeDtypeStruct((n, d), np.float32)
    compiled = jax.jit(jax.grad(lambda x: KERNEL(x, x).sum())).lower(x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.5 * 4 * n * n * d


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_inputs_give_a_sharded_kernel(kind):
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(kind,))
    by_row = NamedSharding(mesh, P("rows"))
    x = np.random.default_rng(0).standard_normal((16, 5)).astype("float32")
    x[1] = x[9]
    rows, whole = jax.device_put(x, by_row), np.asarray(KERNEL(x, x))
    results = [KERNEL(rows, x), KERNEL(rows), jax.jit(KERNEL)(rows, rows)]
    if kind == AxisType.Explicit:
        results.append(KERNEL(x, rows).T)
        gradient = jax.jit(jax.grad(lambda rows: KERNEL(rows).sum()))(rows)
        assert np.all(np.isfinite(gradient))
    else:
        specs = {"in_specs": (P("rows"), P()), "out_specs": P("rows")}
        results.append(jax.jit(jax.shard_map(KERNEL, mesh=mesh, **specs))(rows, x))
    for result in results:
        assert len(result.sharding.device_set) == 8
        np.testing.assert_allclose(result, whole, rtol=0, atol=1e-5)
    assert results[0].sharding.is_equivalent_to(by_row, 2)
