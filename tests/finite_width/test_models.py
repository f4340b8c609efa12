"""Flax networks against those of stax, and the options that only they have."""

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from flax import nnx
from helpers import full

from nt_residual import finite_width, schedules, stax

NETWORKS = {
    "fc": (finite_width.ResNet, stax.FullyConnectedResNet, (3, 16, 2), {}),
    "fc_one_layer": (
        finite_width.ResNet,
        stax.FullyConnectedResNet,
        (3, 16),
        {"block": "one_layer", "trained": "all", "normalize_blocks": True, "W_std": 1.0},
    ),
    "stages": (
        finite_width.ConvResNet,
        stax.ConvResNet,
        ((2, 1), 4),
        {"block": "preactivation", "padding": "CIRCULAR", "trained": "all", "pooling": "gap"},
    ),
    "stages_same": (
        finite_width.ConvResNet,
        stax.ConvResNet,
        ((1, 2), 4),
        {"filter_shape": (5, 3), "normalize_blocks": True},
    ),
}


def made(make, arguments, dtype, **options):
    """A network, and inputs of its shape."""
    rng = np.random.default_rng(0)
    if make is finite_width.ResNet:
        options["in_dim"], shape = 5, (4, 5)
    else:
        options |= {"image_shape": (4, 6), "in_channels": 2}
        shape = (4, 4, 6, 2)
    model = make(*arguments, dtype=dtype, rngs=nnx.Rngs(0), **options)
    return model, jnp.asarray(rng.standard_normal(shape), dtype)


def outputs_and_ntk(function, params, x):
    """Of a function of parameters and inputs, compiled: that is what tests wait for."""

    def both(params, x):
        ntk_fn = nt.empirical_ntk_fn(function, trace_axes=(), vmap_axes=0)
        return function(params, x), ntk_fn(x, None, params)

    return jax.jit(both, compiler_options={"xla_backend_optimization_level": 0})(params, x)


def of_flax(model, x):
    graph, trained, rest = nnx.split(model, nnx.Param, ...)
    return outputs_and_ntk(lambda p, x: nnx.merge(graph, p, rest)(x), trained, x)


@pytest.mark.parametrize("case", ["fc_one_layer", "stages_same", *full("fc", "stages")])
def test_one_network_in_two_frameworks(case, x64):
    make, make_stax, arguments, options = NETWORKS[case]
    options = {"schedule": schedules.PowerLaw(0.25), **options}
    model, x = made(make, arguments, "float64", **options)
    x = x[:2]
    _, apply_fn, _ = make_stax(*arguments, **options)
    params = finite_width.to_stax(model)
    expected = outputs_and_ntk(apply_fn, params, x)
    for got, wanted in zip(of_flax(model, x), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-12)
    # And back: other parameters, in a copy.
    other = finite_width.from_stax(model, jax.tree.map(lambda leaf: 2 * leaf, params))
    for name, *_ in model.plan.weights():
        np.testing.assert_array_equal(getattr(other, name)[...], 2 * getattr(model, name)[...])


def test_recomputed_blocks_give_the_same_gradients():
    def gradient(**options):
        model, x = made(finite_width.ResNet, (3, 16), "float32", **options)
        return jax.tree.leaves(nnx.jit(nnx.grad(lambda m: jnp.sum(m(x) ** 2)))(model))

    for one, other in zip(gradient(), gradient(remat=True), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_only_blocks_are_trained_unless_all_are():
    model, _ = made(finite_width.ConvResNet, ((1, 1), 4), "float32")
    names = {f"{stage}{i}" for stage in ("stage0_layer", "stage1_strided") for i in (0, 1)}
    assert set(nnx.to_pure_dict(nnx.state(model, nnx.Param))) == names
    model, _ = made(finite_width.ConvResNet, ((1, 1), 4), "float32", trained="all")
    assert set(nnx.to_pure_dict(nnx.state(model, finite_width.Frozen))) == {"alphas"}


def test_a_compiled_mirrored_network_begins_at_zero_exactly():
    mirrored, x = made(finite_width.ResNet, (8, 16), "float32", mirrored=True)
    np.testing.assert_array_equal(nnx.jit(lambda model, x: model(x))(mirrored, x), 0)


def test_a_mirrored_network_begins_at_zero_with_the_same_ntk(x64):
    one, x = made(finite_width.ResNet, (2, 16), "float64")
    two, _ = made(finite_width.ResNet, (2, 16), "float64", mirrored=True)
    outputs, ntk = of_flax(two, x)
    np.testing.assert_array_equal(outputs, 0)
    np.testing.assert_allclose(ntk, of_flax(one, x)[1], rtol=1e-12)


def test_programs_do_not_grow_with_depth():
    def size(depth):
        model, x = made(finite_width.ResNet, (depth, 8), "float32")
        return nnx.jit(lambda m, x: m(x)).lower(model, x).as_text().count("\n")

    assert size(3) == size(300)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"schedule": np.ones(2)}, ValueError, "got 2 alphas for depth=3"),
        ({"schedule": lambda depth: -np.ones(depth)}, ValueError, "finite|negative"),
        ({"activation": "relu"}, TypeError, "activation must be a function or None"),
        ({"W_std": 0}, ValueError, "W_std must be positive and finite"),
        ({"mirrored": "no"}, TypeError, "mirrored must be True or False, got 'no'"),
        ({"in_dim": 0}, ValueError, "in_dim must be at least 1"),
    ],
)
def test_invalid_arguments_are_refused(change, error, message):
    arguments = {"depth": 3, "width": 8, "in_dim": 5, "rngs": nnx.Rngs(0), **change}
    with pytest.raises(error, match=message):
        finite_width.ResNet(**arguments)


def test_wrong_images_and_parameters_are_refused():
    model, x = made(finite_width.ConvResNet, (1, 4), "float32")
    with pytest.raises(ValueError, match=r"must have shape \(n, 4, 6, 2\), got shape \(4, 6, 2\)"):
        model(x[0])
    with pytest.raises(ValueError, match=r"divisible by 4, .* got \(4, 6\)"):
        made(finite_width.ConvResNet, ((1, 1, 1), 4), "float32")
    with pytest.raises(ValueError, match="none"):
        made(finite_width.ConvResNet, ((), 4), "float32")
    params = jax.tree.map(lambda leaf: leaf[..., :1], finite_width.to_stax(model))
    with pytest.raises(ValueError, match="params must be those of the same network"):
        finite_width.from_stax(model, params)
    mirrored, x = made(finite_width.ResNet, (1, 4), "float32", mirrored=True)
    with pytest.raises(ValueError, match="must not be mirrored"):
        finite_width.to_stax(mirrored)
    with pytest.raises(TypeError, match="must be a ResNet or ConvResNet"):
        finite_width.to_stax(nnx.Linear(1, 1, rngs=nnx.Rngs(0)))
