"""Networks in training beside the gradient flow of their kernel."""

import functools
import math

import jax
import numpy as np
import pytest
from flax import nnx

from nt_residual import data, finite_width, regression, stax
from nt_residual.finite_width.flow import training_matches_flow

POINTS = data.sphere.load(16, 8, dim=3, coefficients={1: 1.0, 2: 1.0})
X, X_TEST = (math.sqrt(3) * x.astype("float32") for x in (POINTS.x_train, POINTS.x_test))
Y = POINTS.y_train


@jax.jit
def kernel(x1, x2=None, factor=1.0):
    _, _, kernel_fn = stax.FullyConnectedResNet(1, 1)
    return factor * kernel_fn(x1, x2, "ntk")


def mirrored(width):
    return finite_width.ResNet(1, width, in_dim=3, mirrored=True, rngs=nnx.Rngs(0))


def test_wide_networks_follow_the_flow_of_their_kernel_and_of_no_other():
    def distance(width, **options):
        arguments = mirrored(width), X, Y, X_TEST, [0.0, 1.0, 5.0, 20.0]
        return training_matches_flow(*arguments, learning_rate=0.2, **options).distance

    wide, narrow = distance(1024, kernel=kernel), distance(16, kernel=kernel)
    assert wide[0] == narrow[0] == 0
    assert np.all(wide < 0.05)
    assert np.mean(wide) < np.mean(narrow) / 3
    assert distance(1024, kernel=functools.partial(kernel, factor=1.5)).max() > 0.1


def test_the_distance_is_that_of_network_and_flow_at_the_steps_taken():
    match = training_matches_flow(mirrored(16), X, Y, X_TEST, [3.0], kernel=kernel)
    assert match.times == match.learning_rate * match.steps
    assert match.times[0] == pytest.approx(3.0, abs=match.learning_rate)
    flow = regression.GradientFlow.fit(kernel(X), Y).predict(kernel(X_TEST, X), match.times)
    np.testing.assert_allclose(match.flow[..., 0], flow, rtol=1e-4, atol=1e-5)
    apart = np.sqrt(np.mean((match.network - match.flow) ** 2) / np.mean(Y**2))
    assert match.distance[0] == pytest.approx(apart, rel=1e-5)
    assert repr(match).startswith(f"FlowMatch(distance={apart:.2g} at t=")


def test_invalid_arguments_are_refused():
    arguments = {"x": X, "y": Y, "x_test": X_TEST, "times": [1.0], "kernel": kernel}
    fails = functools.partial(training_matches_flow, **arguments)
    network = mirrored(16)
    with pytest.raises(ValueError, match=r"start at zero.*mirrored=True"):
        fails(finite_width.ResNet(1, 16, in_dim=3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="must be below 2n/λ_max"):
        fails(network, learning_rate=100.0)
    for times in ([math.inf], [0.0], 1.0):
        with pytest.raises(ValueError, match="times must be finite"):
            fails(network, times=times)
    with pytest.raises(ValueError, match="y must not be zero"):
        fails(network, y=0 * Y)
