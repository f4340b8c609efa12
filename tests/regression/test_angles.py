import concurrent.futures
import math
import threading

import numpy as np
import pytest
from helpers import enable_x64

from nt_residual import rntk, schedules
from nt_residual.regression import angles

# Largest error of a kernel value, divided by the kernel of the inputs with themselves.
ERROR = {"float32": 2e-6, "float64": 2e-10}

KERNELS = [
    rntk.ResidualKernel(1000, schedules.PowerLaw(1.0)),
    rntk.ResidualKernel(1000, schedules.PowerLaw(0.25), kind="nngp"),
    rntk.ResidualKernel(10000, schedules.PowerLaw(0.0, c=2.0)),
    rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5)),
    rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.0)),
]


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setattr(angles, "CACHE", angles.Cache(limit=2**26))
    return angles.CACHE


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_values_are_those_of_the_recursion_between_inputs_at_any_angle(kernel, dtype):
    rng = np.random.default_rng(0)
    exact = np.concatenate([np.geomspace(1e-5, 1, 60), math.pi - np.geomspace(1e-3, 1, 20)])
    # In the plane, next to an axis, so that the angle itself is not rounded away.
    x2 = (np.stack([np.cos(exact), np.sin(exact)], axis=1) * rng.uniform(0.1, 10, (80, 1))).astype(
        dtype
    )
    x1 = np.array([[3.0, 0.0]], dtype)
    theta = np.arctan2(x2[:, 1].astype(np.float64), x2[:, 0].astype(np.float64))
    scale = 3 * np.linalg.norm(x2.astype(np.float64), axis=1)
    values = angles.kernel_matrix(kernel, x1, x2)
    assert values.dtype == dtype
    error = np.abs(values[0] - scale * kernel.at_angle(theta)) / scale
    assert np.max(error) < ERROR[dtype.name]


@pytest.mark.parametrize("kernel", KERNELS[::2], ids=str)
def test_values_are_those_of_the_kernel_with_repeated_opposite_and_near_inputs(kernel, dtype):
    x = np.random.default_rng(0).standard_normal((30, 7))
    x[1], x[2], x[3] = x[0], -2 * x[0], 5 * x[0]
    x[4] = x[5] * (1 + 1e-6 * x[6])
    x = x.astype(dtype)
    scale = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(x, axis=1)
    for other in (None, x[:12]):
        expected = np.asarray(kernel(x, other), np.float64)
        error = (
            np.abs(angles.kernel_matrix(kernel, x, other) - expected) / scale[:, : len(expected.T)]
        )
        assert np.max(error) < 2 * ERROR[dtype.name]


@pytest.mark.parametrize("n", [1, 3, 600])
def test_the_matrix_is_symmetric_with_an_exact_diagonal_at_any_size(n):
    x = np.random.default_rng(0).standard_normal((n, 5)).astype(np.float32)
    k = angles.kernel_matrix(KERNELS[0], x)
    np.testing.assert_array_equal(k, k.T)
    np.testing.assert_allclose(np.diag(k), np.sum(x.astype(np.float64) ** 2, axis=1), rtol=5e-7)
    np.testing.assert_allclose(k, KERNELS[0](x), atol=1e-5)


def test_an_entry_does_not_depend_on_the_other_rows():
    x = np.random.default_rng(0).standard_normal((700, 20)).astype(np.float32)
    whole = angles.kernel_matrix(KERNELS[0], x[:600], x)
    for i in (0, 599):
        np.testing.assert_allclose(
            angles.kernel_matrix(KERNELS[0], x[i : i + 1], x)[0], whole[i], rtol=2e-7
        )


def test_lengths_near_the_limits_of_the_dtype_leave_the_angle_as_it_is():
    x = np.array([[1e18, 0.0], [1e-18, 1e-18]], np.float32)
    expected = math.sqrt(2) * KERNELS[0].at_angle(math.pi / 4)
    np.testing.assert_allclose(angles.kernel_matrix(KERNELS[0], x)[0, 1], expected, rtol=1e-6)


# The cache.


def test_angles_are_computed_once_for_all_kernels(cache):
    x = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    for kernel in KERNELS:
        angles.kernel_matrix(kernel, x)
        # A copy of the same inputs has the same angles.
        angles.kernel_matrix(kernel, x, x.copy())
        angles.kernel_matrix(kernel, x[:10], x)
    assert (cache.computed, cache.found) == (2, 13)
    angles.between(np.nextafter(x, 2))
    with enable_x64():
        angles.between(x.astype(np.float64))
    assert cache.computed == 4


def test_the_cache_keeps_what_was_used_last_within_its_limit(cache):
    batches = [np.eye(2, dtype=np.float32) + i for i in range(1, 5)]
    size = angles.between(batches[0]).nbytes
    cache.limit = 3 * size
    for batch in (batches[1], batches[2], batches[0], batches[3]):
        angles.between(batch)
    assert cache.size == 3 * size
    computed = cache.computed
    angles.between(batches[0])
    assert cache.computed == computed
    angles.between(batches[1])
    assert cache.computed == computed + 1
    cache.limit = 0
    angles.between(batches[1] + 9)
    assert cache.size == 0
    assert not angles.fit_in_cache(1, 1, np.dtype("float32"))
    # Tiles are kept whole, however few rows they have.
    cache.limit = 2**22
    assert angles.fit_in_cache(1, 2 * 512, np.dtype("float32"))
    assert not angles.fit_in_cache(1, 2 * 512 + 1, np.dtype("float32"))


def test_threads_that_ask_at_the_same_time_wait_for_one_computation(cache):
    together, calls = threading.Barrier(8), []

    def ask(_):
        together.wait()
        return cache.get("key", lambda: calls.append(1) or angles._compute(np.eye(2), None))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(ask, range(8)))
    assert len(calls) == 1
    assert all(result is results[0] for result in results)


def test_what_failed_is_not_kept(cache):
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 / 0)
    expected = angles._compute(np.eye(2), None)
    assert cache.get("key", lambda: expected) is expected
