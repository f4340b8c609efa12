"""Residual networks of finite width, as Flax modules."""

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import ArrayLike

from nt_residual import _checks, schedules
from nt_residual.conv.inputs import check_sizes

Block = Literal["two_layer", "one_layer", "preactivation"]
Parameterization = Literal["ntk", "standard"]

# Random numbers of the loop that makes the initial weights.
_DRAWN_AT_ONCE = 2**16


class Frozen(nnx.Variable):
    """What belongs to a network but is not trained: frozen layers, and α."""


@dataclasses.dataclass(frozen=True)
class _Linear:
    """A dense layer or a convolution.

    Attributes:
      shape: of its weights: (inputs, outputs) or (height, width, inputs, outputs).
      W_std: the standard deviation of the weights, times √fan-in.
      stride: of a convolution.
    """

    shape: tuple[int, ...]
    W_std: float = 1.0
    stride: int = 1

    @property
    def scale(self) -> float:
        return self.W_std / math.sqrt(math.prod(self.shape[:-1]))

    def __call__(self, weights: jax.Array, x: jax.Array, padding: str) -> jax.Array:
        if len(self.shape) == 2:
            return x @ weights
        if padding == "CIRCULAR":
            # As wide as the zeros of 'SAME', of which a stride leaves fewer before the image.
            pads = lax.padtype_to_pads(
                x.shape[1:-1], self.shape[:-2], [self.stride] * (x.ndim - 2), "SAME"
            )
            x = jnp.pad(x, [(0, 0), *pads, (0, 0)], mode="wrap")
        return lax.conv_general_dilated(
            x,
            weights,
            [self.stride] * (x.ndim - 2),
            "SAME" if padding == "SAME" else "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


@dataclasses.dataclass(frozen=True)
class _Stage:
    """Blocks of one width.

    Attributes:
      blocks: the number of those that keep the shape of their input, in one loop.
      layers: of the branch of each.
      shortcut: that of a first block with a stride, if there is one.
      strided: the layers of the branch of that block.
    """

    blocks: int
    layers: tuple[_Linear, ...]
    shortcut: _Linear | None = None
    strided: tuple[_Linear, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Plan:
    """All of a network but its numbers."""

    first: _Linear
    stages: tuple[_Stage, ...]
    last: _Linear
    pooling: str | None
    padding: str
    trained: str
    normalize_blocks: bool
    block: str
    activation: Callable[[jax.Array], jax.Array]
    parameterization: str
    scan: bool
    remat: bool

    def weights(self) -> list[tuple[str, _Linear, int | None, bool]]:
        """Name, layer, number of blocks (`None` for a layer of its own) and whether trained.

        They come in the order in which `stax` has them.
        """
        ends = self.trained == "all"
        found: list[tuple[str, _Linear, int | None, bool]] = [("first", self.first, None, ends)]
        for i, stage in enumerate(self.stages):
            if stage.shortcut is not None:
                found.append((f"stage{i}_shortcut", stage.shortcut, None, ends))
                for j, layer in enumerate(stage.strided):
                    found.append((f"stage{i}_strided{j}", layer, None, True))
            if stage.blocks:
                for j, layer in enumerate(stage.layers):
                    found.append((f"stage{i}_layer{j}", layer, stage.blocks, True))
        return [*found, ("last", self.last, None, ends)]


class _ResidualNetwork(nnx.Module):
    """What dense and convolutional networks have in common.

    Each array of weights is an attribute, of type `flax.nnx.Param` if it is trained and `Frozen` if
    not. Those of the blocks of a stage are stacked along the first axis; a mirrored network
    has one more before all others, of its two copies.
    """

    def __init__(self, plan: _Plan, alphas: ArrayLike, mirrored: bool, dtype: Any, rngs: nnx.Rngs):
        self.plan = plan
        self.mirrored = mirrored = _checks.boolean(mirrored, "mirrored")
        self.alphas = Frozen(jnp.asarray(alphas, dtype))
        values = _initial_weights(plan, mirrored, jnp.dtype(dtype), rngs.params())
        for (name, _, _, trained), value in zip(plan.weights(), values, strict=True):
            setattr(self, name, (nnx.Param if trained else Frozen)(value))

    def __call__(self, x: ArrayLike) -> jax.Array:
        """The outputs of the network.

        Args:
          x: shape (n, features), or (n, height, width, channels) for images.

        Returns:
          Shape (n, out_dim).

        Raises:
          ValueError: if the shape of `x` is not that of the network.
        """
        x = self._checked(x)
        alphas = self.alphas[...]
        weights = {name: getattr(self, name)[...] for name, *_ in self.plan.weights()}
        if not self.mirrored:
            return _forward(self.plan, weights, alphas, x)
        plus, minus = jax.vmap(lambda w: _forward(self.plan, w, alphas, x))(weights)
        return (plus - minus) / math.sqrt(2)

    def _checked(self, x):
        raise NotImplementedError


class ResNet(_ResidualNetwork):
    r"""The fully-connected residual network of arXiv 2403.04545, of finite width.

    It is that of `stax.FullyConnectedResNet`, of which the arguments and the kernel are the same:

        x_0 = A x / √d,  x_ℓ = x_{ℓ-1} + α_ℓ V_ℓ σ(√2 W_ℓ x_{ℓ-1} / √m) / √m,  f(x) = vᵀ x_L / √m

    with all entries standard normal. Compile time does not depend on depth.

    Args:
      depth: the number of blocks L ≥ 1.
      width: the number m of units of hidden layers.
      out_dim: the number of outputs.
      schedule: α as a function of depth, or the alphas themselves, shape (depth,).
      trained: 'blocks' if only V_ℓ and W_ℓ are trained, then A and v are `Frozen` variables that
        an optimizer does not see; 'all' if these are too.
      normalize_blocks: whether the output of each block is divided by √(1 + α²).
      block: the branch: 'two_layer' for layer, activation, layer; 'one_layer' for activation,
        layer; 'preactivation' for activation, layer, activation, layer.
      activation: a function of arrays; `None` for ReLU.
      W_std: the factor √2 above, in the first layer of a two-layer branch and in all layers of
        the others.
      mirrored: whether the network is (g₁ − g₂)/√2, of two copies that begin with the same
        weights: its outputs are zero at first, its NTK is that of one of them.
      parameterization: 'ntk' as above; 'standard' if the weights themselves have the variances
        1/d, 2/m and 1/m: the same outputs at first, and another NTK, see
        `ntk_learning_rates`.
      scan: whether blocks are a compiled loop; else they are written one by one.
      remat: whether reverse-mode derivatives recompute blocks to save memory.
      in_dim: the number d of features.
      dtype: of the weights.
      rngs: where the weights come from.

    Raises:
      TypeError: if an argument is of the wrong type.
      ValueError: if a size is less than 1, an option is unknown, or the schedule does not give
        `depth` finite numbers α ≥ 0.

    Example:
      >>> from nt_residual import schedules
      >>> model = ResNet(100, 64, schedule=schedules.PowerLaw(0.5), in_dim=3, rngs=nnx.Rngs(0))
      >>> model(jnp.ones((5, 3))).shape
      (5, 1)
      >>> jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
      {'stage0_layer0': (100, 64, 64), 'stage0_layer1': (100, 64, 64)}
    """

    def __init__(
        self,
        depth: int,
        width: int,
        out_dim: int = 1,
        schedule: schedules.Schedule | ArrayLike = schedules.PowerLaw(0.5),
        trained: Literal["blocks", "all"] = "blocks",
        normalize_blocks: bool = False,
        block: Block = "two_layer",
        activation: Callable[[jax.Array], jax.Array] | None = None,
        W_std: float = 2**0.5,
        *,
        mirrored: bool = False,
        parameterization: Parameterization = "ntk",
        scan: bool = True,
        remat: bool = False,
        in_dim: int,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        depth, width = _check_size(depth, "depth"), _check_size(width, "width")
        self.in_dim = _check_size(in_dim, "in_dim")
        plan = _Plan(
            first=_Linear((self.in_dim, width)),
            stages=(_Stage(depth, _branch(block, W_std, lambda s: _Linear((width, width), s))),),
            last=_Linear((width, _check_size(out_dim, "out_dim"))),
            pooling=None,
            padding="SAME",
            **_options(trained, normalize_blocks, block, activation, parameterization, scan, remat),
        )
        super().__init__(plan, _alphas(schedule, depth), mirrored, dtype, rngs)

    def _checked(self, x):
        x = jnp.asarray(x)
        if x.ndim != 2 or x.shape[1] != self.in_dim:
            raise ValueError(
                f"x must have shape (n, {self.in_dim}), got shape {x.shape}. The number of "
                "features is that of in_dim=, with which the network was made."
            )
        return x


class ConvResNet(_ResidualNetwork):
    """A convolutional residual network, of finite width.

    It is that of `stax.ConvResNet`, of which the arguments and the kernel are the same: a
    convolution, blocks, pooling and a dense layer. Each stage but the first begins with a block
    that halves the resolution and doubles the channels.

    Args:
      depth: the number of blocks, or a tuple of one for each stage.
      channels: the number of channels of the first stage.
      out_dim: the number of outputs.
      schedule: α as a function of the number of all blocks, or the alphas themselves.
      pooling: 'flatten' for a dense layer on all pixels, or 'gap' for global average pooling.
      trained: 'blocks' if only the branches are trained; 'all' if the first and the last layer and
        the shortcuts are too.
      normalize_blocks: whether the output of each block is divided by √(1 + α²).
      block: see `ResNet`.
      activation: see `ResNet`.
      W_std: see `ResNet`.
      filter_shape: of all convolutions but those of shortcuts.
      padding: 'SAME', with zeros, or 'CIRCULAR'.
      mirrored: see `ResNet`.
      parameterization: see `ResNet`.
      scan: see `ResNet`.
      remat: see `ResNet`.
      image_shape: (height, width).
      in_channels: the number of channels of the images.
      dtype: of the weights.
      rngs: where the weights come from.

    Raises:
      TypeError: if an argument is of the wrong type.
      ValueError: as `ResNet`, and if a stride does not divide `image_shape`.

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
        schedule: schedules.Schedule | ArrayLike = schedules.PowerLaw(0.5),
        pooling: Literal["flatten", "gap"] = "flatten",
        trained: Literal["blocks", "all"] = "blocks",
        normalize_blocks: bool = False,
        block: Block = "two_layer",
        activation: Callable[[jax.Array], jax.Array] | None = None,
        W_std: float = 2**0.5,
        filter_shape: tuple[int, int] = (3, 3),
        padding: Literal["SAME", "CIRCULAR"] = "SAME",
        *,
        mirrored: bool = False,
        parameterization: Parameterization = "ntk",
        scan: bool = True,
        remat: bool = False,
        image_shape: tuple[int, int],
        in_channels: int,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        given = depth if isinstance(depth, Sequence) else (depth,)
        depths = [_check_size(blocks, "depth") for blocks in given]
        if not depths:
            raise ValueError("depth must hold one number of blocks for each stage, got none.")
        channels = _check_size(channels, "channels")
        in_channels = _check_size(in_channels, "in_channels")
        height, width = check_sizes(image_shape, "image_shape")
        filter_shape = check_sizes(filter_shape, "filter_shape")
        _checks.choice(pooling, "pooling", ("flatten", "gap"))
        _checks.choice(padding, "padding", ("SAME", "CIRCULAR"))
        halvings = 2 ** (len(depths) - 1)
        if height % halvings or width % halvings:
            raise ValueError(
                f"image_shape must be divisible by {halvings}, since {len(depths) - 1} stages "
                f"halve the resolution, got {(height, width)}. Pad the images, or pass fewer "
                "stages."
            )

        def conv(inputs: int, outputs: int, W_std: float = 1.0, stride: int = 1) -> _Linear:
            return _Linear((*filter_shape, inputs, outputs), W_std, stride)

        stages = []
        for i, blocks in enumerate(depths):
            now = channels * 2**i
            layers = _branch(block, W_std, functools.partial(conv, now, now))
            if i == 0:
                stages.append(_Stage(blocks, layers))
                continue
            before = now // 2
            # The stride and the new channels come with the first convolution.
            strided = (conv(before, now, layers[0].W_std, stride=2), *layers[1:])
            shortcut = _Linear((1, 1, before, now), stride=2)
            stages.append(_Stage(blocks - 1, layers, shortcut, strided))
        now = channels * halvings
        pixels = height * width // halvings**2 if pooling == "flatten" else 1
        plan = _Plan(
            first=conv(in_channels, channels),
            stages=tuple(stages),
            last=_Linear((pixels * now, _check_size(out_dim, "out_dim"))),
            pooling=pooling,
            padding=padding,
            **_options(trained, normalize_blocks, block, activation, parameterization, scan, remat),
        )
        self.image_shape, self.in_channels = (height, width), in_channels
        super().__init__(plan, _alphas(schedule, sum(depths)), mirrored, dtype, rngs)

    def _checked(self, x):
        x = jnp.asarray(x)
        expected = (*self.image_shape, self.in_channels)
        if x.ndim != 4 or x.shape[1:] != expected:
            raise ValueError(
                f"x must have shape (n, {', '.join(map(str, expected))}), got shape {x.shape}. "
                "That is set by image_shape= and in_channels=, with which the network was made."
            )
        return x


# All arrays come from one loop of draws: each shape, drawn on its own, would be a program to
# compile, and take four times the memory of what is drawn.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _initial_weights(plan, mirrored, dtype, key):
    layers = [
        (layer, layer.shape if blocks is None else (blocks, *layer.shape))
        for _, layer, blocks, _ in plan.weights()
    ]
    ends = list(itertools.accumulate(math.prod(shape) for _, shape in layers))
    drawn = lax.map(
        lambda i: jax.random.normal(jax.random.fold_in(key, i), (_DRAWN_AT_ONCE,), dtype),
        jnp.arange(-(-ends[-1] // _DRAWN_AT_ONCE)),
    )
    drawn = jnp.split(drawn.reshape(-1)[: ends[-1]], ends[:-1])
    values = []
    for (layer, shape), some in zip(layers, drawn, strict=True):
        value = some.reshape(shape)
        if plan.parameterization == "standard":
            value = layer.scale * value
        values.append(jnp.stack([value, value]) if mirrored else value)
    return values


def _forward(plan, weights, alphas, x):
    def linear(layer, w, x):
        scale = 1.0 if plan.parameterization == "standard" else layer.scale
        return layer(scale * w, x, plan.padding)

    def branch(layers, ws, x):
        for i, (layer, w) in enumerate(zip(layers, ws, strict=True)):
            if i or plan.block != "two_layer":
                x = plan.activation(x)
            x = linear(layer, w, x)
        return x

    def block(x, shortcut, layers, ws, alpha):
        out = shortcut + alpha * branch(layers, ws, x)
        return out / jnp.sqrt(1 + alpha**2) if plan.normalize_blocks else out

    # A loop keeps one dtype, that of the weights.
    x = linear(plan.first, weights["first"], x.astype(weights["first"].dtype))
    for i, stage in enumerate(plan.stages):
        if stage.shortcut is not None:
            ws = [weights[f"stage{i}_strided{j}"] for j in range(len(stage.strided))]
            shortcut = linear(stage.shortcut, weights[f"stage{i}_shortcut"], x)
            x = block(x, shortcut, stage.strided, ws, alphas[0])
            alphas = alphas[1:]
        if not stage.blocks:
            continue
        stacked = [weights[f"stage{i}_layer{j}"] for j in range(len(stage.layers))]

        def step(x, block_weights, stage=stage):
            ws, alpha = block_weights
            return block(x, x, stage.layers, ws, alpha), None

        step = jax.checkpoint(step) if plan.remat else step
        inputs, alphas = (stacked, alphas[: stage.blocks]), alphas[stage.blocks :]
        if plan.scan:
            x, _ = lax.scan(step, x, inputs)
        else:
            for k in range(stage.blocks):
                x, _ = step(x, jax.tree.map(operator.itemgetter(k), inputs))
    if plan.pooling == "gap":
        x = jnp.mean(x, axis=(1, 2))
    elif plan.pooling == "flatten":
        x = x.reshape(len(x), -1)
    return linear(plan.last, weights["last"], x)


def _branch(block, W_std, make):
    _checks.choice(block, "block", ("two_layer", "one_layer", "preactivation"))
    W_std = _checks.number(W_std, "W_std", positive=True)
    stds = {"two_layer": (W_std, 1.0), "one_layer": (W_std,), "preactivation": (W_std, W_std)}
    return tuple(make(std) for std in stds[block])


def _options(trained, normalize_blocks, block, activation, parameterization, scan, remat):
    _checks.choice(trained, "trained", ("blocks", "all"))
    _checks.choice(parameterization, "parameterization", ("ntk", "standard"))
    if activation is not None and not callable(activation):
        raise TypeError(
            f"activation must be a function of arrays or None for ReLU, got {activation!r}."
        )
    return {
        "trained": trained,
        "normalize_blocks": _checks.boolean(normalize_blocks, "normalize_blocks"),
        "block": block,
        "activation": jax.nn.relu if activation is None else activation,
        "parameterization": parameterization,
        "scan": _checks.boolean(scan, "scan"),
        "remat": _checks.boolean(remat, "remat"),
    }


def _alphas(schedule, depth: int) -> ArrayLike:
    return schedules.alphas_of(schedule, depth, traced=True)


def _check_size(value: Any, name: str) -> int:
    return _checks.integer(value, name, 1, "Pass how many there are.")
