"""`gram.compute(store=…)` with the kernels and the solvers that are used with it."""

import numpy as np
import pytest

from nt_residual import gram, memory, rntk, schedules
from nt_residual.gram.operators import as_operator

KERNEL = rntk.ResidualKernel(100, schedules.PowerLaw(0.5))


def _inputs(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 6)).astype(np.float32)


def test_a_stored_matrix_is_that_in_memory_bit_for_bit(tmp_path):
    x, other = _inputs(50), _inputs(31, seed=1)
    stored = gram.compute(KERNEL, x, tile_size=16, store=tmp_path / "square")
    np.testing.assert_array_equal(np.asarray(stored), gram.compute(KERNEL, x, tile_size=16))
    stored = gram.compute(KERNEL, x, other, tile_size=16, store=tmp_path / "rectangle")
    expected = gram.compute(KERNEL, x, other, tile_size=16)
    np.testing.assert_array_equal(np.asarray(stored), expected)
    np.testing.assert_array_equal(np.asarray(gram.load(tmp_path / "rectangle")), expected)


def test_a_matrix_is_resumed_in_its_own_tiles_whatever_memory_there_is(tmp_path, monkeypatch):
    x = _inputs(50)
    first = gram.compute(KERNEL, x, tile_size=16, store=tmp_path / "k")
    monkeypatch.setattr(memory, "available", lambda device=None: 10**6)
    again = gram.compute(KERNEL, x, store=tmp_path / "k")
    assert again.tile_shape == first.tile_shape == (13, 13)
    with pytest.raises(ValueError, match="the kernel"):
        gram.compute(KERNEL.at_depth(99), x, store=tmp_path / "k")


def test_a_stored_matrix_is_an_operator(tmp_path):
    x, v = _inputs(50), np.ones((50, 2), np.float32)
    operator = as_operator(gram.compute(KERNEL, x, tile_size=16, store=tmp_path / "k"))
    k = np.asarray(KERNEL(x))
    np.testing.assert_allclose(operator.product(operator.place(v)), k @ v, rtol=1e-5)
    np.testing.assert_allclose(operator.diagonal(), np.diag(k), rtol=1e-6)
