"""The kernel of a residual network, block by block on the device and differentiable in α."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nt_residual import _checks, schedules
from nt_residual.rntk import recursion
from nt_residual.rntk.angles import angle
from nt_residual.rntk.rows import check_memory, check_pair, row_norms
from nt_residual.rntk.tiles import explicit_sharding, in_automatic_axes

# The number of arrays of the result's size that the recursion and its sums need.
_MATRICES = 12


def recursive_kernel(
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    schedule: schedules.Schedule,
    depth: int | None = None,
    kind: Literal["ntk", "nngp"] = "ntk",
    trained: Literal["blocks", "all"] = "blocks",
    normalize: bool = True,
) -> jax.Array:
    """Return the kernel of `ResidualKernel`, computed block by block on the device.

    You can differentiate it with respect to α and to the inputs. It is accurate in float32 at any
    depth. Its cost grows with depth: for known α, `ResidualKernel` is much faster.

    For the derivative with respect to one number, such as γ or c, use forward mode (`jax.jvp`,
    `jax.jacfwd`), which stores no blocks. For the α of all blocks use reverse mode (`jax.grad`),
    which stores about 130·L^(1/4) bytes per entry: 0.8 GB for 1000 blocks and 1024 inputs.

    Args:
      x1: shape (n1, d), floats.
      x2: shape (n2, d), or `None` for `x1`.
      schedule: an array with one α per block, shape (depth,), or a callable of the depth.
        Values traced by JAX are not checked. If they are all zero, the kernel is zero for
        `trained='blocks'`.
      depth: the number of blocks; may be left out if `schedule` is an array.
      kind: 'ntk' or 'nngp'.
      trained: 'blocks' or 'all', as in `ResidualKernel`.
      normalize: whether the kernel of an input with itself is |x|².

    Returns:
      Shape (n1, n2), in the dtype of `x1`; it is computed in at least float32.

    Raises:
      MemoryError: as `ResidualKernel.__call__`, for twelve matrices of the result's size.
      TypeError: if the inputs or α are not real numbers.
      ValueError: as `ResidualKernel.__call__` for inputs; if an α is negative or not finite; if
        an option is unknown.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> def entry(alpha):
      ...     return recursive_kernel(x, schedule=jnp.full(100, alpha))[0, 1]
      >>> round(float(jax.grad(entry)(0.1)), 2)
      -1.24

    Reference: arXiv 2403.04545.
    """
    recursion.check_options(kind, trained)
    normalize = _checks.boolean(normalize, "normalize")
    x1, x2, dtype = check_pair(x1, x2)
    check_memory(x1, x2, _MATRICES)
    alphas = schedules.alphas_of(schedule, depth, traced=True)
    alphas = jnp.asarray(alphas, x1.dtype)
    options, out = (kind, trained, normalize), explicit_sharding(x1, x2)
    if out is None:
        return _kernel(options, alphas, x1, x2).astype(dtype)
    inputs = (x1,) if x2 is None else (x1, x2)
    return in_automatic_axes(out, _kernel, options, alphas, *inputs).astype(dtype)


@functools.partial(jax.jit, static_argnums=0)
def _kernel(
    options: tuple[str, str, bool], alphas: jax.Array, x1: jax.Array, x2: jax.Array | None
) -> jax.Array:
    kind, trained, normalize = options
    sums = recursion.sums_of_blocks(*recursion.half_angle(angle(x1, x2)), alphas)
    total_share = recursion.branch_share(alphas).sum()
    profile = recursion.combine(sums, kind, trained, total_share)
    if not normalize:
        layers = 1 if kind == "nngp" else 2 * total_share + (2 if trained == "all" else 0)
        profile = profile * layers * jnp.exp(jnp.log1p(alphas**2).sum())
    norms1 = row_norms(x1)
    return norms1 * (norms1 if x2 is None else row_norms(x2)).T * profile
