"""`nt.batch`: the same kernel, computed in parts, on eight devices."""

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
from neural_tangents import stax
from nt_networks import array

MANY1, MANY2 = (jnp.asarray(array(n, 6, seed=0.1 * n), jnp.float32) for n in (16, 8))
INIT_FN, F, KERNEL_FN = stax.serial(stax.Dense(16, W_std=1.3), stax.Erf(), stax.Dense(3))


def check(actual, expected):
    """Of the same structure, and equal up to rounding."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)


def test_rows_are_computed_on_all_devices():
    for x2 in (None, MANY2):
        kernel = nt.batch(KERNEL_FN)(MANY1, x2, "ntk")
        check(kernel, KERNEL_FN(MANY1, x2, "ntk"))
        assert jax.local_device_count() == 8
        if jax.__version_info__ >= (0, 8):
            assert len(kernel.sharding.device_set) == 8


def test_devices_work_through_batches():
    for device_count in (2, 8):
        batched_fn = nt.batch(KERNEL_FN, batch_size=1, device_count=device_count)
        for x2 in (None, MANY2):
            for get in ("ntk", ("nngp", "ntk")):
                check(batched_fn(MANY1, x2, get), KERNEL_FN(MANY1, x2, get))


def test_inputs_may_live_on_one_device_or_on_the_host():
    expected = KERNEL_FN(MANY1, MANY2, "ntk")
    x1, x2 = jax.device_put((MANY1, MANY2), jax.devices()[3])
    check(nt.batch(KERNEL_FN)(x1, x2, "ntk"), expected)
    check(nt.batch(KERNEL_FN)(np.asarray(MANY1), np.asarray(MANY2), "ntk"), expected)


def test_batches_can_be_vmapped():
    x = jnp.stack([MANY1, MANY1[::-1]])
    mapped = jax.vmap(lambda x: nt.batch(KERNEL_FN)(x, MANY2, "ntk"))(x)
    check(mapped[1], KERNEL_FN(MANY1[::-1], MANY2, "ntk"))


def test_kernels_of_kernels():
    first = stax.serial(stax.Dense(8), stax.Erf())[2]
    expected = KERNEL_FN(first(MANY1, MANY2))
    batched = nt.batch(KERNEL_FN)(nt.batch(first)(MANY1, MANY2))
    for kind in ("nngp", "ntk", "cov1", "cov2"):
        check(getattr(batched, kind), getattr(expected, kind))


def test_kernels_of_finite_networks():
    _, params = INIT_FN(jax.random.PRNGKey(0), MANY1.shape)
    for implementation in (1, 2, 3):
        ntk_fn = nt.empirical_ntk_fn(F, vmap_axes=0, implementation=implementation)
        for x2 in (None, MANY2):
            batched_fn = nt.batch(ntk_fn, batch_size=2, device_count=4)
            check(batched_fn(MANY1, x2, params), ntk_fn(MANY1, x2, params))


def test_monte_carlo_samples():
    arguments = INIT_FN, F, jax.random.PRNGKey(1), 4
    sampled = nt.monte_carlo_kernel_fn(*arguments, batch_size=1)(MANY1, MANY2, "ntk")
    check(sampled, nt.monte_carlo_kernel_fn(*arguments)(MANY1, MANY2, "ntk"))
