"""The convolutional residual network, as a Flax module."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from nt_residual import _checks, schedules
from nt_residual.finite_width.residual_network import (
    Linear,
    Plan,
    ResidualNetwork,
    Stage,
    branch_layers,
)


class ConvResNet(ResidualNetwork):
    """A convolutional residual network of finite width.

    It has the arguments and the kernel of `stax.ConvResNet`. Each stage after the first begins with
    a block that halves the resolution and doubles the channels.

    Args:
      depth: the number of blocks, or a tuple with one number for each stage.
      channels: the number of channels of the first stage.
      out_dim: the number of outputs.
      schedule: α: a callable of the number of all blocks, or an array with one α per block.
      pooling: 'flatten' for a dense layer on all pixels, or 'gap' for global average pooling.
      trained: 'blocks' to train the branches only; 'all' for all layers and shortcuts.
      normalize_blocks: as for `ResNet`, like all arguments that are not listed here.
      filter_shape: (height, width) of all convolutions but those of shortcuts.
      padding: 'SAME', with zeros, or 'CIRCULAR'.
      image_shape: (height, width).
      in_channels: the number of channels of the images.

    Raises:
      TypeError, ValueError: as `ResNet`, and if a stride does not divide `image_shape`.

    Example:
      >>> model = ConvResNet((2, 2), 16, image_shape=(8, 8), in_channels=1, rngs=nnx.Rngs(0))
      >>> model(jnp.ones((5, 8, 8, 1))).shape
      (5, 10)
    """

    def __init__(
        self,
        depth: int | Sequence[int],
        channels: int,
        out_dim: int = 10,
        schedule: schedules.Schedule = schedules.PowerLaw(0.5),
        pooling: Literal["flatten", "gap"] = "flatten",
        trained: Literal["blocks", "all"] = "blocks",
        normalize_blocks: bool = False,
        block: Literal["two_layer", "one_layer", "preactivation"] = "two_layer",
        activation: Callable[[jax.Array], jax.Array] | None = None,
        W_std: float = 2**0.5,
        filter_shape: tuple[int, int] = (3, 3),
        padding: Literal["SAME", "CIRCULAR"] = "SAME",
        *,
        mirrored: bool = False,
        remat: bool = False,
        image_shape: tuple[int, int],
        in_channels: int,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        given = depth if isinstance(depth, Sequence) else (depth,)
        depths = [_checks.integer(blocks, "depth", 1) for blocks in given]
        if not depths:
            raise ValueError("depth must hold one number of blocks for each stage, got none.")
        channels = _checks.integer(channels, "channels", 1)
        in_channels = _checks.integer(in_channels, "in_channels", 1)
        height, width = _checks.sizes(image_shape, "image_shape")
        filter_shape = _checks.sizes(filter_shape, "filter_shape")
        _checks.choice(pooling, "pooling", ("flatten", "gap"))
        _checks.choice(padding, "padding", ("SAME", "CIRCULAR"))
        factor = 2 ** (len(depths) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f"image_shape must be divisible by {factor}, since {len(depths) - 1} stages halve "
                f"the resolution, got {(height, width)}. Pad the images, or pass fewer stages."
            )
        pixels = height * width // factor**2 if pooling == "flatten" else 1
        plan = Plan(
            first=Linear((*filter_shape, in_channels, channels)),
            stages=_stages(depths, channels, block, W_std, filter_shape),
            last=Linear((pixels * factor * channels, _checks.integer(out_dim, "out_dim", 1))),
            trained=trained,
            normalize_blocks=normalize_blocks,
            block=block,
            activation=activation,
            remat=remat,
            pooling=pooling,
            padding=padding,
        )
        alphas = schedules.alphas_of(schedule, sum(depths), traced=True)
        super().__init__(plan, (height, width, in_channels), alphas, mirrored, dtype, rngs)


def _stages(
    depths: list[int], channels: int, block: str, W_std: float, filter_shape: tuple[int, int]
) -> tuple[Stage, ...]:
    """All stages; those after the first have twice the channels of the one before."""

    def conv(inputs: int, outputs: int, std: float, stride: int = 1) -> Linear:
        return Linear((*filter_shape, inputs, outputs), std, stride)

    stages = []
    for i, blocks in enumerate(depths):
        now = channels * 2**i
        layers = branch_layers(block, W_std, lambda std, now=now: conv(now, now, std))
        if i == 0:
            stages.append(Stage(blocks, layers))
        else:
            before = now // 2
            # The stride and the new channels come with the first convolution.
            strided = (conv(before, now, layers[0].W_std, stride=2), *layers[1:])
            shortcut = Linear((1, 1, before, now), stride=2)
            stages.append(Stage(blocks - 1, layers, strided, shortcut))
    return tuple(stages)
