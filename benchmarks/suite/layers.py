"""The NTK of deep residual networks in layers of neural-tangents, written in several ways.

The same network of dense blocks with α = 1/√L is written as `stax.ResidualStack`, with the ReLU of
`nt_residual.stax` and with the ReLU of neural-tangents; and in neural-tangents' own layers, block
by block and with `stax.repeat`. Inputs have 32 features, and each occurs twice, since equal inputs
are hardest in float32. All are checked against `ResidualStack` in float64. Operations are those
that XLA counts.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.networks import block
from benchmarks.suite.case import Case, Counts, distance, exactly, sampled
from nt_residual import neural_tangents as nt
from nt_residual import stax

# Inputs, and depths.
SIZES = {
    "quick": (32, (10,)),
    "standard": (256, (10, 100, 1000)),
    "large": (2048, (10, 100, 10_000)),
}
# Networks deeper than this, written block by block, take minutes to compile.
DEEPEST = 100
# In neural-tangents, half of the digits of angles are correct.
TOLERANCE = {
    "ResidualStack": 1e-5,
    "neural-tangents' Relu": 1e-2,
    "block by block": 1e-2,
    "repeat": 1e-2,
}


def cases(size: str) -> list[Case]:
    """Return each way to write each network, in float32."""
    n, depths = SIZES[size]
    return [
        case(who, n, depth)
        for depth in depths
        for who in TOLERANCE
        if depth <= DEEPEST or who != "block by block"
    ]


def case(who: str, n: int, depth: int) -> Case:
    """Return one way to write one network."""
    return Case(
        family="layers",
        who=who,
        sizes={"n": n, "depth": depth, "dtype": "float32"},
        build=lambda: (_kernel(who, depth), (jnp.asarray(_inputs(n)),)),
        check=lambda matrix: distance(matrix[np.ix_(sampled(n), sampled(n))], _reference(n, depth)),
        tolerance=TOLERANCE[who],
        counts=lambda _: Counts(n * n),
    )


def _kernel(who, depth):
    relu = stax.Relu if who == "ResidualStack" else nt.stax.Relu
    alpha = depth**-0.5

    def branch(w_std):
        return nt.stax.serial(
            nt.stax.Dense(64, W_std=2**0.5), relu(), nt.stax.Dense(64, W_std=w_std)
        )

    if who == "block by block":
        blocks = [block(branch(alpha))] * depth
    elif who == "repeat":
        blocks = [nt.stax.repeat(block(branch(alpha)), depth)]
    else:
        blocks = [stax.ResidualStack(branch(1.0), np.full(depth, alpha))]
    _, _, kernel_fn = nt.stax.serial(nt.stax.Dense(64), *blocks, nt.stax.Dense(1))
    return lambda x: kernel_fn(x, None, "ntk")


@functools.cache
def _inputs(n):
    x = np.random.default_rng(0).normal(size=(n // 2, 32))
    return np.concatenate([x, x]).astype("float32")


@functools.cache
def _reference(n, depth):
    x = _inputs(n)[sampled(n)].astype(np.float64)
    with exactly():
        return np.asarray(jax.jit(_kernel("ResidualStack", depth))(x))
