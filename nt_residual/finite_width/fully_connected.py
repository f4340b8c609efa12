"""The fully-connected residual network, as a Flax module."""

from collections.abc import Callable
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


class ResNet(ResidualNetwork):
    r"""The fully-connected residual network of arXiv 2403.04545, of finite width.

    It has the arguments and the kernel of `stax.FullyConnectedResNet`:

        x_0 = A x / √d,  x_ℓ = x_{ℓ-1} + α_ℓ V_ℓ σ(√2 W_ℓ x_{ℓ-1} / √m) / √m,  f(x) = vᵀ x_L / √m

    with all entries standard normal. Compile time does not depend on depth.

    Args:
      depth: the number of blocks L ≥ 1.
      width: the number m of units of hidden layers.
      out_dim: the number of outputs.
      schedule: α: a callable of the depth, or an array with one α per block, shape (depth,).
      trained: 'blocks' to train V_ℓ and W_ℓ only, with A and v `Frozen`; 'all' to train all layers.
      normalize_blocks: whether the output of each block is divided by √(1 + α²).
      block: the branch: 'two_layer' for layer, activation, layer; 'one_layer' for activation,
        layer; 'preactivation' for activation, layer, activation, layer.
      activation: a function of arrays; `None` for ReLU.
      W_std: the factor √2 above, in the first layer of a two-layer branch and in all layers of
        the others.
      mirrored: whether the network is (g₁ − g₂)/√2, with two copies of the same initial weights: it
        starts at zero, with the NTK of one copy.
      remat: whether reverse-mode derivatives recompute blocks to save memory.
      in_dim: the number d of features.
      dtype: of the weights.
      rngs: the source of the initial weights.

    Raises:
      TypeError: if an argument has the wrong type.
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
        schedule: schedules.Schedule = schedules.PowerLaw(0.5),
        trained: Literal["blocks", "all"] = "blocks",
        normalize_blocks: bool = False,
        block: Literal["two_layer", "one_layer", "preactivation"] = "two_layer",
        activation: Callable[[jax.Array], jax.Array] | None = None,
        W_std: float = 2**0.5,
        *,
        mirrored: bool = False,
        remat: bool = False,
        in_dim: int,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        depth = _checks.integer(depth, "depth", 1)
        width = _checks.integer(width, "width", 1)
        in_dim = _checks.integer(in_dim, "in_dim", 1)
        layers = branch_layers(block, W_std, lambda std: Linear((width, width), std))
        plan = Plan(
            first=Linear((in_dim, width)),
            stages=(Stage(depth, layers),),
            last=Linear((width, _checks.integer(out_dim, "out_dim", 1))),
            trained=trained,
            normalize_blocks=normalize_blocks,
            block=block,
            activation=activation,
            remat=remat,
        )
        alphas = schedules.alphas_of(schedule, depth, traced=True)
        super().__init__(plan, (in_dim,), alphas, mirrored, dtype, rngs)
