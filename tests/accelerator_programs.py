"""Every public computation that runs on a device: functions, and the shapes of their arguments."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from residual_networks import CASES

from benchmarks.suite import empirical_ntk
from nt_residual import conv, finite_width, gram, rntk, schedules, stax
from nt_residual.finite_width import losses, networks
from nt_residual.finite_width.training_programs import Program
from nt_residual.gram import low_rank, sharded, tiles
from nt_residual.regression import krylov

HALF = schedules.PowerLaw(0.5)
N, FEATURES, OUTPUTS, SIDE, WIDTH = 256, 32, 10, 8, 16


def shape(*sizes, dtype="float32", sharding=None):
    return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding)


X, X2, IMAGES = shape(N, FEATURES), shape(N - 1, FEATURES), shape(6, SIDE, SIDE, 3)
ALPHAS = shape(20)
KERNEL = rntk.ResidualKernel(1000, HALF)


def summed(function):
    return lambda *x: jnp.sum(jnp.sin(function(*x)))


def recursion(x, alphas):
    return rntk.recursive_kernel(x, schedule=alphas, trained="all", normalize=False)


def homogeneous():
    _, _, kernel_fn = stax.FullyConnectedResNet(10, WIDTH, 1, HALF)
    return rntk.compile_homogeneous(kernel_fn)


def images_kernel(depth=4, **options):
    return conv.ResidualKernel(depth, HALF, (SIDE, SIDE), **options)


def kernels_of(layer, x):
    """Both kernels of a network of layers."""
    return (lambda x: tuple(layer[2](x, None, ("nngp", "ntk")))), (x,)


def gradient_of(layer, x):
    """Its outputs at finite width, and their gradient."""
    params = jax.eval_shape(lambda key: layer[0](key, x.shape)[1], jax.random.key(0))
    return jax.value_and_grad(lambda params, x: jnp.sum(layer[1](params, x) ** 2)), (params, x)


def layer_case(name):
    case = CASES[name]
    return kernels_of(case.outputs(WIDTH), shape(4, *case.input_shape(WIDTH)))


def training(model, x, mesh=None):
    """Steps of training with batches of 8 inputs."""
    net = networks.as_network(model, np.zeros((2, *x.shape[1:]), "float32"))
    program = Program(net.apply, losses.per_input("mse"), optax.adam(1e-3), 8, mesh)
    state = jax.eval_shape(program.start, net.params)
    data, rows = (x, shape(x.shape[0], 3)), shape(20, 8, dtype="int32")
    return Program.advance, (program, state, net.rest, data, rows, np.int32(20))


def resnet(depth=10):
    return finite_width.ResNet(depth, WIDTH, 3, in_dim=FEATURES, rngs=nnx.Rngs(0))


def conv_resnet():
    return finite_width.ConvResNet(
        (2, 2), WIDTH, 3, image_shape=(SIDE, SIDE), in_channels=3, remat=True, rngs=nnx.Rngs(0)
    )


def empirical(network, implementation):
    return empirical_ntk.case(implementation, network, WIDTH, 2, 3, 4).build()


# Those of one device. All products of those before `stax` are in precision 'highest'.
PRECISE = {
    "rntk ntk": lambda: (KERNEL, (X,)),
    "rntk nngp of two batches": lambda: (rntk.ResidualKernel(10, HALF, kind="nngp"), (X, X2)),
    "rntk all trained, infinite": lambda: (
        rntk.ResidualKernel(math.inf, HALF, trained="all", normalize=False),
        (X,),
    ),
    "rntk gradient": lambda: (jax.grad(summed(KERNEL)), (X, X2)),
    "rntk vmap": lambda: (jax.vmap(lambda x, y: KERNEL(x[None], y)[0], (0, None)), (X, X2)),
    "rntk homogeneous": lambda: (homogeneous(), (X,)),
    "rntk recursion": lambda: (recursion, (X, ALPHAS)),
    "rntk recursion, gradient in α": lambda: (jax.grad(summed(recursion), 1), (X, ALPHAS)),
    "conv flatten": lambda: (images_kernel(), (IMAGES,)),
    "conv gap, two batches": lambda: (images_kernel(pooling="gap"), (IMAGES, IMAGES)),
    "conv stages": lambda: (images_kernel((2, 2), block="preactivation", trained="all"), (IMAGES,)),
    "conv infinite": lambda: (images_kernel(math.inf, padding="CIRCULAR"), (IMAGES,)),
    "conv gradient": lambda: (jax.grad(summed(images_kernel())), (IMAGES,)),
    "gram tile": lambda: (
        lambda x, i: tiles.entries(KERNEL, x[:64], x[-64:], np.dtype("float32"), i == 0),
        (X, shape(dtype="int32")),
    ),
}
LAYERED = {
    "stax WideResNet, gradient": lambda: gradient_of(stax.WideResNet(1, 1, 10), IMAGES),
    "stax FullyConnectedResNet, gradient": lambda: gradient_of(
        stax.FullyConnectedResNet(10, WIDTH, 1, HALF), X
    ),
    **{f"stax {name}": functools.partial(layer_case, name) for name in CASES},
    "finite_width ResNet": lambda: training(resnet(), X),
    "finite_width ConvResNet": lambda: training(conv_resnet(), shape(16, SIDE, SIDE, 3)),
    **{
        f"empirical {network} {name}": functools.partial(empirical, network, name)
        for network in empirical_ntk.NETWORKS
        for name in empirical_ntk.IMPLEMENTATIONS
    },
}


class Rows:
    """A mesh of devices, and what is computed on it."""

    def __init__(self, devices, n=N, features=FEATURES):
        self.mesh = Mesh(np.array(devices), ("rows",), axis_types=(AxisType.Auto,))
        self.by_rows = NamedSharding(self.mesh, PartitionSpec("rows"))
        self.everywhere = NamedSharding(self.mesh, PartitionSpec())
        self.n, self.features = n, features

    def spread(self, *sizes):
        return shape(*sizes, sharding=self.by_rows)

    def copied(self, *sizes, dtype="float32"):
        return shape(*sizes, dtype=dtype, sharding=self.everywhere)

    @property
    def x(self):
        return self.copied(self.n, self.features)

    @property
    def matrix(self):
        return gram.Sharded(self.spread(self.n, self.n), self.mesh, self.n)

    @property
    def matrix_free(self):
        """One of these devices, with the cut of a matrix of this one."""
        x = np.ones((self.n, self.features), "float32")
        rest = gram.MatrixFree(KERNEL, x, tile_size=64).tree_flatten()[1]
        return gram.MatrixFree.tree_unflatten((*rest[:-1], self.mesh), (self.x, None))

    def product(self, matrix):
        return (lambda k, v: k.product(v)), (matrix, self.copied(self.n, OUTPUTS))

    def lanczos(self, matrix):
        basis, following = self.copied(OUTPUTS, 64, self.n), self.copied(OUTPUTS, self.n)
        numbers = [self.copied(dtype=dtype) for dtype in ("int32", "float32", "float32")]
        steps = functools.partial(krylov._continued, count=4)
        return steps, (matrix, basis, following, *numbers)

    def step(self, side):
        """Compute a tile of each device's rows of a symmetric matrix."""
        local = self.n // self.mesh.size
        rows = tiles.even_cut(local, side)
        options = {"rows": rows, "columns": tiles.Cut(self.n, rows.size), "mesh": self.mesh}
        step = functools.partial(sharded._step, KERNEL, **options, symmetric=True)
        index = self.copied(dtype="int32")
        return step, (self.spread(self.n, self.n), self.x, self.x, index, index)

    def landmarks(self, rank=24):
        """Add a tile of rows to the sums of `gram.LowRank`."""
        parts = [
            [self.spread(self.mesh.size, rank, columns) for columns in (rank, OUTPUTS)]
            for _ in range(2)
        ]
        tile = self.spread(self.n, self.features), self.spread(self.n, OUTPUTS)
        fixed = self.copied(rank, self.features), self.copied(rank, rank)
        step = functools.partial(low_rank._add_tile, KERNEL, mesh=self.mesh)
        return step, (*fixed, *tile, self.copied(dtype="int32"), parts)

    def place(self):
        """Copy inputs that are spread by rows to all devices."""
        return jax.jit(lambda x: x, out_shardings=self.everywhere), (self.spread(self.n, FEATURES),)

    def training(self):
        program, arguments = training(resnet(), X, self.mesh)
        return program, jax.tree.map(
            lambda a: self.copied(*a.shape, dtype=a.dtype) if hasattr(a, "shape") else a, arguments
        )
