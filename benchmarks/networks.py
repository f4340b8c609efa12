"""The networks, kernels and inputs that several benchmarks measure."""

import nt_residual

# isort: split

import jax
import numpy as np
from neural_tangents import stax

from nt_residual import conv, schedules

SCHEDULE = schedules.PowerLaw(0.5)


def points(n, features, seed=0):
    """Standard normal inputs in float32."""
    return np.random.default_rng(seed).normal(size=(n, features)).astype("float32")


def images(n, side, seed=0):
    """Random images with three channels."""
    return jax.random.uniform(jax.random.key(seed), (n, side, side, 3))


def nt_kernel(depth, gamma):
    """neural-tangents' own NTK of the same blocks, α in the last layer of each branch."""
    alpha = float(depth) ** -gamma

    def kernel(x):
        width = x.shape[1]
        branch = stax.serial(
            stax.Dense(width, W_std=2**0.5), stax.Relu(), stax.Dense(width, W_std=alpha)
        )
        block = stax.serial(stax.FanOut(2), stax.parallel(stax.Identity(), branch), stax.FanInSum())
        # Only blocks are trained.
        first = nt_residual.stax.Frozen(stax.Dense(width))
        _, _, kernel_fn = stax.serial(first, stax.repeat(block, depth))
        return kernel_fn(x, None, "ntk")

    return kernel


def conv_kernels(pooling, side, blocks):
    """Ours, and neural-tangents' with the same scale, as functions of two batches."""
    ours = conv.ResidualKernel(blocks, SCHEDULE, (side, side), pooling=pooling, normalize=False)
    _, _, kernel_fn = nt_residual.stax.ConvResNet(blocks, 16, schedule=SCHEDULE, pooling=pooling)
    return ours, lambda x1, x2=None: kernel_fn(x1, x2, "ntk")


def dense(width, depth, outputs):
    """A dense network, and the shape of one of its inputs."""
    hidden = [stax.Dense(width, W_std=2**0.5), stax.Relu()] * depth
    return stax.serial(*hidden, stax.Dense(outputs)), (width,)


def convolutional(channels, depth, outputs):
    """A convolutional network with global average pooling, and the shape of an image."""
    block = [stax.Conv(channels, (3, 3), padding="SAME", W_std=2**0.5), stax.Relu()]
    return stax.serial(*block * depth, stax.GlobalAvgPool(), stax.Dense(outputs)), (16, 16, 3)
