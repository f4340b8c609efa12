"""The common part of fully-connected and convolutional residual networks."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import ArrayLike

from nt_residual import _checks

# Random numbers per iteration of the loop that draws the initial weights.
_DRAWN_AT_ONCE = 2**16


class Frozen(nnx.Variable):
    """A variable of a network that is not trained: the weights of a frozen layer, or α."""


@dataclasses.dataclass(frozen=True)
class Linear:
    """A dense layer or a convolution, whose weights are multiplied by W_std / √fan-in."""

    shape: tuple[int, ...]  # (inputs, outputs) or (height, width, inputs, outputs).
    W_std: float = 1.0
    stride: int = 1

    def __call__(self, weights: jax.Array, x: jax.Array, padding: str) -> jax.Array:
        """Return the outputs for a batch, with weights of unit variance."""
        # The inputs are scaled. Of weights JAX would keep scaled copies for the gradient, those of
        # all blocks. Scaled outputs XLA may round on one side alone of the difference in a mirrored
        # network, which would not begin at zero.
        x = self.W_std / math.sqrt(math.prod(self.shape[:-1])) * x
        if len(self.shape) == 2:
            return x @ weights
        strides = [self.stride] * (x.ndim - 2)
        if padding == "CIRCULAR":
            # The pads of 'SAME': with a stride these are smaller before the image than after it.
            pads = lax.padtype_to_pads(x.shape[1:-1], self.shape[:-2], strides, "SAME")
            x = jnp.pad(x, [(0, 0), *pads, (0, 0)], mode="wrap")
        return lax.conv_general_dilated(
            x,
            weights,
            strides,
            "SAME" if padding == "SAME" else "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


@dataclasses.dataclass(frozen=True)
class Stage:
    """Blocks of one width that keep the shape of their input, after one with a stride if any."""

    blocks: int  # The number of blocks that keep the shape.
    layers: tuple[Linear, ...]  # Of the branch of each of these.
    strided: tuple[Linear, ...] = ()  # Of the branch of the block with a stride.
    shortcut: Linear | None = None  # Of that block.


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything about a network but its numbers."""

    first: Linear
    stages: tuple[Stage, ...]
    last: Linear
    trained: str
    normalize_blocks: bool
    block: str
    activation: Callable[[jax.Array], jax.Array] | None
    remat: bool
    pooling: str | None = None
    padding: str = "SAME"

    def __post_init__(self):
        _checks.choice(self.trained, "trained", ("blocks", "all"))
        _checks.boolean(self.normalize_blocks, "normalize_blocks")
        _checks.boolean(self.remat, "remat")
        if self.activation is not None and not callable(self.activation):
            raise TypeError(f"activation must be a function or None, got {self.activation!r}.")

    def weights(self) -> list[tuple[str, Linear, int | None, bool]]:
        """Return name, layer, number of stacked blocks or `None`, and whether it is trained.

        The order is that of the parameters of `stax`.
        """
        ends = self.trained == "all"
        found: list[tuple[str, Linear, int | None, bool]] = [("first", self.first, None, ends)]
        for i, stage in enumerate(self.stages):
            if stage.shortcut is not None:
                found.append((f"stage{i}_shortcut", stage.shortcut, None, ends))
                for j, layer in enumerate(stage.strided):
                    found.append((f"stage{i}_strided{j}", layer, None, True))
            if stage.blocks:
                for j, layer in enumerate(stage.layers):
                    found.append((f"stage{i}_layer{j}", layer, stage.blocks, True))
        return [*found, ("last", self.last, None, ends)]

    def outputs(self, weights: dict[str, jax.Array], alphas: jax.Array, x: jax.Array) -> jax.Array:
        """Return the outputs for a batch."""
        # The loop over blocks needs one dtype, that of the weights.
        x = self.first(weights["first"], x.astype(weights["first"].dtype), self.padding)
        block = 0
        for i, stage in enumerate(self.stages):
            if stage.shortcut is not None:
                shortcut = stage.shortcut(weights[f"stage{i}_shortcut"], x, self.padding)
                ws = [weights[f"stage{i}_strided{j}"] for j in range(len(stage.strided))]
                x = self._block(stage.strided, ws, alphas[block], x, shortcut)
                block += 1
            if stage.blocks:
                ws = [weights[f"stage{i}_layer{j}"] for j in range(len(stage.layers))]
                x = self._blocks(stage, ws, alphas[block : block + stage.blocks], x)
                block += stage.blocks
        if self.pooling == "gap":
            x = jnp.mean(x, axis=(1, 2))
        elif self.pooling == "flatten":
            x = x.reshape(len(x), -1)
        return self.last(weights["last"], x, self.padding)

    def _blocks(
        self, stage: Stage, weights: list[jax.Array], alphas: jax.Array, x: jax.Array
    ) -> jax.Array:
        """The blocks that keep the shape of `x`; each array of weights is stacked over blocks."""

        def step(x, block):
            ws, alpha = block
            return self._block(stage.layers, ws, alpha, x, x), None

        return lax.scan(jax.checkpoint(step) if self.remat else step, x, (weights, alphas))[0]

    def _block(
        self,
        layers: tuple[Linear, ...],
        weights: list[jax.Array],
        alpha: jax.Array,
        x: jax.Array,
        shortcut: jax.Array,
    ) -> jax.Array:
        """Shortcut + α·branch(x), divided by √(1 + α²) with `normalize_blocks`."""
        activation = self.activation or jax.nn.relu
        branch = x
        for i, (layer, w) in enumerate(zip(layers, weights, strict=True)):
            if i or self.block != "two_layer":
                branch = activation(branch)
            branch = layer(w, branch, self.padding)
        out = shortcut + alpha * branch
        return out / jnp.sqrt(1 + alpha**2) if self.normalize_blocks else out


