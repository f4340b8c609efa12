"""One network, two frameworks: the parameters of `stax` networks in Flax modules, and back."""

from typing import Any

import jax
import optax
from flax import nnx

from nt_residual import stax
from nt_residual.finite_width.models import ConvResNet, ResNet


def to_stax(model: ResNet | ConvResNet) -> Any:
    """The parameters that make the same network of `stax` compute the same outputs.

    Args:
      model: a `ResNet` or `ConvResNet`, not mirrored, of any parameterisation.

    Returns:
      Parameters for the `apply_fn` of `stax.FullyConnectedResNet` or `stax.ConvResNet` with the
      same arguments.

    Raises:
      TypeError: if `model` is something else.
      ValueError: if it is mirrored, of which `stax` has none.

    Example:
      >>> import jax.numpy as jnp
      >>> model = ResNet(3, 16, in_dim=2, rngs=nnx.Rngs(0))
      >>> _, apply_fn, _ = stax.FullyConnectedResNet(3, 16)
      >>> x = jnp.ones((1, 2))
      >>> bool(jnp.allclose(apply_fn(to_stax(model), x), model(x), rtol=1e-5))
      True
    """
    leaves = []
    for name, scale in _scales(model).items():
        leaves.append(getattr(model, name)[...] / scale)
    return jax.tree.unflatten(jax.tree.structure(_shapes(model)), leaves)


def from_stax(model: ResNet | ConvResNet, params: Any) -> Any:
    """The same network with the parameters of one of `stax`.

    Args:
      model: a `ResNet` or `ConvResNet`, not mirrored. It stays as it is.
      params: those of `stax.FullyConnectedResNet` or `stax.ConvResNet` with the same arguments.

    Returns:
      A copy of `model` with other weights.

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
    scales, expected = _scales(model), _shapes(model)
    shapes, found = ([leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (expected, params))
    if shapes != found or jax.tree.structure(expected) != jax.tree.structure(params):
        raise ValueError(
            f"params must be those of the same network of stax, with arrays of shapes {shapes}, "
            f"got {found}. Pass the same arguments to both."
        )
    model = nnx.clone(model)
    for (name, scale), leaf in zip(scales.items(), jax.tree.leaves(params), strict=True):
        variable = getattr(model, name)
        variable[...] = (scale * leaf).astype(variable[...].dtype)
    return model


def ntk_learning_rates(model: ResNet | ConvResNet) -> optax.GradientTransformation:
    """Makes a network in standard parameterisation train like one in that of the NTK.

    With weights W = (σ/√m) ω of fan-in m, ω those of the NTK parameterisation, the NTK of the
    standard one is the sum over layers of (m/σ²) Θ_layer, which grows with the width. Here each
    gradient is multiplied by σ²/m; then steps of gradient descent with the same learning rate
    move both alike.

    Args:
      model: a `ResNet` or `ConvResNet` with `parameterization='standard'`. With 'ntk' nothing
        is changed.

    Returns:
      A transformation for `optax.chain`, before the optimizer.

    Raises:
      TypeError: if `model` is something else.

    Example:
      >>> model = ResNet(3, 16, parameterization="standard", in_dim=2, rngs=nnx.Rngs(0))
      >>> optimizer = optax.chain(ntk_learning_rates(model), optax.sgd(0.1))
    """
    scales = _scales(model, mirrored_too=True)

    def factor(path) -> float:
        name = next(name for key in path if (name := _key(key)) in scales)
        return scales[name] ** 2

    def update(updates, params=None):
        del params
        return jax.tree.map_with_path(lambda path, u: factor(path) * u, updates)

    return optax.stateless(update)


def _key(key) -> Any:
    return getattr(key, "key", getattr(key, "name", None))


def _scales(model, *, mirrored_too: bool = False) -> dict[str, float]:
    """By name of the weights, what those of the NTK parameterisation are multiplied by."""
    if not isinstance(model, (ResNet, ConvResNet)):
        raise TypeError(f"model must be a ResNet or ConvResNet, got {type(model).__name__}.")
    if model.mirrored and not mirrored_too:
        raise ValueError("model must not be mirrored: stax has no such network.")
    standard = model.plan.parameterization == "standard"
    return {name: layer.scale if standard else 1.0 for name, layer, *_ in model.plan.weights()}


def _shapes(model) -> Any:
    """The parameters of the same network of `stax`, as shapes."""
    plan = model.plan
    options = {"normalize_blocks": True, "block": plan.block, "trained": plan.trained}
    out_dim = plan.last.shape[-1]
    if isinstance(model, ResNet):
        depth, width = plan.stages[0].blocks, plan.first.shape[-1]
        init_fn, _, _ = stax.FullyConnectedResNet(depth, width, out_dim, **options)
        shape = (-1, model.in_dim)
    else:
        depth = tuple(stage.blocks + (stage.shortcut is not None) for stage in plan.stages)
        options |= {"pooling": plan.pooling, "filter_shape": plan.first.shape[:2]}
        options |= {"padding": plan.padding}
        init_fn, _, _ = stax.ConvResNet(depth, plan.first.shape[-1], out_dim, **options)
        shape = (1, *model.image_shape, model.in_channels)
    return jax.eval_shape(lambda key: init_fn(key, shape)[1], jax.random.key(0))
