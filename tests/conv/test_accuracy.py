"""The convolutional kernel in float32, where patches nearly coincide or are opposite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nt_residual import conv, schedules

CONSTANT, VANISHING = schedules.Constant(1.0), schedules.PowerLaw(1.0)


def difficult_images():
    """Images of which whole parts differ little, or only in contrast, or in sign."""
    rng = np.random.default_rng(0)
    x, other = rng.random((2, 6, 6, 1))
    strokes = np.full_like(x, -0.42), np.full_like(x, -0.42)
    strokes[0][2:5, 3:5], strokes[1][1:5, 2:4] = 2.8, 2.8
    brighter, corner = x.copy(), np.zeros_like(x)
    brighter[:3] *= 1.5
    corner[2:5, 2:5] = x[2:5, 2:5]
    close = [x + size * rng.standard_normal(x.shape) for size in (1e-3, 1e-5, 1e-7)]
    scaled = [3.3 * x, (1 + 1e-6) * x, 1e-12 * x, -x, (x - x.mean()) / x.std()]
    flat = [np.ones_like(x), -2 * np.ones_like(x)]
    black = [corner, corner + 1e-4 * (corner > 0.5)]
    moved = np.roll(x, 1, 0)
    return np.stack([x, other, *close, *scaled, moved, brighter, *black, *strokes, *flat])


@pytest.mark.parametrize(
    ("depth", "schedule", "options"),
    [
        (200, CONSTANT, {"padding": "CIRCULAR"}),
        pytest.param(
            10,
            VANISHING,
            {"pooling": "gap", "padding": "CIRCULAR", "trained": "all"},
            marks=pytest.mark.full,
        ),
    ],
    ids=["circular", "gap"],
)
def test_float32_is_as_float64(depth, schedule, options, x64):
    x = jnp.asarray(difficult_images(), "float32")
    kernel = conv.ResidualKernel(depth, schedule, (6, 6), **options)
    # It takes longer to optimize this program than to run it.
    program = jax.jit(kernel.__call__, compiler_options={"xla_backend_optimization_level": 0})
    exact = np.asarray(program(x.astype("float64")))
    got = np.asarray(kernel(x), "float64")
    sizes = np.sqrt(np.diag(exact))
    assert np.max(np.abs(got - exact) / np.outer(sizes, sizes)) < 5e-6
    if kernel.padding == "CIRCULAR" and kernel.pooling == "flatten":
        np.testing.assert_allclose(np.diag(got), np.mean(x**2, (1, 2, 3)), rtol=5e-6)
