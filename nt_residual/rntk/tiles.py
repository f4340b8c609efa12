"""The kernel |x| |x'| r(θ) between all pairs of inputs, at about the cost of a matrix product.

On a CPU the matrix is computed tile by tile, so that intermediate results stay in cache.
Between a batch and itself only half of the tiles are computed.

A product of unit vectors has an error of a few ε in cos θ, which is ε/sin θ in θ. Where this
would show in the kernel, the angle is computed again from the difference of the two inputs.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from nt_residual.rntk.angles import angle, arccos
from nt_residual.rntk.pairs import Rows, acute_angle, cosines, replace, rows_of
from nt_residual.rntk.profile import Profile
from nt_residual.rntk.rows import row_norms

# The side of the largest tiles on a CPU.
CPU_TILE = 800


def evaluate(profile: Profile, x1: jax.Array, x2: jax.Array | None) -> jax.Array:
    """Return the result of `gram`, compiled, in tiles unless inputs are known to be sharded."""
    inputs = [x1] if x2 is None else [x1, x2]
    out = explicit_sharding(x1, x2)
    if out is not None:
        return in_automatic_axes(out, _untiled, (), profile, *inputs)
    known = [x for x in inputs if isinstance(x, jax.Array) and not isinstance(x, Tracer)]
    sharded = any(len(x.sharding.device_set) > 1 for x in known)
    return _compiled_gram(profile, x1, x2, None if sharded else CPU_TILE)


def explicit_sharding(x1: jax.Array, x2: jax.Array | None) -> NamedSharding | None:
    """Return the sharding of the matrix if an input is on a mesh with explicit axes, else `None`.

    Rows and columns of the matrix are sharded like the rows of the two inputs.
    """
    types = [jax.typeof(x).sharding for x in (x1, x1 if x2 is None else x2)]
    meshes = [kind.mesh for kind in types if AxisType.Explicit in kind.mesh.axis_types]
    if not meshes:
        return None
    rows, columns = ((*kind.spec, None)[0] for kind in types)
    return NamedSharding(meshes[0], PartitionSpec(rows, None if columns == rows else columns))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def in_automatic_axes(
    out: NamedSharding, function: Callable, options: Any, operands: Any, *inputs: jax.Array
) -> Any:
    """Return function(options, operands, x1, x2) sharded as `out`, computed on automatic axes."""

    def automatic(operands, *inputs):
        return function(options, operands, inputs[0], inputs[1] if len(inputs) > 1 else None)

    # Operands too may be on an explicit mesh, the one of the context.
    return jax.sharding.auto_axes(automatic, out_sharding=out)(operands, *inputs)


def _untiled(_: tuple, profile: Profile, x1: jax.Array, x2: jax.Array | None) -> jax.Array:
    return gram(profile, x1, x2, None)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def gram(
    profile: Profile, x1: jax.Array, x2: jax.Array | None, side: int | None = CPU_TILE
) -> jax.Array:
    """Return the matrix scale·(|x| |x'|)^degree r(θ), shape (n1, n2).

    Args:
      profile: scale and r.
      x1: shape (n1, d), float32 or float64. Nothing is checked: a zero row gives NaN.
      x2: shape (n2, d), as `x1`; `None` for `x1`, which gives an exactly symmetric matrix with
        an exact diagonal.
      side: the side of the largest tiles on a CPU; `None` for no tiles, as inputs sharded over
        devices require. Accelerators use no tiles, since they fuse the operations.
    """
    profile = jax.tree.map(lambda leaf: jnp.asarray(leaf, x1.dtype), profile)
    same, n1, n2 = x2 is None, len(x1), len(x1 if x2 is None else x2)
    rows1, rows2 = rows_of(x1, x2, profile.degree, profile.scale)

    def whole(profile: Profile, rows1: Rows, rows2: Rows) -> jax.Array:
        values = _tile(profile, rows1, rows2, (0, 0), (n1, n2), same)
        return _mirrored(values, 0) if same else values

    if side is None:
        return whole(profile, rows1, rows2)
    tiled = functools.partial(_fill, side=side, same=same)
    return jax.lax.platform_dependent(profile, rows1, rows2, cpu=tiled, default=whole)


@gram.defjvp
def _gram_jvp(side, primals, tangents):
    (profile, x1, x2), (_, *moved) = primals, tangents

    def differentiable(*inputs):
        return _from_angles(profile, inputs[0], inputs[1] if len(inputs) > 1 else None)

    inputs, moved = ([x1], moved[:1]) if x2 is None else ([x1, x2], moved)
    derivative = jax.jvp(differentiable, tuple(inputs), tuple(moved))[1]
    return gram(profile, x1, x2, side), derivative


_compiled_gram = jax.jit(gram, static_argnums=3)


def _from_angles(profile: Profile, x1: jax.Array, x2: jax.Array | None) -> jax.Array:
    """Return the same matrix as `gram`, from operations that JAX can differentiate."""
    values = profile(angle(x1, x2))
    if x2 is None:
        values = jnp.where(jnp.eye(len(x1), dtype=bool), 1, values)
    factors1 = row_norms(x1) ** profile.degree
    factors2 = factors1 if x2 is None else row_norms(x2) ** profile.degree
    return factors1 * (profile.scale * factors2).T * values


def _starts(n: int, largest: int) -> tuple[int, list[int]]:
    """Return the size of equal tiles that cover n rows, and where they start; the last may overlap.

    For example, seven rows in tiles of at most three give tiles of three that start at 0, 3 and 4.
    """
    count = -(-n // largest)
    size = -(-n // count)
    return size, [min(k * size, n - size) for k in range(count)]


def _fill(profile: Profile, rows1: Rows, rows2: Rows, side: int, same: bool) -> jax.Array:
    """Compute the matrix tile by tile; if it is symmetric, only tiles on and above the diagonal."""
    (height, row_starts), (width, column_starts) = (_starts(len(r.x), side) for r in (rows1, rows2))
    corners = [(i, j) for i in row_starts for j in column_starts if i <= j or not same]
    # The barrier hides the starts from LLVM. Where it knows them it unrolls some loops over masks,
    # such as those of 500 columns, which takes six seconds.
    starts = jax.lax.optimization_barrier(jnp.asarray(corners, jnp.int32))

    def step(k: jax.Array, out: jax.Array) -> jax.Array:
        row, column = starts[k]
        values = _tile(profile, rows1, rows2, (row, column), (height, width), same)
        if same:
            mirrored = functools.partial(_mirrored, start=row)
            values = jax.lax.cond(row == column, mirrored, lambda values: values, values)
            # A last tile that overlaps may have entries below the diagonal. They are wrong until
            # the last tile on the diagonal, which is computed later, overwrites them.
            out = jax.lax.dynamic_update_slice(out, values.T, (column, row))
        return jax.lax.dynamic_update_slice(out, values, (row, column))

    # Zeros that vary over devices as the inputs do, which `jax.shard_map` requires.
    zero = 0 * (rows1.factors[0] + rows2.factors[0])
    out = jnp.full((len(rows1.x), len(rows2.x)), zero)
    return jax.lax.fori_loop(0, len(starts), step, out)


def _tile(
    profile: Profile,
    rows1: Rows,
    rows2: Rows,
    start: tuple[int | jax.Array, int | jax.Array],
    size: tuple[int, int],
    same: bool,
) -> jax.Array:
    """Return the tile of the given start and size. If `same`, use what is above the diagonal."""
    part1, part2 = (
        Rows(*(jax.lax.dynamic_slice_in_dim(a, begin, length) for a in rows))
        for rows, begin, length in zip((rows1, rows2), start, size, strict=True)
    )
    cosine = cosines(part1, part2)
    factors = part1.factors[:, None] * part2.factors[None, :]
    near = (cosine > profile.near_zero) | (cosine < profile.near_pi)
    row, column = (jax.lax.broadcasted_iota(jnp.int32, cosine.shape, axis) for axis in (0, 1))
    row, column = start[0] + row, start[1] + column
    if same:
        # Entries below the diagonal are copied from above it.
        near &= row < column
    values = jnp.where(near, jnp.copysign(jnp.inf, cosine), factors * profile(arccos(cosine)))
    if same:
        values = jnp.where(row == column, factors, values)

    def exact(row: jax.Array, column: jax.Array, sign: jax.Array) -> jax.Array:
        row, column = start[0] + row, start[1] + column
        acute = acute_angle(rows1, rows2, row, column, sign)
        theta = jnp.where(sign < 0, math.pi - acute, acute)
        return rows1.factors[row] * rows2.factors[column] * profile(theta)

    return replace(values, exact)


def _mirrored(values: jax.Array, start: int | jax.Array) -> jax.Array:
    """Return the symmetric matrix with the same entries on and above the diagonal.

    `start`, the index of the first row and column, has no effect. It keeps the mask from being a
    constant, see `_fill`.
    """
    row, column = (jax.lax.broadcasted_iota(jnp.int32, values.shape, axis) for axis in (0, 1))
    return jnp.where(start + row <= start + column, values, values.T)
