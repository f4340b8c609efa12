"""Networks made of each layer of `nt_residual.stax`, which one suite of laws is checked on."""

import dataclasses
from collections.abc import Callable

from neural_tangents import stax as nt_stax

from nt_residual import schedules, stax

ALPHA = 0.6
ALPHAS = (0.3, 1.0, 0.0, 0.6)
NCHW = ("NCHW", "OIHW", "NCHW")


@dataclasses.dataclass(frozen=True)
class Case:
    """A network of any width, and what is known of it.

    Attributes:
      network: from the width of its layers to a layer whose outputs have that many channels.
      shape: of one input; `None` stands for the width.
      unrolled: the same network as neural-tangents can write it, if it can.
      readout: what turns its outputs into vectors.
      crop: the axis of its inputs that may be masked, if its kernel is then that of the
        cropped input.
      channel_axis: of inputs.
      nt_relu: whether `unrolled` has neural-tangents' ReLU, which knows the angle between
        equal inputs (or pixels) to the square root of machine epsilon.
      samples: how many wide random networks its kernel is compared with. None where others
        are of the same kind and neural-tangents has the kernel, since a wide convolution
        takes seconds.
    """

    network: Callable
    shape: tuple
    unrolled: Callable | None = None
    readout: Callable = nt_stax.Identity
    crop: int | None = None
    channel_axis: int = -1
    nt_relu: bool = False
    samples: int = 64

    def input_shape(self, width):
        return tuple(width if size is None else size for size in self.shape)

    def features(self, width, network=None):
        return nt_stax.serial((network or self.network)(width), self.readout())

    def outputs(self, width, network=None):
        return nt_stax.serial(self.features(width, network), nt_stax.Dense(1))


def conv(width, W_std=1.0, filter_shape=(3, 3), strides=(1, 1), **kwargs):
    return nt_stax.Conv(width, filter_shape, strides, "SAME", W_std, **kwargs)


def dense_branch(width, alpha=1.0):
    return nt_stax.serial(
        nt_stax.Dense(width, W_std=1.5, b_std=0.3), nt_stax.Erf(), nt_stax.Dense(width, alpha)
    )


def conv_branch(width, alpha=1.0, strides=(1, 1), **kwargs):
    return nt_stax.serial(nt_stax.Erf(), conv(width, alpha, strides=strides, **kwargs))


def residual(branch, shortcut=None):
    """A block as neural-tangents can write it: α is part of the last layer of the branch."""
    return nt_stax.serial(
        nt_stax.FanOut(2),
        nt_stax.parallel(shortcut or nt_stax.Identity(), branch),
        nt_stax.FanInSum(),
    )


def attention(width, alpha=1.0):
    return nt_stax.GlobalSelfAttention(
        width,
        n_chan_key=width,
        n_chan_val=width,
        n_heads=4,
        linear_scaling=True,
        W_out_std=alpha,
        b_std=None,
    )


def normalized(branch, alpha):
    """A block divided by √(1+α²), as neural-tangents can write it."""
    norm = (1 + alpha**2) ** 0.5
    return residual(branch(alpha / norm), nt_stax.DotGeneral(rhs=1 / norm))


VECTOR, SEQUENCE, IMAGE = (5,), (6, 5), (4, 3, 3)
GAP = nt_stax.GlobalAvgPool


