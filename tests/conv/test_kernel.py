"""The convolutional kernel against enumeration, neural-tangents and finite networks."""

import math
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import enable_x64, full, naive_conv_kernel

from nt_residual import conv, data, rntk, schedules, stax

# isort: split
from neural_tangents import stax as nt_stax

INSTALLED = pathlib.Path("/usr/share/datasets/fashion-mnist")
SCHEDULE = schedules.PowerLaw(0.5)
# It takes longer to optimize these programs than to run them.
FAST = {"xla_backend_optimization_level": 0}


def images(n, shape, channels=2, seed=0):
    """Images of both signs, of which one is zero and one has zero patches."""
    x = np.random.default_rng(seed).standard_normal((n, *shape, channels))
    x[1] = 0
    x[2, : shape[0] // 2] = 0
    return x


@pytest.mark.parametrize(
    ("pooling", "padding", "trained"),
    [("flatten", "CIRCULAR", "blocks"), ("gap", "SAME", "all")],
)
def test_it_is_that_of_direct_enumeration(pooling, padding, trained, x64):
    x = np.random.default_rng(0).standard_normal((3, 3, 3, 2))
    alphas = (0.5, 1.0, 0.3)
    options = {"pooling": pooling, "trained": trained, "padding": padding, "normalize": False}
    kernel = conv.ResidualKernel(3, schedules.Explicit(alphas), (3, 3), **options)
    got = kernel(x)
    for i, j in [(0, 0), (0, 1), (2, 1)]:
        _, ntk = naive_conv_kernel(x[i], x[j], alphas, **options)
        np.testing.assert_allclose(got[i, j], ntk, rtol=1e-12)


# Every value of every option, and those that meet in the code.
CASES = {
    "stages": {"depth": (2, 1), "trained": "all", "pooling": "gap"},
    "circular_stages": {"depth": (1, 1), "padding": "CIRCULAR", "block": "preactivation"},
    "preactivation": {"block": "preactivation", "trained": "all", "filter_shape": (5, 3)},
    "one_layer": {"depth": (1, 1), "block": "one_layer", "trained": "all", "normalize": False},
    "nngp": {"kind": "nngp", "depth": (1, 1), "block": "preactivation", "normalize": False},
    "small_filter": {"filter_shape": (1, 1), "trained": "all", "pooling": "gap"},
    "deep": {"depth": 40, "trained": "all", "filter_shape": (3, 1)},
}


IN_DEFAULT = ("stages", "one_layer", "nngp", "deep")


@pytest.mark.parametrize(
    "name", [*IN_DEFAULT, *full(*(name for name in CASES if name not in IN_DEFAULT))]
)
def test_it_is_that_of_neural_tangents(name, x64):
    options = {"depth": 3, "kind": "ntk", "normalize": True, **CASES[name]}
    x = images(5, (4, 8))
    kernel = conv.ResidualKernel(schedule=SCHEDULE, image_shape=(4, 8), **options)
    kind, depth = options.pop("kind"), options.pop("depth")
    scaled = options["normalize"] and kind == "ntk"
    options["normalize_blocks"] = options.pop("normalize")
    _, _, kernel_fn = stax.ConvResNet(depth, 8, schedule=SCHEDULE, **options)
    got = jax.jit(kernel.__call__, compiler_options=FAST)(x)
    expected = jax.jit(lambda x: kernel_fn(x, None, kind), compiler_options=FAST)(x)
    expected = np.asarray(expected) / (kernel.ntk_scale if scaled else 1)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * np.max(expected))
    np.testing.assert_array_equal(got[1], 0)


def test_of_images_with_one_pixel_it_is_the_fully_connected_one(x64):
    x = np.random.default_rng(0).standard_normal((4, 5))
    options = {"schedule": SCHEDULE, "trained": "all"}
    expected = rntk.ResidualKernel(5, **options)(x) / 5
    kernel = conv.ResidualKernel(5, image_shape=(1, 1), filter_shape=(1, 1), **options)
    program = jax.jit(kernel.__call__, compiler_options=FAST)
    np.testing.assert_allclose(program(x.reshape(4, 1, 1, 5)), expected, rtol=2e-9)


