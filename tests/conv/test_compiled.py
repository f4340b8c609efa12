"""The convolutional kernel in tiles, through transformations, and on several devices."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import finite_difference
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from nt_residual import conv, gram, schedules

# A small filter keeps programs small.
KERNEL = conv.ResidualKernel(2, schedules.PowerLaw(0.5), (4, 4), filter_shape=(3, 1))


def fast(function):
    """A program that takes less time to make: that of running it does not matter here."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def images(n, dtype):
    """Images of both signs, of which one is zero, one has zero patches, and two are equal."""
    x = np.random.default_rng(0).standard_normal((n, 4, 4, 1))
    x[1] = 0
    x[2, :2] = 0
    x[3] = x[0]
    return jnp.asarray(x, dtype)


def test_two_batches_and_tiles_of_all_sizes_agree(monkeypatch):
    x = images(53, "float32")
    whole = KERNEL(x)
    through_gram = gram.compute(KERNEL, x, tile_size=25)
    # Tiles of 7 rows and 14 columns, of which the last overlap those before them.
    monkeypatch.setattr("nt_residual.conv.tiles._ON_CPU", 16 * 7 * 16)
    in_tiles = fast(KERNEL.__call__)(x)
    for symmetric in (whole, through_gram, in_tiles):
        np.testing.assert_array_equal(symmetric, symmetric.T)
    for got in (through_gram, in_tiles, fast(KERNEL.__call__)(x, x[:20])):
        np.testing.assert_allclose(got, whole[:, : got.shape[1]], rtol=0, atol=2e-6)


def test_it_can_be_transformed(x64):
    x = images(4, "float64")
    expected = fast(lambda k, x: k(x))(KERNEL, x)
    rows = fast(jax.vmap(lambda y: KERNEL(y[None], x)[0]))(x)
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-14)


def test_its_gradients_are_those_of_finite_differences(x64):
    program = fast(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(3 * KERNEL(x)))))
    x = images(4, "float64")
    # At equal images, and at patches of zeros, it has a cusp.
    assert np.isfinite(program(x)[1]).all()
    x, direction = jnp.asarray(np.random.default_rng(1).standard_normal((2, *x.shape)))
    expected = finite_difference(lambda t: float(program(x + t * direction)[0]), 0.0)
    assert float(jnp.vdot(program(x)[1], direction)) == pytest.approx(expected, rel=1e-8)


def test_it_runs_on_several_devices():
    x = images(4, "float32")
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    spread = gram.compute(KERNEL, x, mesh=mesh)
    assert len(spread.sharding.device_set) == 2
    np.testing.assert_allclose(spread, KERNEL(x), atol=1e-6)
    np.testing.assert_array_equal(spread, spread.T)


@pytest.mark.parametrize("depth", [(1, 1), math.inf])
def test_it_can_be_traced_for_several_devices(depth):
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    specs = {"in_specs": (P("rows"), P()), "out_specs": P("rows")}
    each = jax.shard_map(KERNEL.at_depth(depth), mesh=mesh, **specs)
    x = images(4, "float32")
    assert jax.eval_shape(each, x, x).shape == (4, 4)


def test_programs_do_not_grow_with_depth():
    def program(depth):
        return jax.jit(KERNEL.at_depth(depth).__call__).lower(images(4, "float32")).as_text()

    assert program(64).count("\n") == program(4096).count("\n")


def test_the_memory_estimate_is_that_of_the_compiled_program():
    x1, x2 = images(50, "float32"), images(40, "float32")
    used = jax.jit(KERNEL.__call__).lower(x1, x2).compile().memory_analysis()
    expected = used.temp_size_in_bytes + used.output_size_in_bytes
    assert KERNEL.memory_estimate(50, 40, in_channels=1) == pytest.approx(expected, rel=0.2)


def test_what_does_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr("nt_residual.memory.available", lambda *_: 1000)
    monkeypatch.setattr("nt_residual.memory._WORTH_A_LOOK", 0)
    with pytest.raises(MemoryError, match=r"needs .* of memory \(copies of the images .*tiles of"):
        KERNEL(images(4, "float32"))
