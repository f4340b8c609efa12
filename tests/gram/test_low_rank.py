import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from nt_residual import conv, gram, rntk, schedules
from nt_residual import neural_tangents as nt
from nt_residual.gram import landmarks
from nt_residual.gram.low_rank import _add
from nt_residual.regression import GradientFlow, generalized_cross_validation, leave_one_out

KERNEL = rntk.ResidualKernel(10, schedules.PowerLaw(0.5))
TIMES = [0.0, 1.0, 30.0, 1000.0, math.inf]

random = np.random.default_rng(0)
x = random.standard_normal((150, 4)).astype(np.float32)
x_test = random.standard_normal((20, 4)).astype(np.float32)
y = np.stack([np.sin(2 * x[:, 0]), x[:, 1] ** 2], 1) + 0.3 * random.standard_normal((150, 2))


def _projection(a, b, z, cutoff=1e-6):
    """The projected kernel, by NumPy."""
    k = [np.asarray(KERNEL(*pair), np.float64) for pair in ((a, z), (z, z), (z, b))]
    found = k[0] @ np.linalg.pinv(k[1], rcond=cutoff) @ k[2]
    return (found + found.T) / 2 if a is b else found


def _check(found, expected, tolerance=2e-5):
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def _check_flow(flow, dense, k_test_landmarks, k_test):
    _check(flow.predict(k_test_landmarks, TIMES), dense.predict(k_test, TIMES))
    _check(flow.training_error(TIMES), dense.training_error(TIMES))
    _check(flow.degrees_of_freedom(TIMES), dense.degrees_of_freedom(TIMES))
    _check(flow.leave_one_out(TIMES), dense.leave_one_out(TIMES), 2e-4)


def test_with_all_inputs_as_landmarks_it_is_the_whole_kernel():
    low_rank = gram.LowRank(KERNEL, x, x, tile_size=64)
    assert low_rank.rank == 150
    features = low_rank.features(x)
    np.testing.assert_allclose(features @ features.T, KERNEL(x), atol=1e-5 * 4)
    flow, dense = GradientFlow.fit(low_rank, y), GradientFlow.fit(KERNEL(x), y)
    _check_flow(flow, dense, KERNEL(x_test, x), KERNEL(x_test, x))


@pytest.mark.parametrize("options", [{}, {"ridge": 0.1}, {"center_targets": True, "ridge": 0.1}])
def test_training_is_that_of_the_projected_kernel(options):
    low_rank = gram.LowRank(KERNEL, x, 40, tile_size=64, seed=1)
    z = low_rank.landmarks
    flow = GradientFlow.fit(low_rank, y, **options)
    # Beyond the rank of the projection there is nothing to learn.
    dense = GradientFlow.fit(_projection(x, x, z), y, solver="eigh", **options)
    _check_flow(flow, dense, KERNEL(x_test, z), _projection(x_test, x, z))
    assert flow.solver == "landmarks"
    assert flow.solve(1.0).status == "converged"
    for rule in (generalized_cross_validation, lambda flow: leave_one_out(flow, y)):
        assert 0 < rule(flow).time < math.inf
    products = gram.MatrixFree(KERNEL, x_test, z)
    _check(flow.predict(products, 30.0), flow.predict(KERNEL(x_test, z), 30.0), 1e-6)


def test_float64_kernels_are_projected_in_float64(x64):
    wide = x.astype(np.float64)
    low_rank = gram.LowRank(KERNEL, wide, 40, tile_size=64)
    z = low_rank.landmarks
    flow = GradientFlow.fit(low_rank, y)
    dense = GradientFlow.fit(_projection(wide, wide, z, 1e-13), y, solver="eigh")
    found = flow.predict(KERNEL(x_test.astype(float), z), 30.0)
    _check(found, dense.predict(_projection(x_test.astype(float), wide, z, 1e-13), 30.0), 1e-9)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_eight_devices_give_the_same(kind):
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(kind,))
    one = gram.LowRank(KERNEL, x, 40, tile_size=48)
    many = gram.LowRank(KERNEL, x, 40, tile_size=48, mesh=mesh)
    for a, b in zip(one.moments(y), many.moments(y), strict=True):
        _check(b, a, 1e-6)
    spread = jax.device_put(x[:144], NamedSharding(mesh, PartitionSpec("rows")))
    found = gram.LowRank(KERNEL, spread, x[:40], tile_size=48).moments(y[:144])
    _check(found[0], gram.LowRank(KERNEL, x[:144], x[:40]).moments(y[:144])[0], 1e-6)


def test_the_matrix_is_never_whole(tmp_path):
    """A memory map is read in tiles, and no tile is larger than asked for."""
    shapes = []

    def kernel(a, b):
        shapes.append((a.shape[0], b.shape[0]))
        return jnp.exp(jnp.matmul(a, b.T, precision="highest") / 4)

    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=x.shape)
    mapped[:] = x
    low_rank = gram.LowRank(kernel, mapped, 20, tile_size=32)
    low_rank.moments(y)
    assert max(rows for rows, _ in shapes) <= 32
    assert max(columns for _, columns in shapes) <= 20


def test_sums_over_tiles_have_twice_the_precision_of_their_terms():
    high, low, term = (np.float32(value) for value in (1.0, 0.0, 1e-8))
    for _ in range(1000):
        high, low = _add(high, low, term)
    assert float(high) + float(low) == pytest.approx(1 + 1000 * float(term), abs=1e-9)


