"""The implementations of `nt.empirical_ntk_fn` against each other, on networks and primitives.

`JACOBIAN_CONTRACTION` is plain reverse-mode differentiation, and so the oracle of the others.
"""

import flax.linen
import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from flax import nnx
from helpers import full, mainly
from jax import lax
from jax.sharding import AxisType, PartitionSpec
from neural_tangents import stax
from nt_networks import IMAGES, NETWORKS, VECTORS, array, parameters

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
JACOBIAN_CONTRACTION, NTK_VECTOR_PRODUCTS, STRUCTURED_DERIVATIVES, AUTO = (
    {"implementation": implementation} for implementation in (1, 2, 3, 0)
)


def _implementations(dtype):
    """All of them; in float32 without AUTO, which compiles the others to choose one."""
    variants = [JACOBIAN_CONTRACTION, NTK_VECTOR_PRODUCTS, STRUCTURED_DERIVATIVES]
    return variants if dtype == "float32" else [*variants, AUTO]


def assert_close(actual, expected, rtol):
    """Leaf by leaf, relative to the largest entry."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype
        assert a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=0, atol=rtol * np.abs(e).max() + 1e-300)


def ntks(f, x1, x2, params, variants, rng=None, **options):
    """The NTK of f in several variants of `empirical_ntk_fn`, compiled at once to save time."""
    kwargs = {} if rng is None else {"rng": rng}

    @jax.jit
    def compute(x1, x2, params):
        return [
            nt.empirical_ntk_fn(f, **options, **variant)(x1, x2, params, **kwargs)
            for variant in variants
        ]

    return compute(x1, x2, params)


# Networks. Each function returns f, parameters, inputs and what empirical_ntk_fn needs to know.


def _of_stax(inputs, layers, **options):
    init_fn, apply_fn, _ = layers
    return apply_fn, parameters(init_fn, inputs[0].shape), inputs, options


def _dropout():
    layers = stax.serial(stax.Dense(16), stax.Relu(), stax.Dropout(0.6), stax.Dense(3))
    return _of_stax(VECTORS, layers, rng=jax.random.PRNGKey(3))


def _dictionaries():
    def f(params, x):
        hidden = jnp.tanh(x["left"] @ params["w"]["left"] + x["right"] @ params["w"]["right"])
        return {"mean": hidden @ params["v"], "scale": hidden[..., :2] ** 2}

    params = {"w": {"left": array(6, 5), "right": array(3, 5)}, "v": array(5, 2)}
    inputs = tuple({"left": x, "right": x[:, :3]} for x in VECTORS)
    return f, params, inputs, {"vmap_axes": 0}


def _linen():
    class Network(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x):
            x = flax.linen.Conv(4, (3, 3), strides=(2, 2))(x)
            x = flax.linen.GroupNorm(num_groups=2)(flax.linen.gelu(x))
            x = flax.linen.avg_pool(x, (2, 2))
            return flax.linen.Dense(3)(x.reshape(len(x), -1))

    network, dtype = Network(), IMAGES[0].dtype
    params = network.init(jax.random.PRNGKey(0), IMAGES[0].astype(dtype))
    return network.apply, params, IMAGES, {"vmap_axes": 0}


def _nnx():
    class Network(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Conv(2, 4, (3, 3), strides=2, rngs=rngs)
            self.norm = nnx.LayerNorm(4, rngs=rngs)
            self.last = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x):
            hidden = nnx.relu(self.norm(self.first(x)))
            return self.last(hidden.mean(axis=(1, 2)))

    graph, params = nnx.split(Network(nnx.Rngs(0)))
    return lambda p, x: nnx.merge(graph, p)(x), params, IMAGES, {"vmap_axes": 0}


STAX = ["AvgPool", *full("ConvTranspose", "ConvLocal", "GlobalSelfAttention_positions")]
OTHERS = [_dictionaries, _nnx, *full(_dropout, _linen)]


@mainly("float64")
@pytest.mark.parametrize("network", [*STAX, *OTHERS])
def test_all_implementations_agree_on(network, dtype):
    if isinstance(network, str):
        inputs, layers = NETWORKS[network]
        f, params, inputs, options = _of_stax(inputs, layers(), vmap_axes=0)
    else:
        f, params, inputs, options = network()
    params, (x1, x2) = jax.tree.map(lambda x: x.astype(dtype), (params, inputs))
    variants = _implementations(dtype)
    expected, *others = ntks(f, x1, x2, params, variants, trace_axes=(), **options)
    assert all(k.dtype == dtype for k in jax.tree.leaves(expected))
    for actual in others:
        assert_close(actual, expected, TOLERANCE[dtype.name])


AXES = {
    "trace": {"trace_axes": (-1,)},
    "diagonal": {"trace_axes": (), "diagonal_axes": (-1,)},
    "spatial trace": {"trace_axes": (1, -1)},
    "spatial diagonal": {"trace_axes": (-1,), "diagonal_axes": (1, 2)},
    "batch diagonal": {"trace_axes": (), "diagonal_axes": (0,)},
}


@mainly("float32")
@pytest.mark.parametrize(
    "axes", ["trace", "spatial diagonal", *full("diagonal", "spatial trace", "batch diagonal")]
)
@pytest.mark.parametrize("same", [True, *full(False)])
def test_all_implementations_agree_with_axes_of(axes, same, dtype):
    layers = stax.serial(stax.Conv(4, (3, 3), padding="SAME"), stax.Relu(), stax.Conv(2, (2, 2)))
    f, params, (x1, x2), _ = _of_stax((IMAGES[0], IMAGES[0][::-1] * 0.5), layers)
    params, x1, x2 = jax.tree.map(lambda x: x.astype(dtype), (params, x1, x2))
    x2 = None if same else x2
    expected, *others = ntks(f, x1, x2, params, _implementations(dtype), **AXES[axes])
    for actual in others:
        assert_close(actual, expected, TOLERANCE[dtype.name])


# Primitives, applied to the parameters themselves: there the rules count.


@jax.custom_vjp
def _scaled(w):
    return 3.0 * w


_scaled.defvjp(lambda w: (3.0 * w, None), lambda _, ct: (3.0 * ct,))


@jax.custom_jvp
def _cubed(w):
    return w**3


_cubed.defjvp(lambda primals, tangents: (_cubed(*primals), 3 * primals[0] ** 2 * tangents[0]))


def _layer(x, w):
    """One step of a scan."""
    return jnp.tanh(x @ w), x.sum()


def _conv_of(w, lhs=None, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    lhs = array(1, 5, 4, 4) if lhs is None else lhs
    return lax.conv_general_dilated(lhs, w, (1, 1), "SAME", dimension_numbers=numbers, **options)


def _on_one_device(function):
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Auto,))
    rows = PartitionSpec("rows")
    return jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows)


_MASK = np.asarray(array(3, 4)) > 0

PRIMITIVES = {
    "transpose": ((3, 4, 2), lambda w: w.transpose(2, 0, 1)),
    "reshape, twice": ((3, 4), lambda w: w.reshape(2, 6)[:, :3] * w.reshape(6, 2).sum()),
    "reduce_sum": ((3, 4, 2), lambda w: w.sum(axis=1)),
    "reduce_window_sum": (
        (1, 4, 4, 2),
        lambda w: lax.reduce_window(w, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 2, 1), "SAME"),
    ),
    "pad": ((3, 4), lambda w: jnp.pad(w, ((1, 0), (0, 2)))),
    "pad, with a parameter": ((2, 3), lambda w: jnp.pad(w[:1], 1, constant_values=w[1, 2])),
    "pad, with two parameters": (
        (2, 3),
        lambda w: lax.pad(w, w[0, 0] * w[1, 1], [(1, 0, 0), (0, 1, 0)]),
    ),
    "concatenate": ((3, 4), lambda w: jnp.concatenate([w, jnp.sin(w), w], axis=1)),
    "mul, twice": ((3, 4), lambda w: w * array(3, 4) + jnp.tanh(w * array(3, 4, seed=1.0))),
    # Diagonal along the axes of the output, which are other axes of the parameter.
    "mul and dot_general": (
        (3, 3),
        lambda w: jnp.sin(w * array(3, 3)) + jnp.einsum("ji,ij->ji", array(3, 3, seed=1.0), w),
    ),
    "mul and dot_general, batched": (
        (3, 2),
        lambda w: jnp.einsum("nhd,dh->nh", array(4, 2, 3), w) + jnp.tanh(w * array(3, 2)).sum(),
    ),
    "dot_general": ((3, 4), lambda w: array(5, 3) @ w),
    "dot_general, batched": ((2, 3, 4), lambda w: jnp.einsum("bij,bjk->bik", array(2, 5, 3), w)),
    "conv_general_dilated": ((3, 3, 4, 2), _conv_of),
    "conv_general_dilated, depthwise": (
        (3, 3, 1, 4),
        lambda w: _conv_of(w, feature_group_count=4),
    ),
    "conv_general_dilated, batches": (
        (3, 3, 4, 2),
        lambda w: _conv_of(w, array(2, 5, 4, 4), batch_group_count=2),
    ),
    "conv_general_dilated, input": ((1, 3, 3, 2), lambda w: _conv_of(array(2, 2, 2, 3), w)),
    "select_n, two cases": ((3, 4), lambda w: jnp.where(_MASK, w, w[::-1])),
    "select_n, scalar": ((3, 4), lambda w: lax.select(jnp.sum(w) > 0, w, -w)),
    "slice": ((3, 4), lambda w: lax.slice(w, (1, 0), (3, 4), (1, 2))),
    "split": ((3, 5), lambda w: jnp.multiply(*jnp.split(w, [2, 4], axis=1)[:2])),
    "dynamic_slice": ((3, 4), lambda w: lax.dynamic_slice(w, (w.argmax() % 2, 1), (2, 3))),
    "gather": ((5, 4), lambda w: w[jnp.array([0, 3, 3])]),
    "linear_solve": ((3,), lambda w: jnp.linalg.solve(3 * jnp.eye(3) + array(3, 3), w)),
    "fft": ((3, 4), lambda w: jnp.fft.irfft(jnp.fft.rfft(w) * jnp.array([1.0, 2.0, 1j]))),
    "complex": ((3, 4), lambda w: jnp.abs((1.0 + 2.0j) * w + 1.0)),
    "vmap": ((3, 4), jax.vmap(lambda w: jnp.tanh(array(2, 4) @ w))),
    "shard_map": ((3, 4), lambda w: _on_one_device(jnp.tanh)(w)),
    "jit": ((3, 4), jax.jit(lambda w: jnp.tanh(array(2, 3) @ w))),
    "checkpoint": ((3, 4), jax.checkpoint(lambda w: jnp.tanh(array(2, 3) @ w))),
    "custom_jvp": ((3, 4), _cubed),
    "custom_vjp": ((3, 4), _scaled),
    "scan": (
        (4, 3, 3),
        lambda w: lax.scan(_layer, array(2, 3), w),
    ),
    "scan, in checkpoint": (
        (4, 3, 3),
        lambda w: jnp.sin(
            jax.checkpoint(lambda w: jnp.sin(lax.scan(_layer, array(2, 3), w)[0]))(w)
        ),
    ),
    "cond, in checkpoint": (
        (3, 4),
        lambda w: jax.checkpoint(lambda w: lax.cond(w.sum() < 0, jnp.cos, jnp.sin, w * w) ** 2)(w),
    ),
    "cond": ((3, 4), lambda w: lax.cond(w.sum() > 100.0, jnp.sin, jnp.cos, w)),
    "nothing": ((3, 4), lambda w: (jnp.ones(3), 2.0 * w[0])),
}

# NTK_VECTOR_PRODUCTS needs forward mode, which a custom_vjp does not have.
NO_FORWARD_MODE = {"custom_vjp"}
# How structured derivatives treat an equation: by its rules, or column by column or row by row.
SETTINGS = [
    {},
    {"_j_rules": False, "_fwd": True},
    {"_j_rules": False, "_fwd": False},
    {"_s_rules": False},
    {"_j_rules": False, "_s_rules": False},
]


# Those that compat has rules for, or treats apart.
CHANGED = ["select_n, two cases", "slice", "split", "pad, with a parameter", "complex", "scan"]
CHANGED += ["conv_general_dilated, input", "mul and dot_general", "cond, in checkpoint", "jit"]
CHANGED += ["custom_vjp", "dot_general", "nothing"]


@pytest.mark.filterwarnings("ignore:No Jacobian rule found")
@pytest.mark.parametrize("name", [*CHANGED, *full(*sorted(PRIMITIVES.keys() - set(CHANGED)))])
def test_parameters_may_enter(name, x64):
    shape, primitive = PRIMITIVES[name]

    def f(params, x):
        # A function of the result, so that cotangents differ from entry to entry.
        return jax.tree.map(lambda y: x.sum() * jnp.sin(y), primitive(params))

    def wide(params, x):
        # More outputs than the primitive has: equations without rule are treated otherwise.
        return jax.tree.map(lambda y: jnp.concatenate([y, y * y, y]), f(params, x))

    inputs = array(2), array(3), array(*shape)
    structured = [{**STRUCTURED_DERIVATIVES, **setting} for setting in SETTINGS]
    vector_products = [] if name in NO_FORWARD_MODE else [NTK_VECTOR_PRODUCTS]
    for function, variants in ((f, structured[:2] + vector_products), (wide, structured)):
        expected, *others = ntks(
            function, *inputs, [JACOBIAN_CONTRACTION, *variants], trace_axes=()
        )
        for actual in others:
            assert_close(actual, expected, 1e-10)
