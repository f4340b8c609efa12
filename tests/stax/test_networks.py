import math

import neural_tangents as nt
import numpy as np
import pytest
from jax import random

from nt_residual import rntk, schedules, stax

SCHEDULES = [
    schedules.PowerLaw(0.5),
    schedules.PowerLaw(0.0, c=0.5),
    schedules.Explicit([1.0, 0.0, 0.5, 0.2, 0.7, 0.1]),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("trained", ["blocks", "all"])
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_its_kernel_is_the_closed_form_divided_by_the_input_dimension(
    kind, trained, schedule, dtype
):
    x1, x2 = (random.normal(random.PRNGKey(i), (4, 5), dtype) for i in range(2))
    closed_form = rntk.ResidualKernel(6, schedule, kind, trained, normalize=False)
    _, _, kernel_fn = stax.FullyConnectedResNet(6, 8, schedule=schedule, trained=trained)
    expected = closed_form(x1, x2) / 5
    rtol = {"float32": 2e-5, "float64": 1e-8}[dtype.name]
    np.testing.assert_allclose(kernel_fn(x1, x2, kind), expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("trained", ["blocks", "all"])
def test_its_normalised_kernel_is_that_of_unit_variance(trained, x64):
    x1, x2 = (random.normal(random.PRNGKey(i), (4, 5)) for i in range(2))
    schedule = schedules.Constant(1.0)
    options = {"schedule": schedule, "trained": trained}
    closed_form = rntk.ResidualKernel(6, schedule, trained=trained)
    _, _, kernel_fn = stax.FullyConnectedResNet(6, 8, normalize=True, **options)
    # 2 Σ s_ℓ from the blocks, one each from the input and the output layer.
    layers = 6 + (2 if trained == "all" else 0)
    expected = layers * closed_form(x1, x2) / 5
    np.testing.assert_allclose(kernel_fn(x1, x2, "ntk"), expected, rtol=1e-8)


def test_its_finite_network_approaches_the_kernel():
    x = random.normal(random.PRNGKey(0), (3, 4))
    init_fn, apply_fn, kernel_fn = stax.FullyConnectedResNet(5, 512, out_dim=2)
    sampled_fn = nt.monte_carlo_kernel_fn(init_fn, apply_fn, random.PRNGKey(1), 20, vmap_axes=0)
    sampled, expected = sampled_fn(x, None, "ntk"), kernel_fn(x, None, "ntk")
    np.testing.assert_allclose(sampled, expected, rtol=0, atol=0.06 * np.max(expected))


def test_only_the_parameters_of_the_blocks_have_an_ntk():
    x = random.normal(random.PRNGKey(0), (3, 4))
    init_fn, apply_fn, _ = stax.FullyConnectedResNet(5, 16)
    shape, params = init_fn(random.PRNGKey(1), x.shape)
    assert shape == (3, 1)
    (first, _), blocks, (last, _) = params
    changed = ((first, None), blocks, (0 * last, None))
    assert np.max(np.abs(nt.empirical_ntk_fn(apply_fn)(x, None, params))) > 0
    np.testing.assert_allclose(nt.empirical_ntk_fn(apply_fn)(x, None, changed), 0, atol=1e-12)


@pytest.mark.parametrize("name", ["depth", "width", "out_dim"])
def test_sizes_that_are_not_positive_integers_are_refused(name):
    sizes = {"depth": 2, "width": 2, "out_dim": 1}
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got {value}"):
            stax.FullyConnectedResNet(**{**sizes, name: value})
    for value in (1.5, math.inf):
        with pytest.raises(ValueError, match=f"`{name}` must be an integer, got {value}"):
            stax.FullyConnectedResNet(**{**sizes, name: value})
    with pytest.raises(TypeError, match=f"`{name}` must be an integer, got '2'"):
        stax.FullyConnectedResNet(**{**sizes, name: "2"})


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="`trained` must be 'blocks' or 'all', got 'last'"):
        stax.FullyConnectedResNet(2, 2, trained="last")
    with pytest.raises(TypeError, match="`schedule` must be a callable"):
        stax.FullyConnectedResNet(2, 2, schedule=0.5)
    with pytest.raises(ValueError, match="one value per block, got 3 for depth 2"):
        stax.FullyConnectedResNet(2, 2, schedule=lambda depth: np.ones(3))
