"""The implementations of neural-tangents' empirical NTK on dense and convolutional networks.

All are checked against products of Jacobians in float64, for two inputs and two outputs.
Operations are those that XLA counts in each implementation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.suite.case import Case, Counts, distance, exactly
from nt_residual import neural_tangents as nt

# The network, its width, the numbers of hidden layers and outputs, and the number of inputs.
SIZES = {
    "quick": (("dense", 128, 3, 10, 8),),
    "standard": (("dense", 512, 3, 10, 8), ("convolutional", 32, 3, 10, 4)),
    "large": (("dense", 2048, 3, 10, 32), ("convolutional", 128, 3, 10, 16)),
}
IMPLEMENTATIONS = ("JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS", "STRUCTURED_DERIVATIVES")
TOLERANCE = 1e-4


def dense(width: int, depth: int, outputs: int):
    """Return a dense network, and the shape of one of its inputs."""
    hidden = [nt.stax.Dense(width, W_std=2**0.5), nt.stax.Relu()] * depth
    return nt.stax.serial(*hidden, nt.stax.Dense(outputs)), (width,)


def convolutional(channels: int, depth: int, outputs: int):
    """Return a convolutional network with global average pooling, and the shape of an image."""
    block = [nt.stax.Conv(channels, (3, 3), padding="SAME", W_std=2**0.5), nt.stax.Relu()]
    last = nt.stax.GlobalAvgPool(), nt.stax.Dense(outputs)
    return nt.stax.serial(*block * depth, *last), (16, 16, 3)


NETWORKS = {"dense": dense, "convolutional": convolutional}


def cases(size: str) -> list[Case]:
    """Return each implementation on each network, in float32."""
    return [case(name, *sizes) for sizes in SIZES[size] for name in IMPLEMENTATIONS]


def case(implementation: str, network: str, width: int, depth: int, outputs: int, n: int) -> Case:
    """Return one implementation on one network."""
    described = network, width, depth, outputs, n
    return Case(
        family="empirical_ntk",
        who=implementation,
        sizes={
            "network": network,
            "n": n,
            "width": width,
            "layers": depth,
            "outputs": outputs,
            "dtype": "float32",
        },
        build=functools.partial(_build, implementation, *described),
        check=lambda ntk: distance(_part(ntk), _reference(*described)),
        tolerance=TOLERANCE,
        counts=lambda _: Counts((n * outputs) ** 2),
    )


def _build(implementation, *described):
    f, params, x = _network(*described)
    chosen = nt.NtkImplementation[implementation]
    ntk_fn = nt.empirical_ntk_fn(f, (), vmap_axes=0, implementation=chosen)
    return lambda x, params: ntk_fn(x, None, params), (x, params)


@functools.lru_cache(maxsize=1)
def _network(network, width, depth, outputs, n):
    (init_fn, f, _), input_shape = NETWORKS[network](width, depth, outputs)
    x = jax.random.normal(jax.random.PRNGKey(0), (n, *input_shape))
    return f, init_fn(jax.random.PRNGKey(1), x.shape)[1], x


def _part(ntk):
    """Return the NTK between the first and the last input, and the first and the last output."""
    ends = np.array([0, -1])
    return ntk[np.ix_(ends, ends, ends, ends)]


@functools.lru_cache(maxsize=1)
def _reference(*described):
    f, params, x = _network(*described)

    @jax.jit
    def ntk(params, x):
        jacobian = jax.jacrev(lambda params: f(params, x)[:, jnp.array([0, -1])])(params)
        parts = [j.reshape(2, 2, -1) for j in jax.tree.leaves(jacobian)]
        return sum(jnp.einsum("iop,jqp->ijoq", j, j) for j in parts)

    params, x = jax.tree.map(lambda a: np.asarray(a, np.float64), (params, x[np.array([0, -1])]))
    with exactly():
        return np.asarray(ntk(params, x))
