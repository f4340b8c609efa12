"""Conversion of the parameters of Flax modules to those of `stax` networks, and back."""

from typing import Any

import jax
from flax import nnx

from nt_residual import stax
from nt_residual.finite_width.convolutional import ConvResNet
from nt_residual.finite_width.fully_connected import ResNet


def to_stax(model: ResNet | ConvResNet) -> Any:
    """Return the parameters with which the same network of `stax` has the same outputs.

    They are for the `apply_fn` of `stax.FullyConnectedResNet` or `stax.ConvResNet` with the same
    arguments.

    Raises:
      TypeError: if `model` is no `ResNet` or `ConvResNet`.
      ValueError: if it is mirrored: `stax` has no such network.

    Example:
      >>> import jax.numpy as jnp
      >>> model = ResNet(3, 16, in_dim=2, rngs=nnx.Rngs(0))
      >>> _, apply_fn, _ = stax.FullyConnectedResNet(3, 16)
      >>> x = jnp.ones((1, 2))
      >>> bool(jnp.allclose(apply_fn(to_stax(model), x), model(x), rtol=1e-5))
      True
    """
    leaves = [getattr(model, name)[...] for name in _names(model)]
    return jax.tree.unflatten(jax.tree.structure(_shapes(model)), leaves)


def from_stax(model: ResNet | ConvResNet, params: Any) -> Any:
    """Return the same network with the parameters of one of `stax`.

    Args:
      model: a `ResNet` or `ConvResNet`, not mirrored. It does not change: the result is a copy.
      params: those of `stax.FullyConnectedResNet` or `stax.ConvResNet` with the same arguments.

    Raises:
      TypeError: if `model` is something else.
      ValueError: if it is mirrored, or `params` are those of another network.

    Example:
      >>> init_fn, _, _ = stax.FullyConnectedResNet(3, 16)
      >>> _, params = init_fn(jax.random.key(1), (-1, 2))
      >>> model = from_stax(ResNet(3, 16, in_dim=2, rngs=nnx.Rngs(0)), params)
      >>> bool((model.first[...] == params[0][0]).all())
      True
    """
    names, expected = _names(model), _shapes(model)
    shapes, found = ([leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (expected, params))
    if shapes != found or jax.tree.structure(expected) != jax.tree.structure(params):
        raise ValueError(
            f"params must be those of the same network of stax, with arrays of shapes {shapes}, "
            f"got {found}. Pass the same arguments to both."
        )
    model = nnx.clone(model)
    for name, leaf in zip(names, jax.tree.leaves(params), strict=True):
        variable = getattr(model, name)
        variable[...] = leaf.astype(variable[...].dtype)
    return model


def _names(model: Any) -> list[str]:
    if not isinstance(model, ResNet | ConvResNet):
        raise TypeError(f"model must be a ResNet or ConvResNet, got {type(model).__name__}.")
    if model.mirrored:
        raise ValueError("model must not be mirrored: stax has no such network.")
    return [name for name, *_ in model.plan.weights()]


def _shapes(model: ResNet | ConvResNet) -> Any:
    """The parameters of the same network of `stax`, as shapes."""
    plan = model.plan
    options = {"normalize_blocks": True, "block": plan.block, "trained": plan.trained}
    out_dim = plan.last.shape[-1]
    if isinstance(model, ResNet):
        depth, width = plan.stages[0].blocks, plan.first.shape[-1]
        init_fn, _, _ = stax.FullyConnectedResNet(depth, width, out_dim, **options)
        shape = (-1, *model.input_shape)
    else:
        depth = tuple(stage.blocks + (stage.shortcut is not None) for stage in plan.stages)
        options |= {"pooling": plan.pooling, "filter_shape": plan.first.shape[:2]}
        options |= {"padding": plan.padding}
        init_fn, _, _ = stax.ConvResNet(depth, plan.first.shape[-1], out_dim, **options)
        shape = (1, *model.input_shape)
    return jax.eval_shape(lambda key: init_fn(key, shape)[1], jax.random.key(0))
