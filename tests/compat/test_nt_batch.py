"""`nt.batch`: the same kernel, computed in parts, on one device and on several."""

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from helpers import run_python
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


ON_EIGHT_DEVICES = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import warnings
warnings.simplefilter("error")
import nt_residual
import jax, jax.numpy as jnp, numpy as np
import neural_tangents as nt
from neural_tangents import stax

assert jax.local_device_count() == 8
x1 = jnp.sin(jnp.arange(16 * 6.0) ** 2).reshape(16, 6)
x2 = jnp.cos(jnp.arange(8 * 6.0) ** 2).reshape(8, 6)
init_fn, f, kernel_fn = stax.serial(stax.Dense(16, W_std=1.3), stax.Erf(), stax.Dense(3))
_, params = init_fn(jax.random.PRNGKey(0), x1.shape)

def check(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5),
                 actual, expected)
"""

SEVERAL_DEVICES = {
    "closed form, in parallel": """
        for x in (None, x2):
            check(nt.batch(kernel_fn)(x1, x, "ntk"), kernel_fn(x1, x, "ntk"))
        kernel = nt.batch(kernel_fn)(x1, x2, "nngp")
        assert len(kernel.sharding.device_set) == 8, kernel.sharding
    """,
    "closed form, in parallel and serially": """
        for count in (2, 8):
            batched_fn = nt.batch(kernel_fn, batch_size=1, device_count=count)
            for x in (None, x2):
                for get in ("ntk", ("nngp", "ntk")):
                    check(batched_fn(x1, x, get), kernel_fn(x1, x, get))
    """,
    "inputs that live on one device": """
        x1, x2 = jax.device_put((x1, x2), jax.devices()[3])
        check(nt.batch(kernel_fn)(x1, x2, "ntk"), kernel_fn(x1, x2, "ntk"))
        check(nt.batch(kernel_fn)(np.asarray(x1), np.asarray(x2), "ntk"),
              kernel_fn(x1, x2, "ntk"))
    """,
    "kernels of kernels": """
        first = stax.serial(stax.Dense(8), stax.Erf())[2]
        expected = kernel_fn(first(x1, x2))
        batched = nt.batch(kernel_fn)(nt.batch(first)(x1, x2))
        for kind in ("nngp", "ntk", "cov1", "cov2"):
            check(getattr(batched, kind), getattr(expected, kind))
    """,
    "finite width": """
        for implementation in (1, 2, 3):
            ntk_fn = nt.empirical_ntk_fn(f, vmap_axes=0, implementation=implementation)
            for x in (None, x2):
                batched_fn = nt.batch(ntk_fn, batch_size=2, device_count=4)
                check(batched_fn(x1, x, params), ntk_fn(x1, x, params))
    """,
    "Monte Carlo": """
        arguments = init_fn, f, jax.random.PRNGKey(1), 4
        sampled = nt.monte_carlo_kernel_fn(*arguments, batch_size=1)(x1, x2, "ntk")
        alone = nt.monte_carlo_kernel_fn(*arguments)(x1, x2, "ntk")
        check(sampled, alone)
    """,
    "a number of inputs that the devices do not divide": """
        try:
            nt.batch(kernel_fn)(x1[:12], x2, "ntk")
        except ValueError as error:
            assert "Dataset size (12) must divide number of physical devices (8)" in str(error)
        else:
            raise AssertionError("not refused")
    """,
}


@pytest.mark.parametrize("name", SEVERAL_DEVICES)
def test_several_devices_give_the_same_kernel(name):
    body = "\n".join(line[8:] for line in SEVERAL_DEVICES[name].splitlines())
    result = run_python(ON_EIGHT_DEVICES + body + "\nprint('done')")
    assert result.stdout.strip().endswith("done"), result.stderr