def test_finite_networks_tend_to_it():
    x = jnp.asarray(images(3, (3, 3))[[0, 2]], "float32")
    options = {"schedule": SCHEDULE, "pooling": "gap", "padding": "CIRCULAR"}
    kernel = conv.ResidualKernel(2, image_shape=(3, 3), normalize=False, **options)
    init_fn, apply_fn, _ = stax.ConvResNet(2, 128, 1, **options)

    def empirical_ntk(key):
        _, params = init_fn(key, x.shape)
        jacobian = jax.tree.leaves(jax.jacrev(apply_fn)(params, x))
        return sum(jnp.einsum("i...,j...->ij", leaf, leaf) for leaf in jacobian)

    keys = jax.random.split(jax.random.key(1), 20)
    got = jax.jit(lambda keys: jax.lax.map(empirical_ntk, keys))(keys).mean(0)
    expected = kernel(x)
    assert np.linalg.norm(got - expected) < 0.05 * np.linalg.norm(expected)


def test_kernels_are_values():
    kernel = conv.ResidualKernel(4, SCHEDULE, (8, 8))
    same = conv.ResidualKernel(np.int64(4), SCHEDULE, [8, 8])
    assert kernel == same
    assert hash(kernel) == hash(same)
    assert pickle.loads(pickle.dumps(kernel)) == kernel
    assert kernel != conv.ResidualKernel(4, SCHEDULE, (8, 8), padding="CIRCULAR")
    assert kernel.at_depth((2, 2)).at_depth(4) == kernel
    assert kernel.at_depth(math.inf).effective_time == 1
    assert kernel.preferred_tile_size > kernel.at_depth(4000).preferred_tile_size


def test_its_scale_counts_the_layers_that_are_trained():
    def scale(depth, **options):
        return conv.ResidualKernel(depth, schedules.Constant(), (8, 8), **options).ntk_scale

    assert scale(3) == pytest.approx(3)
    assert scale(3, block="one_layer") == pytest.approx(1.5)
    assert scale(3, trained="all") == pytest.approx(5)
    # The shortcut between the stages counts like the half of the sum it is in.
    assert scale((2, 1), trained="all") == pytest.approx(5.5)


def _of_neural_tangents(depth, alpha, pooling):
    """A residual network in the layers of neural-tangents alone."""
    convolution = nt_stax.Conv(1, (3, 3), padding="SAME")
    scaled = nt_stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5 * alpha)
    branch = nt_stax.serial(convolution, nt_stax.Relu(), scaled)
    block = nt_stax.serial(
        nt_stax.FanOut(2), nt_stax.parallel(nt_stax.Identity(), branch), nt_stax.FanInSum()
    )
    end = nt_stax.GlobalAvgPool() if pooling == "gap" else nt_stax.Flatten()
    return nt_stax.serial(convolution, *[block] * depth, end, nt_stax.Dense(1))[2]


@pytest.mark.filterwarnings("ignore:.FanIn. layers assume independent inputs")
@pytest.mark.skipif(not INSTALLED.exists(), reason="dataset-fashion-mnist is not installed")
@pytest.mark.parametrize("pooling", ["flatten", *full("gap")])
def test_on_real_images_it_is_that_of_layers_of_neural_tangents(pooling):
    n = 4 if pooling == "gap" else 20
    x = data.load("fashion_mnist", 60, root=INSTALLED).x_train[:n]
    depth, schedule = 3, schedules.PowerLaw(0.5)
    options = {"pooling": pooling, "trained": "all", "normalize": False}
    got = np.asarray(conv.ResidualKernel(depth, schedule, (28, 28), **options)(x))
    kernel_fn = _of_neural_tangents(depth, schedule(depth)[0], pooling)
    with enable_x64():
        wide = np.float64(x)
        expected = np.asarray(jax.jit(lambda x: kernel_fn(x, None, "ntk"))(wide))
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(got / scale, expected / scale, atol=1e-5)
