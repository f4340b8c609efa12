"""Errors of a convolutional kernel for wrong arguments and images."""

import numpy as np
import pytest

from nt_residual import conv, schedules

SCHEDULE = schedules.PowerLaw(0.5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"depth": 0}, ValueError, "depth must be at least 1, got 0"),
        ({"depth": ()}, ValueError, r"number of blocks for each stage, got \(\)"),
        ({"depth": (1, 1, 1, 1)}, ValueError, r"divisible by 8, .* got \(8, 12\)"),
        ({"schedule": 0.5}, TypeError, "schedule must be a callable"),
        ({"schedule": schedules.Explicit((0.0,) * 3)}, ValueError, "every α is zero"),
        ({"schedule": schedules.Explicit((1.0, 1.0))}, ValueError, "one α per block|depth"),
        ({"image_shape": 8}, TypeError, r"two integers \(height, width\), got 8"),
        ({"image_shape": (8, 8, 3)}, ValueError, "number of channels is an argument of its own"),
        ({"image_shape": (8, 0)}, ValueError, r"image_shape\[1\] must be at least 1"),
        ({"filter_shape": (3, 4)}, ValueError, r"must be odd in each direction, got \(3, 4\)"),
    ],
)
def test_wrong_arguments_are_refused(change, error, message):
    arguments = {"depth": 3, "schedule": SCHEDULE, "image_shape": (8, 12), **change}
    with pytest.raises(error, match=message):
        conv.ResidualKernel(**arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 4, 6), r"got shape \(2, 4, 6\). Add an axis for the channel: x1\[..., None\]"),
        ((4, 6, 3), r"For a single image pass x1\[None\]"),
        ((2, 72), r"Pass x1.reshape\(-1, 4, 6, channels\) for flat images"),
        ((2, 3, 4, 6), "Channels come last"),
        ((2, 5, 6, 3), r"must have shape \(n, 4, 6, channels\).* got shape \(2, 5, 6, 3\)"),
        ((0, 4, 6, 3), "at least one image"),
    ],
)
def test_images_of_a_wrong_shape_are_refused(shape, message):
    kernel = conv.ResidualKernel(3, SCHEDULE, (4, 6))
    with pytest.raises(ValueError, match=message):
        kernel(np.zeros(shape, "float32"))


def test_images_of_wrong_values_are_refused():
    kernel = conv.ResidualKernel(3, SCHEDULE, (4, 6))
    x = np.ones((2, 4, 6, 3), "float32")
    with pytest.raises(TypeError, match=r"must hold real floats, got dtype uint8.*/ 255"):
        kernel(x.astype("uint8"))
    with pytest.raises(ValueError, match="NaN or infinity in input 1"):
        kernel(np.where(np.arange(2)[:, None, None, None] == 1, np.nan, x))
    with pytest.raises(ValueError, match="same number of channels"):
        kernel(x, x[..., :2])
    with pytest.raises(ValueError, match=r"reaches exp\(.*Scale the inputs down"):
        kernel(1e25 * x)
    with pytest.raises(ValueError, match="pass normalize=True"):
        conv.ResidualKernel(200, schedules.Constant(), (4, 6), normalize=False)(x)
    with pytest.raises(ValueError, match=r"lose variance at the borders"):
        conv.ResidualKernel(2000, schedules.Constant(), (4, 6))(x)
    for wrong in ({"n1": True}, {"n2": 5.0}, {"in_channels": "3"}):
        with pytest.raises(TypeError, match=f"{next(iter(wrong))} must be an integer"):
            kernel.memory_estimate(**({"n1": 5, "in_channels": 3} | wrong))
