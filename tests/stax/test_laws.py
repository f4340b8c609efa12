"""Laws that networks of each layer obey; the networks are in `residual_networks`."""

import functools

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from helpers import enable_x64
from jax import random
from neural_tangents import stax as nt_stax
from residual_networks import CASES

from nt_residual.stax.vanishing import abstract_init

WIDTH = 8
FIELDS = ("nngp", "ntk", "cov1", "cov2")
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}

# What neural-tangents says of its own layers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.FanIn. layers assume independent inputs"),
    pytest.mark.filterwarnings("ignore:Linear scaling attention used"),
]


def every_case(condition=lambda case: True, main=lambda case: True):
    """All cases that meet the condition, but for those in `main` only if all tests are run."""
    chosen = [
        pytest.param(case, id=name, marks=[] if main(case) else [pytest.mark.full])
        for name, case in CASES.items()
        if condition(case)
    ]
    return pytest.mark.parametrize("case", chosen)


# One of each kind, for laws of which the others say nothing new.
KINDS = [
    CASES[name]
    for name in (
        "Scale",
        "Relu",
        "Residual",
        "Residual_strided",
        "Residual_attention",
        "ResidualStack",
        "Frozen_residual",
        "ConvResNet_stages",
    )
]


def is_of_its_kind(case):
    """Return whether it stands for those like it."""
    return case in KINDS


def inputs(case, dtype="float32", width=WIDTH, sizes=(4, 2)):
    """Two batches, all of whose inputs are correlated."""
    shape = case.input_shape(width)
    x, *batches = (
        random.normal(random.PRNGKey(i), (n, *shape), dtype) for i, n in enumerate((1, *sizes))
    )
    return [x + batch for batch in batches]


@functools.cache
def compiled(case):
    """The kernel function of a network of one output. Compiling it is what tests wait for."""
    static = ("get", "diagonal_batch", "diagonal_spatial", "mask_constant")
    return jax.jit(case.outputs(WIDTH)[2], static_argnames=static)


@functools.cache
def expected_kernel(case):
    return compiled(case)(*inputs(case))


def assert_close(got, expected, tolerance=TOLERANCE["float32"]):
    """Compares arrays, relative to the largest entry, or all fields of kernels."""
    if isinstance(expected, nt.Kernel):
        for field in FIELDS:
            assert_close(getattr(got, field), getattr(expected, field), tolerance)
    elif expected is None:
        assert got is None
    else:
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)


@every_case(lambda case: case.unrolled, main=is_of_its_kind)
def test_the_kernel_is_that_of_the_network_unrolled_by_neural_tangents(case, x64):
    x1, x2 = inputs(case, "float64")
    # ReLU knows the angle of an input with itself.
    for symmetric in (False, True) if case.nt_relu else (False,):
        batches = (x1, None if symmetric else x2)
        theirs = jax.jit(case.outputs(WIDTH, case.unrolled)[2])(*batches)
        # neural-tangents' DotGeneral asks for all pairs of inputs.
        layout = {"diagonal_batch": theirs.diagonal_batch}
        ours = jax.jit(functools.partial(case.outputs(WIDTH)[2], **layout))(*batches)
        for field in FIELDS:
            to_half = case.nt_relu and (symmetric or field.startswith("cov"))
            tolerance = 1e-7 if to_half else TOLERANCE["float64"]
            assert_close(getattr(ours, field), getattr(theirs, field), tolerance)
        assert ours.is_gaussian == theirs.is_gaussian
        assert ours.nngp.dtype == jnp.float64


@every_case(main=is_of_its_kind)
def test_the_kernel_in_float32_is_that_in_float64(case):
    single = expected_kernel(case)
    with enable_x64():
        double = jax.jit(case.outputs(WIDTH)[2])(*inputs(case))
    assert_close(single, double)
    assert single.ntk.dtype == jnp.float32


