"""A residual connection with α for any network in JAX."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from nt_residual import _checks, schedules


def scaled_residual(
    x: ArrayLike, branch: Callable[[jax.Array], Any], alpha: Any, *, normalize_blocks: bool = False
) -> jax.Array:
    r"""Return x + α·branch(x), a residual connection with a scaled branch.

    Call it in place of `x + branch(x)` in any network in JAX, with `schedule(depth)[block]` for α.
    Put BatchNorm or LayerNorm inside the branch: after the sum, it would shrink the shortcut from
    block to block, whatever α is.

    Args:
      x: the input of the block, any shape, floats.
      branch: a function of `x`, or a layer, that keeps its shape.
      alpha: α, a finite number ≥ 0. Its value is checked unless JAX traces it. Pass an
        `nnx.Param` to learn it; then it may become negative.
      normalize_blocks: whether the sum is divided by √(1 + α²), which keeps the variance of x if
        that of the branch is the same.

    Returns:
      An array with the shape and the dtype of `x`.

    Raises:
      TypeError: if `x` holds no floats, `branch` is no function, or `alpha` is no real scalar.
      ValueError: if `alpha` is negative or not finite, or the branch changes the shape.

    Example:
      >>> from flax import linen
      >>> class ResNet(linen.Module):
      ...     width: int
      ...     depth: int
      ...
      ...     @linen.compact
      ...     def __call__(self, x):
      ...         for alpha in schedules.PowerLaw(0.5)(self.depth):
      ...             branch = [linen.Dense(self.width), linen.relu, linen.Dense(self.width)]
      ...             x = scaled_residual(x, linen.Sequential(branch), alpha)
      ...         return x
      >>> ResNet(4, 3).init_with_output(jax.random.key(0), jnp.ones((2, 4)))[0].shape
      (2, 4)
    """
    x = jnp.asarray(_checks.float_array(x, "x", "(n, …)"))
    normalize_blocks = _checks.boolean(normalize_blocks, "normalize_blocks")
    if not callable(branch):
        raise TypeError(
            f"branch must be a function of x, got {type(branch).__name__}. Pass the layer itself."
        )
    alpha = _scalar(alpha)
    out = branch(x)
    if jnp.shape(out) != x.shape:
        raise ValueError(
            f"branch must keep the shape of x, {x.shape}, got {jnp.shape(out)}. For another shape "
            "put a projection on the shortcut: scaled_residual(projection(x), lambda _: branch(x), "
            "alpha)."
        )
    # In half precision 1 + α² and small changes of x would be lost before the last rounding.
    alpha = alpha.astype(jnp.promote_types(x.dtype, jnp.float32))
    out = x + alpha * out
    return (out / jnp.sqrt(1 + alpha**2) if normalize_blocks else out).astype(x.dtype)


def _scalar(alpha: Any) -> jax.Array:
    value = alpha[...] if isinstance(alpha, nnx.Variable) else alpha
    value = value if isinstance(value, jax.Array) else np.asarray(value)
    if value.shape != () or not (
        jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    ):
        raise TypeError(
            f"alpha must be a real number, got {alpha!r}. Each block has its own: pass "
            "schedule(depth)[block]."
        )
    known = not isinstance(alpha, nnx.Variable) and not schedules.is_traced(value)
    if known and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"alpha must be finite and ≥ 0, got {value}. Pass |α|.")
    return jnp.asarray(value)