def test_after_ctrl_c_the_same_call_goes_on(monkeypatch):
    low_rank = gram.LowRank(KERNEL, x, 40, tile_size=32)
    expected = low_rank.moments(y)
    placed, calls = low_rank._placed, []

    def interrupted(rows):
        calls.append(len(rows))
        if len(calls) == 7:  # In the fourth tile: each has inputs and targets.
            raise KeyboardInterrupt
        return placed(rows)

    monkeypatch.setattr(low_rank, "_placed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        low_rank.moments(y)
    found = low_rank.moments(y)
    assert len(calls) == 7 + 2 * 2
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_repeated_landmarks_are_left_out_and_counted():
    twice = np.concatenate([x[:30], x[:30]])
    low_rank = gram.LowRank(KERNEL, x, twice)
    assert low_rank.rank <= 31
    flow, once = (GradientFlow.fit(k, y) for k in (low_rank, gram.LowRank(KERNEL, x, x[:30])))
    _check(
        flow.predict(KERNEL(x_test, twice), 9.0), once.predict(KERNEL(x_test, x[:30]), 9.0), 1e-4
    )
    assert f"landmarks=60, rank={low_rank.rank}" in repr(low_rank)


@pytest.mark.parametrize("kind", ["convolutional", "neural-tangents", "function"])
def test_any_kernel_is_taken(kind):
    _, _, kernel_fn = nt.stax.serial(nt.stax.Dense(1), nt.stax.Erf(), nt.stax.Dense(1))
    kernel, inputs = {
        "convolutional": (
            conv.ResidualKernel(1, schedules.PowerLaw(0.5), (2, 2)),
            x.reshape(-1, 2, 2, 1)[:30],
        ),
        "neural-tangents": (functools.partial(kernel_fn, get="ntk"), x[:30]),
        "function": (lambda a, b: jnp.matmul(a, b.T, precision="highest") ** 2, x[:30]),
    }[kind]
    low_rank = gram.LowRank(kernel, inputs, inputs)
    features = low_rank.features(inputs)
    expected = np.asarray(kernel(inputs, inputs))
    np.testing.assert_allclose(features @ features.T, expected, atol=2e-5 * expected.max())


def test_rpcholesky_finds_what_is_rare():
    """One cluster of a thousand and ten lone points: the latter are all chosen."""
    cluster = np.array([3.0, 0, 0, 0]) + 1e-3 * random.standard_normal((1000, 4))
    lone = 3 * np.linalg.qr(random.standard_normal((4, 4)))[0]
    inputs = np.concatenate([cluster, lone, -lone]).astype(np.float32)
    left = {}
    for method in ("uniform", "rpcholesky"):
        low_rank = gram.LowRank(KERNEL, inputs, 20, method=method)
        left[method] = np.sum(KERNEL(inputs).diagonal()) - np.sum(low_rank.features(inputs) ** 2)
    assert left["rpcholesky"] < left["uniform"] / 10


def test_centers_of_clusters_cover_the_inputs_more_evenly():
    inputs = np.random.default_rng(0).standard_normal((2000, 3, 1)).astype(np.float32)
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)

    def kernel(x1, x2=None):
        return KERNEL(*(None if x is None else x.reshape(len(x), -1) for x in (x1, x2)))

    def left(method):
        low_rank = gram.LowRank(kernel, inputs, 100, method=method)
        assert low_rank.landmarks.shape == (100, 3, 1)
        return np.sum(kernel(inputs).diagonal()) - np.sum(low_rank.features(inputs) ** 2)

    assert left("kmeans") == left("kmeans") < 0.9 * left("uniform")


def test_pivots_are_drawn_by_what_remains_of_the_diagonal():
    """Of two orthogonal inputs of squared lengths 3 and 1 the first comes first in 3 of 4."""

    def kernel(a, b):
        return jnp.matmul(a, b.T, precision="highest")

    inputs = np.array([[3**0.5, 0], [0, 1]], np.float32)
    draws = [
        landmarks._pivots(kernel, inputs, 1, np.random.default_rng(seed))[0] for seed in range(300)
    ]
    # Four standard deviations.
    assert abs(np.mean(draws) - 0.25) < 0.1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"landmarks": 151}, ValueError, "landmarks must be at most the number of inputs, 150"),
        ({"landmarks": 0}, ValueError, "landmarks must be at least 1"),
        ({"landmarks": 2.0}, TypeError, "landmarks must be an integer"),
        ({"landmarks": x[:3, :2]}, ValueError, "landmarks must hold inputs of the shape of x"),
        (
            {"landmarks": np.full((3, 4), np.nan, np.float32)},
            ValueError,
            "landmarks must be finite",
        ),
        ({"method": "best"}, ValueError, "method must be 'uniform', 'kmeans' or 'rpcholesky'"),
        ({"tile_size": 0}, ValueError, "tile_size must be at least 1"),
        ({"x": x[:, 0] * np.nan}, ValueError, "x must be finite"),
    ],
)
def test_what_cannot_be_projected_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        gram.LowRank(**{"kernel": KERNEL, "x": x, "landmarks": 10, **arguments})


def test_a_kernel_that_is_not_finite_is_named():
    zero = x.copy()
    zero[100] = 0
    low_rank = gram.LowRank(KERNEL, zero, x[:10], tile_size=64)
    with pytest.raises(ValueError, match=r"between a landmark and one of x\[64:128\]"):
        low_rank.moments(y)


def test_another_solver_is_refused():
    with pytest.raises(ValueError, match=r"solver must be 'auto' for a gram\.LowRank"):
        GradientFlow.fit(gram.LowRank(KERNEL, x, 10), y, solver="lanczos")