class ResidualNetwork(nnx.Module):
    """A residual network of a plan.

    Each array of weights is an attribute, a `flax.nnx.Param` if it is trained and else `Frozen`.
    Those of the blocks of a stage are stacked along the first axis, or in a mirrored network along
    the second, after that of its two copies.
    """

    def __init__(
        self,
        plan: Plan,
        input_shape: tuple[int, ...],
        alphas: ArrayLike,
        mirrored: bool,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.plan, self.input_shape = plan, input_shape
        self.mirrored = mirrored = _checks.boolean(mirrored, "mirrored")
        self.alphas = Frozen(jnp.asarray(alphas, dtype))
        values = _initial_weights(plan, mirrored, jnp.dtype(dtype), rngs.params())
        for (name, _, _, trained), value in zip(plan.weights(), values, strict=True):
            setattr(self, name, (nnx.Param if trained else Frozen)(value))

    def __call__(self, x: ArrayLike) -> jax.Array:
        """Return the outputs of the network, shape (n, out_dim).

        Args:
          x: shape (n, features), or (n, height, width, channels) for images.

        Raises:
          ValueError: if `x` has another shape.
        """
        x = jnp.asarray(x)
        if x.ndim < 2 or x.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, self.input_shape))
            raise ValueError(
                f"x must have shape (n, {expected}), got shape {x.shape}. in_dim, or image_shape "
                "and in_channels, of the network set it."
            )
        alphas = self.alphas[...]
        weights = {name: getattr(self, name)[...] for name, *_ in self.plan.weights()}
        if not self.mirrored:
            return self.plan.outputs(weights, alphas, x)
        plus, minus = jax.vmap(lambda w: self.plan.outputs(w, alphas, x))(weights)
        return (plus - minus) / math.sqrt(2)


# One loop draws all arrays: to draw each would compile a program for each shape, and take four
# times the memory.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _initial_weights(plan, mirrored, dtype, key):
    shapes = [
        layer.shape if blocks is None else (blocks, *layer.shape)
        for _, layer, blocks, _ in plan.weights()
    ]
    ends = list(itertools.accumulate(map(math.prod, shapes)))
    drawn = lax.map(
        lambda i: jax.random.normal(jax.random.fold_in(key, i), (_DRAWN_AT_ONCE,), dtype),
        jnp.arange(-(-ends[-1] // _DRAWN_AT_ONCE)),
    )
    parts = jnp.split(drawn.reshape(-1)[: ends[-1]], ends[:-1])
    values = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return [jnp.stack([value, value]) for value in values] if mirrored else values


def branch_layers(block: str, W_std: Any, make: Callable[[float], Linear]) -> tuple[Linear, ...]:
    """Return the layers of a branch, each made by `make` from its standard deviation."""
    _checks.choice(block, "block", ("two_layer", "one_layer", "preactivation"))
    W_std = _checks.number(W_std, "W_std", positive=True)
    stds = {"two_layer": (W_std, 1.0), "one_layer": (W_std,), "preactivation": (W_std, W_std)}
    return tuple(make(std) for std in stds[block])