CASES = {
    "Scale": Case(
        lambda n: nt_stax.serial(nt_stax.Dense(n), stax.Scale(ALPHA), nt_stax.Erf()),
        VECTOR,
        lambda n: nt_stax.serial(nt_stax.Dense(n, ALPHA), nt_stax.Erf()),
    ),
    "Relu": Case(
        lambda n: nt_stax.serial(nt_stax.Dense(n, b_std=0.2), stax.Relu()),
        VECTOR,
        lambda n: nt_stax.serial(nt_stax.Dense(n, b_std=0.2), nt_stax.Relu()),
        nt_relu=True,
    ),
    "ABRelu": Case(
        lambda n: nt_stax.serial(conv(n), stax.ABRelu(-0.3, 0.8), conv(n)),
        IMAGE,
        lambda n: nt_stax.serial(conv(n), nt_stax.ABRelu(-0.3, 0.8), conv(n)),
        readout=GAP,
        crop=0,
        nt_relu=True,
        samples=16,
    ),
    "Residual": Case(
        lambda n: nt_stax.serial(nt_stax.Dense(n), stax.Residual(dense_branch(n), ALPHA)),
        VECTOR,
        lambda n: nt_stax.serial(nt_stax.Dense(n), residual(dense_branch(n, ALPHA))),
    ),
    "Residual_normalized": Case(
        lambda n: nt_stax.serial(
            nt_stax.Dense(n), stax.Residual(dense_branch(n), ALPHA, normalize_blocks=True)
        ),
        VECTOR,
        lambda n: nt_stax.serial(
            nt_stax.Dense(n), normalized(lambda alpha: dense_branch(n, alpha), ALPHA)
        ),
    ),
    "Residual_of_the_input": Case(lambda n: stax.Residual(dense_branch(n), ALPHA), (None,)),
    "Residual_activation_as_shortcut": Case(
        lambda n: nt_stax.serial(
            nt_stax.Dense(n), stax.Residual(dense_branch(n), ALPHA, shortcut=stax.Relu())
        ),
        VECTOR,
    ),
    "Residual_strided": Case(
        lambda n: nt_stax.serial(
            conv(n),
            stax.Residual(
                conv_branch(n, strides=(2, 2)), ALPHA, conv(n, 1.0, (1, 1), strides=(2, 2))
            ),
        ),
        IMAGE,
        lambda n: nt_stax.serial(
            conv(n),
            residual(conv_branch(n, ALPHA, strides=(2, 2)), conv(n, 1.0, (1, 1), strides=(2, 2))),
        ),
        readout=GAP,
        samples=16,
    ),
    "Residual_pooling_as_shortcut": Case(
        lambda n: nt_stax.serial(
            conv(n),
            stax.Residual(
                conv_branch(n, strides=(2, 2)),
                ALPHA,
                nt_stax.AvgPool((2, 2), (2, 2), "SAME"),
            ),
        ),
        IMAGE,
        readout=nt_stax.Flatten,
        samples=16,
    ),
    "Residual_NCHW": Case(
        lambda n: nt_stax.serial(
            conv(n, dimension_numbers=NCHW),
            stax.Residual(conv_branch(n, dimension_numbers=NCHW), ALPHA),
        ),
        (3, 4, 3),
        lambda n: nt_stax.serial(
            conv(n, dimension_numbers=NCHW), residual(conv_branch(n, ALPHA, dimension_numbers=NCHW))
        ),
        readout=lambda: nt_stax.GlobalAvgPool(channel_axis=1),
        crop=1,
        channel_axis=1,
        samples=0,
    ),
    "Residual_attention": Case(
        lambda n: nt_stax.serial(nt_stax.Dense(n), stax.Residual(attention(n), ALPHA)),
        SEQUENCE,
        lambda n: nt_stax.serial(nt_stax.Dense(n), residual(attention(n, ALPHA))),
        readout=GAP,
        crop=0,
        samples=16,
    ),
    "ResidualStack": Case(
        lambda n: nt_stax.serial(nt_stax.Dense(n), stax.ResidualStack(dense_branch(n), ALPHAS)),
        VECTOR,
        lambda n: nt_stax.serial(
            nt_stax.Dense(n), *(residual(dense_branch(n, alpha)) for alpha in ALPHAS)
        ),
    ),
    "ResidualStack_of_the_input": Case(
        lambda n: stax.ResidualStack(dense_branch(n), ALPHAS[:2], remat=True), (None,)
    ),
    "ResidualStack_normalized": Case(
        lambda n: nt_stax.serial(
            nt_stax.Dense(n), stax.ResidualStack(dense_branch(n), ALPHAS, normalize_blocks=True)
        ),
        VECTOR,
        lambda n: nt_stax.serial(
            nt_stax.Dense(n),
            *(normalized(lambda a: dense_branch(n, a), alpha) for alpha in ALPHAS),
        ),
    ),
    "ResidualStack_one_convolution": Case(
        lambda n: nt_stax.serial(conv(n), stax.ResidualStack(conv_branch(n), ALPHAS[:2])),
        IMAGE,
        lambda n: nt_stax.serial(
            conv(n), *(residual(conv_branch(n, alpha)) for alpha in ALPHAS[:2])
        ),
        readout=GAP,
        crop=1,
        samples=16,
    ),
    "ResidualStack_convolution_as_shortcut": Case(
        lambda n: nt_stax.serial(
            conv(n), stax.ResidualStack(conv_branch(n), ALPHAS[:2], shortcut=conv(n), remat=True)
        ),
        IMAGE,
        lambda n: nt_stax.serial(
            conv(n), *(residual(conv_branch(n, alpha), conv(n)) for alpha in ALPHAS[:2])
        ),
        readout=nt_stax.Flatten,
        samples=0,
    ),
    "Frozen": Case(
        lambda n: nt_stax.serial(
            nt_stax.Dense(n, b_std=0.2), nt_stax.Erf(), stax.Frozen(nt_stax.Dense(n, b_std=0.4))
        ),
        VECTOR,
    ),
    "Frozen_residual": Case(
        lambda n: nt_stax.serial(
            nt_stax.Dense(n), stax.Frozen(stax.ResidualStack(dense_branch(n), ALPHAS[:3]))
        ),
        VECTOR,
    ),
    "Frozen_attention": Case(
        lambda n: nt_stax.serial(nt_stax.Dense(n), stax.Frozen(attention(n))),
        SEQUENCE,
        readout=GAP,
        crop=0,
        samples=16,
    ),
    "FullyConnectedResNet": Case(
        lambda n: stax.FullyConnectedResNet(3, n, n, schedules.Constant(ALPHA)), VECTOR
    ),
    "ConvResNet": Case(
        lambda n: stax.ConvResNet(1, n, n, ALPHAS[:1], normalize_blocks=True, W_std=1.0),
        (2, 3, 3),
        samples=16,
    ),
    "ConvResNet_stages": Case(
        lambda n: stax.ConvResNet(
            (1, 1),
            n // 2,
            n,
            ALPHAS[:2],
            pooling="gap",
            trained="all",
            block="one_layer",
            activation=nt_stax.Erf(),
            W_std=1.0,
        ),
        IMAGE,
        lambda n: nt_stax.serial(
            conv(n // 2),
            residual(conv_branch(n // 2, ALPHAS[0])),
            residual(
                conv_branch(n, ALPHAS[1], strides=(2, 2)), conv(n, 1.0, (1, 1), strides=(2, 2))
            ),
            nt_stax.GlobalAvgPool(),
            nt_stax.Dense(n),
        ),
        samples=24,
    ),
}
