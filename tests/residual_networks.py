"""Networks made of each layer of `nt_residual.stax`, which one suite of laws is checked on."""

import dataclasses
from collections.abc import Callable

from neural_tangents import stax as nt_stax

from nt_residual import schedules, stax

ALPHA = 0.6
ALPHAS = (0.3, 1.0, 0.0, 0.6)
VECTOR, SEQUENCE, IMAGE = (5,), (6, 5), (4, 3, 3)
NCHW = {"dimension_numbers": ("NCHW", "OIHW", "NCHW")}
GAP = nt_stax.GlobalAvgPool


def conv(width, W_std=1.0, filter_shape=(3, 3), strides=(1, 1), **kwargs):
    return nt_stax.Conv(width, filter_shape, strides, "SAME", W_std, **kwargs)


def projection(width):
    return conv(width, filter_shape=(1, 1), strides=(2, 2))


def dense_branch(width, alpha=1.0):
    return nt_stax.serial(
        nt_stax.Dense(width, W_std=1.5, b_std=0.3), nt_stax.Erf(), nt_stax.Dense(width, alpha)
    )


def conv_branch(width, alpha=1.0, strides=(1, 1), **kwargs):
    return nt_stax.serial(nt_stax.Erf(), conv(width, alpha, strides=strides, **kwargs))


def attention(width, alpha=1.0):
    keywords = {"n_chan_key": width, "n_chan_val": width, "n_heads": 4, "b_std": None}
    return nt_stax.GlobalSelfAttention(width, linear_scaling=True, W_out_std=alpha, **keywords)


def residual(branch, shortcut=None):
    """A block as neural-tangents can write it: α is part of the last layer of the branch."""
    return nt_stax.serial(
        nt_stax.FanOut(2),
        nt_stax.parallel(shortcut or nt_stax.Identity(), branch),
        nt_stax.FanInSum(),
    )


def normalized(width, alpha):
    """A dense block divided by √(1+α²), as neural-tangents can write it."""
    norm = (1 + alpha**2) ** 0.5
    return residual(dense_branch(width, alpha / norm), nt_stax.DotGeneral(rhs=1 / norm))


@dataclasses.dataclass(frozen=True)
class Case:
    """A network of any width, and what is known of it.

    Attributes:
      layer: from a width to what follows the first layer, with as many channels.
      unrolled: the same as neural-tangents can write it, if it can.
      first: from the width to the first layer; `None` if there is none.
      shape: of one input; `None` stands for the width.
      readout: what turns its outputs into vectors.
      crop: the axis of its inputs that may be masked, if its kernel is then that of the
        cropped input.
      nt_relu: whether `unrolled` has neural-tangents' ReLU, which knows the angle between
        equal inputs (or pixels) to the square root of machine epsilon.
      samples: how many wide random networks its kernel is compared with. None where others
        are of the same kind and neural-tangents has the kernel, since a wide convolution
        takes seconds.
    """

    layer: Callable
    unrolled: Callable | None = None
    first: Callable | None = nt_stax.Dense
    shape: tuple = VECTOR
    readout: Callable = nt_stax.Identity
    crop: int | None = None
    nt_relu: bool = False
    samples: int = 64

    def input_shape(self, width):
        return tuple(width if size is None else size for size in self.shape)

    def features(self, width, layer=None):
        first = [] if self.first is None else [self.first(width)]
        return nt_stax.serial(*first, (layer or self.layer)(width), self.readout())

    def outputs(self, width, layer=None):
        return nt_stax.serial(self.features(width, layer), nt_stax.Dense(1))


def of_images(layer, unrolled=None, *, first=conv, shape=IMAGE, readout=GAP, samples=16, **options):
    """A case whose inputs are images."""
    return Case(layer, unrolled, first, shape, readout, samples=samples, **options)


