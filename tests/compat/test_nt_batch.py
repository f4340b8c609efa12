"""`nt.batch`: the same kernel, computed in parts, on one device and on several."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from neural_tangents import stax
from nt_networks import IMAGES, VECTORS

X1, X2 = (jnp.asarray(x, jnp.float32) for x in VECTORS)


def network():
    return stax.serial(stax.Dense(16, W_std=1.3), stax.Erf(), stax.Dense(3))


@pytest.mark.parametrize("store_on_device", [True, False])
@pytest.mark.parametrize("batch_size", [0, 2])
@pytest.mark.parametrize("get", ["nngp", "ntk", ("nngp", "ntk"), None], ids=str)
def test_a_batched_kernel_is_the_kernel(get, batch_size, store_on_device):
    kernel_fn = network()[2]
    batched_fn = nt.batch(kernel_fn, batch_size, device_count=0, store_on_device=store_on_device)
    for x2 in (None, X1[:2] + 0.5):
        expected, actual = kernel_fn(X1, x2, get), batched_fn(X1, x2, get)
        jax.tree.map(
            lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6), actual, expected
        )


def test_a_batch_size_above_the_number_of_inputs_is_reduced_with_a_warning():
    with pytest.warns(UserWarning, match="Batch size is reduced from requested 8 to effective 4"):
        batched = nt.batch(network()[2], batch_size=8, device_count=0)(X1, None, "ntk")
    np.testing.assert_allclose(batched, network()[2](X1, None, "ntk"), rtol=1e-5, atol=1e-6)


def test_a_batch_size_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="Found n1 = 4 and batch size = 3"):
        nt.batch(network()[2], batch_size=3, device_count=0)(X1, None, "ntk")


def test_empirical_kernels_are_batched_too():
    init_fn, f, _ = network()
    _, params = init_fn(jax.random.PRNGKey(0), X1.shape)
    ntk_fn = nt.empirical_ntk_fn(f, vmap_axes=0, implementation=3)
    batched_fn = nt.batch(ntk_fn, batch_size=2, device_count=0)
    np.testing.assert_allclose(batched_fn(X1, None, params), ntk_fn(X1, None, params), rtol=1e-4)


def test_convolutional_kernels_are_batched_with_masks():
    x = jnp.asarray(IMAGES[0], jnp.float32).at[:2, :2].set(9.0)[:2]
    _, _, kernel_fn = stax.serial(
        stax.Conv(8, (3, 3)), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1)
    )
    batched_fn = nt.batch(kernel_fn, batch_size=1, device_count=0)
    np.testing.assert_allclose(
        batched_fn(x, None, "ntk", mask_constant=9.0),
        kernel_fn(x, None, "ntk", mask_constant=9.0),
        rtol=1e-4,
    )


def test_several_devices_give_the_same_kernel():
    program = pathlib.Path(__file__).with_name("eight_devices.py")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--numprocesses=0", "-k", "test", program],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "8 passed" in result.stdout