@every_case(main=is_of_its_kind)
def test_the_shapes_of_the_kernel_are_those_of_the_network(case):
    init_fn, apply_fn, kernel_fn = case.features(WIDTH)
    k = jax.eval_shape(kernel_fn, *inputs(case))
    for x, shape in zip(inputs(case), (k.shape1, k.shape2), strict=True):
        output_shape, params = abstract_init(init_fn, x.shape)
        assert tuple(output_shape) == tuple(shape)
        outputs = jax.eval_shape(apply_fn, params, x)
        assert outputs.shape == tuple(shape)
        assert outputs.dtype == x.dtype


@every_case(main=is_of_its_kind)
def test_equal_batches_give_the_symmetric_kernel(case):
    x, _ = inputs(case)
    once, twice = compiled(case)(x, None), compiled(case)(x, x)
    for field in ("nngp", "ntk"):
        assert_close(getattr(twice, field), getattr(once, field))
        assert_close(getattr(once, field), np.asarray(getattr(once, field)).T)
    assert once.cov2 is None


@every_case(is_of_its_kind)
def test_the_kernel_is_the_same_in_parts_in_batches_and_with_all_pairs(case):
    x1, x2 = inputs(case)
    expected = expected_kernel(case)
    without_ntk = compiled(case)(x1, x2, get=("cov2", "nngp"))
    assert without_ntk._fields == ("cov2", "nngp")
    assert_close(without_ntk.cov2, expected.cov2)
    batched = nt.batch(case.outputs(WIDTH)[2], batch_size=2, device_count=0)
    stored = compiled(case)(x1, x2, diagonal_batch=False, diagonal_spatial=False)
    assert stored.cov1.shape == (4, 4)
    assert_close(jnp.diag(stored.cov1), expected.cov1)
    for k in (without_ntk, stored, in_batches := batched(x1, x2, ("nngp", "ntk"))):
        assert_close(k.nngp, expected.nngp)
    for k in (stored, in_batches):
        assert_close(k.ntk, expected.ntk)


@every_case(lambda case: case.crop is not None, main=is_of_its_kind)
def test_the_masked_kernel_is_that_of_the_cropped_input(case):
    x1, x2 = inputs(case)
    kept = (slice(None),) * (case.crop + 1) + (slice(None, -2),)
    masked = [jnp.full_like(x, 100.0).at[kept].set(x[kept]) for x in (x1, x2)]
    got = compiled(case)(*masked, mask_constant=100.0)
    assert_close(got, compiled(case)(x1[kept], x2[kept]))
    # Finite networks ignore what is masked, too.
    init_fn, apply_fn, _ = case.outputs(WIDTH)
    _, params = init_fn(random.PRNGKey(0), x1.shape)
    outputs = nt_stax.unmask_fn(apply_fn)(params, masked[0], mask_constant=100.0)
    assert_close(outputs, apply_fn(params, x1[kept]))


@every_case(
    lambda case: case.crop is not None,
    main=lambda case: case in (CASES["ABRelu"], CASES["Residual_attention"]),
)
def test_batches_of_different_size_have_the_kernel_of_padded_inputs(case):
    x1, x2 = inputs(case, sizes=(2, 2))
    kept = (slice(None),) * (case.crop + 1) + (slice(None, -2),)
    padded = jnp.full_like(x2, 100.0).at[kept].set(x2[kept])
    expected = compiled(case)(x1, padded, mask_constant=100.0)
    assert_close(compiled(case)(x1, x2[kept]), expected)


@every_case(
    lambda case: case.samples, main=lambda case: case is CASES["Residual_activation_as_shortcut"]
)
def test_the_kernel_is_that_of_wide_random_networks(case):
    width = 1024
    (x,) = inputs(case, width=width, sizes=(2,))
    for get, network in (("nngp", case.features), ("ntk", case.outputs)):
        init_fn, apply_fn, kernel_fn = network(width)
        sampled_fn = nt.monte_carlo_kernel_fn(
            init_fn, apply_fn, random.PRNGKey(1), case.samples, vmap_axes=0, device_count=0
        )
        sampled, expected = sampled_fn(x, None, get), kernel_fn(x, None, get)
        assert np.linalg.norm(sampled - expected) < 0.04 * np.linalg.norm(expected)