CASES = {
    "Scale": Case(
        lambda n: nt_stax.serial(nt_stax.Dense(n), stax.Scale(ALPHA), nt_stax.Erf()),
        lambda n: nt_stax.serial(nt_stax.Dense(n, ALPHA), nt_stax.Erf()),
        first=None,
    ),
    "Relu": Case(
        lambda n: stax.Relu(),
        lambda n: nt_stax.Relu(),
        first=lambda n: nt_stax.Dense(n, b_std=0.2),
        nt_relu=True,
    ),
    "ABRelu": of_images(
        lambda n: nt_stax.serial(stax.ABRelu(-0.3, 0.8), conv(n)),
        lambda n: nt_stax.serial(nt_stax.ABRelu(-0.3, 0.8), conv(n)),
        crop=0,
        nt_relu=True,
    ),
    "Residual": Case(
        lambda n: stax.Residual(dense_branch(n), ALPHA),
        lambda n: residual(dense_branch(n, ALPHA)),
    ),
    "Residual_normalized": Case(
        lambda n: stax.Residual(dense_branch(n), ALPHA, normalize_blocks=True),
        lambda n: normalized(n, ALPHA),
    ),
    "Residual_of_the_input": Case(
        lambda n: stax.Residual(dense_branch(n), ALPHA), first=None, shape=(None,)
    ),
    "Residual_activation_as_shortcut": Case(
        lambda n: stax.Residual(dense_branch(n), ALPHA, shortcut=stax.Relu())
    ),
    "Residual_strided": of_images(
        lambda n: stax.Residual(conv_branch(n, strides=(2, 2)), ALPHA, projection(n)),
        lambda n: residual(conv_branch(n, ALPHA, strides=(2, 2)), projection(n)),
    ),
    "Residual_pooling_as_shortcut": of_images(
        lambda n: stax.Residual(
            conv_branch(n, strides=(2, 2)), ALPHA, nt_stax.AvgPool((2, 2), (2, 2), "SAME")
        ),
        readout=nt_stax.Flatten,
    ),
    "Residual_NCHW": of_images(
        lambda n: stax.Residual(conv_branch(n, **NCHW), ALPHA),
        lambda n: residual(conv_branch(n, ALPHA, **NCHW)),
        first=lambda n: conv(n, **NCHW),
        shape=(3, 4, 3),
        readout=lambda: nt_stax.GlobalAvgPool(channel_axis=1),
        crop=1,
        samples=0,
    ),
    "Residual_attention": Case(
        lambda n: stax.Residual(attention(n), ALPHA),
        lambda n: residual(attention(n, ALPHA)),
        shape=SEQUENCE,
        readout=GAP,
        crop=0,
        samples=16,
    ),
    "ResidualStack": Case(
        lambda n: stax.ResidualStack(dense_branch(n), ALPHAS),
        lambda n: nt_stax.serial(*(residual(dense_branch(n, alpha)) for alpha in ALPHAS)),
    ),
    "ResidualStack_of_the_input": Case(
        lambda n: stax.ResidualStack(dense_branch(n), ALPHAS[:2], remat=True),
        first=None,
        shape=(None,),
    ),
    "ResidualStack_normalized": Case(
        lambda n: stax.ResidualStack(dense_branch(n), ALPHAS, normalize_blocks=True),
        lambda n: nt_stax.serial(*(normalized(n, alpha) for alpha in ALPHAS)),
    ),
    "ResidualStack_one_convolution": of_images(
        lambda n: stax.ResidualStack(conv_branch(n), ALPHAS[:2]),
        lambda n: nt_stax.serial(*(residual(conv_branch(n, alpha)) for alpha in ALPHAS[:2])),
        crop=1,
    ),
    "ResidualStack_convolution_as_shortcut": of_images(
        lambda n: stax.ResidualStack(conv_branch(n), ALPHAS[:2], shortcut=conv(n), remat=True),
        lambda n: nt_stax.serial(*(residual(conv_branch(n, a), conv(n)) for a in ALPHAS[:2])),
        readout=nt_stax.Flatten,
        samples=0,
    ),
    "Frozen": Case(
        lambda n: nt_stax.serial(nt_stax.Erf(), stax.Frozen(nt_stax.Dense(n, b_std=0.4))),
        first=lambda n: nt_stax.Dense(n, b_std=0.2),
    ),
    "Frozen_residual": Case(lambda n: stax.Frozen(stax.ResidualStack(dense_branch(n), ALPHAS[:3]))),
    "Frozen_attention": Case(
        lambda n: stax.Frozen(attention(n)), shape=SEQUENCE, readout=GAP, crop=0, samples=16
    ),
    "FullyConnectedResNet": Case(
        lambda n: stax.FullyConnectedResNet(3, n, n, schedules.Constant(ALPHA)), first=None
    ),
    "ConvResNet": of_images(
        lambda n: stax.ConvResNet(1, n, n, ALPHAS[:1], normalize_blocks=True, W_std=1.0),
        first=None,
        shape=(2, 3, 3),
        readout=nt_stax.Identity,
    ),
    "ConvResNet_stages": of_images(
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
        lambda n: nt_stax.serial(
            conv(n // 2),
            residual(conv_branch(n // 2, ALPHAS[0])),
            residual(conv_branch(n, ALPHAS[1], strides=(2, 2)), projection(n)),
            nt_stax.GlobalAvgPool(),
            nt_stax.Dense(n),
        ),
        first=None,
        readout=nt_stax.Identity,
        samples=24,
    ),
}
