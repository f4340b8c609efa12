"""Convolutional networks of infinite depth."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from nt_residual import conv, schedules


def images(dtype):
    """Images of which one has zero patches, two nearly coincide, and one has both signs."""
    x = np.random.default_rng(0).random((4, 3, 3, 1))
    x[1, :2] = 0
    x[2] = x[0] + 1e-3 * x[3]
    x[3] -= 0.5
    return jnp.asarray(x, dtype)


def values(kernel, x):
    # It takes longer to optimize these programs than to run them.
    fast = {"xla_backend_optimization_level": 0}
    return np.asarray(jax.jit(kernel.__call__, compiler_options=fast)(x))


def integrated(x, time, padding):
    """The NTK between all pixels of all images, (n, n, 9, 9), by an integrator of SciPy."""
    n, height, width, channels = x.shape
    pixels = list(np.ndindex(height, width))
    # From each pair of pixels of two images to the nine that a filter averages.
    average = np.zeros((9, 9, 9, 9))
    for (p, one), (q, other) in itertools.product(enumerate(pixels), repeat=2):
        for offset in itertools.product((-1, 0, 1), repeat=2):
            near = np.add([one, other], offset)
            if padding == "SAME" and not np.array_equal(near, near % (height, width)):
                continue
            a, b = np.ravel_multi_index((near % (height, width)).T, (height, width))
            average[p, q, a, b] += 1 / 9

    def averages(k):
        return np.einsum("pqab,nmab->nmpq", average, k)

    def derivative(tau, state):
        k, ntk = state.reshape(2, n, n, 9, 9)
        hidden, below = averages(k), averages(ntk)
        sizes = np.sqrt(np.einsum("nnpp->np", hidden))
        norms = np.einsum("np,mq->nmpq", sizes, sizes)
        angle = np.arccos(np.clip(hidden / np.where(norms > 0, norms, 1), -1, 1))
        np.einsum("nnpp->np", angle)[:] = 0
        moment = norms * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi
        branch = averages(moment)
        branch_ntk = branch + averages((1 - angle / np.pi) * (hidden + below))
        return 2 * time * tau * np.ravel([branch - k, branch_ntk - ntk])

    flat = x.reshape(n, 9, channels)
    first = averages(np.einsum("npc,mqc->nmpq", flat, flat)) / channels
    start = np.ravel([first, np.zeros_like(first)])
    solution = solve_ivp(derivative, (0, 1), start, method="DOP853", rtol=1e-10, atol=1e-12)
    return solution.y[:, -1].reshape(2, n, n, 9, 9)[1]


@pytest.mark.parametrize(
    ("pooling", "padding", "dtype", "error"),
    [
        ("flatten", "SAME", "float64", 1e-8),
        pytest.param("gap", "CIRCULAR", "float32", 1e-5, marks=pytest.mark.full),
    ],
)
def test_it_is_that_of_a_differential_equation(pooling, padding, dtype, error, x64):
    schedule, options = schedules.PowerLaw(0.5, c=1.5), {"pooling": pooling, "padding": padding}
    limit = conv.ResidualKernel(math.inf, schedule, (3, 3), **options)
    ntk = integrated(np.asarray(images("float64")), limit.effective_time, padding)
    mean = np.mean(ntk, (2, 3)) if pooling == "gap" else np.einsum("nmpp->nm", ntk) / 9
    expected = mean / (2 * limit.effective_time)
    got = values(limit, images(dtype))
    np.testing.assert_allclose(got, expected, rtol=0, atol=error * np.max(expected))


def test_where_alpha_vanishes_it_is_that_of_one_block_upon_the_input():
    x = images("float32")
    options = {"image_shape": (3, 3), "filter_shape": (1, 3)}
    limit = conv.ResidualKernel(math.inf, schedules.PowerLaw(1.0), **options)
    assert limit.effective_time == 0
    got = values(limit, x)
    for alpha in (1e-4, 1e-25):
        small = conv.ResidualKernel(1, schedules.Constant(alpha), **options)
        np.testing.assert_allclose(got, small(x), rtol=2e-6)


def test_first_blocks_that_keep_their_alpha_are_blocks(x64):
    few = schedules.Explicit((1.0, 0.5))

    def schedule(depth):
        return np.append(few(2), np.zeros(depth - 2))

    time = schedules.effective_time(few(2))
    options = {"image_shape": (3, 3), "filter_shape": (1, 3)}
    limit = conv.ResidualKernel(math.inf, schedule, effective_time=time, **options)
    x = images("float64")
    expected = values(conv.ResidualKernel(2, few, **options), x)
    np.testing.assert_allclose(values(limit, x), expected, rtol=1e-9)


def test_it_does_not_exist_where_time_diverges():
    with pytest.raises(ValueError, match="no useful limit at infinite depth"):
        conv.ResidualKernel(math.inf, schedules.PowerLaw(0.25), (3, 3))
    with pytest.raises(ValueError, match=r"or math.inf alone"):
        conv.ResidualKernel((2, math.inf), schedules.PowerLaw(0.5), (4, 4))
    with pytest.raises(ValueError, match="the NTK of the blocks is zero"):
        conv.ResidualKernel(math.inf, schedules.PowerLaw(1.0), (3, 3), normalize=False)
