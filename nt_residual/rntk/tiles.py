"""The kernel |x| |x'| r(θ) between all pairs of inputs, for the price of their products.

On a CPU the matrix is made tile by tile, so that what lies between the matrix product and
the kernel stays in cache; between a batch and itself only half of the tiles are computed.

A product of unit vectors knows cos θ to a few ε, hence θ itself only to ε/sin θ. Where
that would show, the angle is computed once more from the difference of the two inputs.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from nt_residual.rntk.angles import angle, arccos
from nt_residual.rntk.profile import Profile, half_digits
from nt_residual.rntk.rows import row_norms


class Tiling(NamedTuple):
    """The largest tiles: rows and columns, and the side of those between a batch and itself."""

    rows: int
    columns: int
    side: int


# Features that one product sums over.
_SUMMED = 1024

CPU_TILING = Tiling(rows=400, columns=4096, side=800)


def evaluate(profile: Profile, x1: jax.Array, x2: jax.Array | None) -> jax.Array:
    """Return `gram`, compiled, in tiles unless the inputs are known to be sharded."""
    inputs = [x1] if x2 is None else [x1, x2]
    out = explicit_sharding(x1, x2)
    if out is not None:
        return in_automatic_axes(out, _untiled, (), profile, *inputs)
    known = [x for x in inputs if not isinstance(x, Tracer)]
    sharded = any(len(x.sharding.device_set) > 1 for x in known)
    return _compiled_gram(profile, x1, x2, None if sharded else CPU_TILING)


def explicit_sharding(x1: jax.Array, x2: jax.Array | None) -> NamedSharding | None:
    """Return how the matrix is sharded on a mesh with explicit axes: as rows of the inputs are.

    `None` if neither input is on such a mesh.
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

    # Operands too may have the type of an explicit mesh, that of the context.
    return jax.sharding.auto_axes(automatic, out_sharding=out)(operands, *inputs)


def _untiled(_: tuple, profile: Profile, x1: jax.Array, x2: jax.Array | None) -> jax.Array:
    return gram(profile, x1, x2, None)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def gram(
    profile: Profile, x1: jax.Array, x2: jax.Array | None, tiling: Tiling | None = CPU_TILING
) -> jax.Array:
    """Return the matrix scale·(|x| |x'|)^degree r(θ), shape (n1, n2).

    Args:
      profile: scale and r.
      x1: shape (n1, d), float32 or float64. Nothing is checked: a zero row gives NaN.
      x2: shape (n2, d), likewise; `None` for `x1`, which gives an exactly symmetric
        matrix, and its exact diagonal.
      tiling: of the matrix on a CPU, `None` for none. Accelerators do without, since they
        fuse what tiles would keep in cache, and inputs sharded over devices must.
    """
    profile = jax.tree.map(lambda leaf: jnp.asarray(leaf, x1.dtype), profile)
    same, n1, n2 = x2 is None, len(x1), len(x1 if x2 is None else x2)
    rows1 = _Rows.of(x1, profile.degree)
    rows2 = _Rows.of(x1 if x2 is None else x2, profile.degree, profile.scale)

    def whole(profile: Profile, rows1: _Rows, rows2: _Rows) -> jax.Array:
        values = _tile(profile, rows1, rows2, (0, 0), (n1, n2), same)
        return _symmetric(values) if same else values

    if tiling is None:
        return whole(profile, rows1, rows2)
    tiles = (tiling.side, tiling.side) if same else (tiling.rows, tiling.columns)

    def tiled(profile: Profile, rows1: _Rows, rows2: _Rows) -> jax.Array:
        height, row_starts = _starts(n1, tiles[0])
        width, column_starts = _starts(n2, tiles[1])
        corners = [(i, j) for i in row_starts for j in column_starts if i <= j or not same]
        out = _fill(profile, rows1, rows2, corners, (height, width), same)
        return _mirror(out, corners, height) if same else out

    return jax.lax.platform_dependent(profile, rows1, rows2, cpu=tiled, default=whole)


@gram.defjvp
def _gram_jvp(tiling, primals, tangents):
    (profile, x1, x2), (_, *moved) = primals, tangents

    def differentiable(*inputs):
        return _from_angles(profile, inputs[0], inputs[1] if len(inputs) > 1 else None)

    inputs, moved = ([x1], moved[:1]) if x2 is None else ([x1, x2], moved)
    derivative = jax.jvp(differentiable, tuple(inputs), tuple(moved))[1]
    return gram(profile, x1, x2, tiling), derivative


_compiled_gram = jax.jit(gram, static_argnums=3)


def _from_angles(profile: Profile, x1: jax.Array, x2: jax.Array | None) -> jax.Array:
    """The same matrix, from operations that can be differentiated."""
    values = profile(angle(x1, x2))
    if x2 is None:
        values = jnp.where(jnp.eye(len(x1), dtype=bool), 1, values)
    factors1 = row_norms(x1) ** profile.degree
    factors2 = factors1 if x2 is None else row_norms(x2) ** profile.degree
    return factors1 * (profile.scale * factors2).T * values


class _Rows(NamedTuple):
    """Inputs as the tiles need them."""

    x: jax.Array
    unit: jax.Array  # x/|x|
    norms: jax.Array  # |x|, shape (n,)
    factors: jax.Array  # What they contribute to the kernel, shape (n,): scale·|x|^degree

    @classmethod
    def of(cls, x: jax.Array, degree: float, scale: float | jax.Array = 1.0) -> "_Rows":
        norms = row_norms(x)
        return cls(x, x / norms, norms[:, 0], scale * norms[:, 0] ** degree)

    def take(self, rows: jax.Array) -> "_Rows":
        return _Rows(*(a[rows] for a in self))


def _starts(n: int, largest: int) -> tuple[int, list[int]]:
    """The size of equal tiles that cover n rows, and where they start; the last may overlap.

    Seven rows in tiles of at most three are tiles of three that start at 0, 3 and 4.
    """
    count = -(-n // largest)
    size = -(-n // count)
    return size, [min(k * size, n - size) for k in range(count)]


def _fill(
    profile: Profile,
    rows1: _Rows,
    rows2: _Rows,
    corners: Sequence[tuple[int, int]],
    size: tuple[int, int],
    same: bool,
) -> jax.Array:
    """The matrix with the tiles of the given size at `corners` filled in."""
    starts = jnp.asarray(corners, jnp.int32)

    def step(k: jax.Array, out: jax.Array) -> jax.Array:
        start = (starts[k, 0], starts[k, 1])
        values = _tile(profile, rows1, rows2, start, size, same)
        return jax.lax.dynamic_update_slice(out, values, start)

    # Zeros that vary over the devices as the inputs do, as `jax.shard_map` wants them.
    zero = 0 * (rows1.factors[0] + rows2.factors[0])
    out = jnp.full((len(rows1.x), len(rows2.x)), zero)
    return jax.lax.fori_loop(0, len(starts), step, out)


def _tile(
    profile: Profile,
    rows1: _Rows,
    rows2: _Rows,
    start: tuple[int | jax.Array, int | jax.Array],
    size: tuple[int, int],
    same: bool,
) -> jax.Array:
    """The tile of the given start and size."""
    (unit1, factors1), (unit2, factors2) = (
        [jax.lax.dynamic_slice_in_dim(a, begin, length) for a in (rows.unit, rows.factors)]
        for rows, begin, length in zip((rows1, rows2), start, size, strict=True)
    )
    cosine = _product(unit1, unit2)
    factors = factors1[:, None] * factors2[None, :]
    values = factors * profile(arccos(cosine))
    near = (cosine > profile.near_zero) | (cosine < profile.near_pi)
    if same:
        row, column = (jax.lax.broadcasted_iota(jnp.int32, cosine.shape, axis) for axis in (0, 1))
        itself = start[0] + row == start[1] + column
        values = jnp.where(itself, factors, values)
        near = near & ~itself

    def exact(row: jax.Array, column: jax.Array) -> jax.Array:
        # The inputs are taken only here, since few tiles need more than their unit vectors.
        a, b = rows1.take(start[0] + row), rows2.take(start[1] + column)
        return a.factors * b.factors * profile(_small_angle(a, b))

    refine = functools.partial(_replace, exact)
    return jax.lax.cond(near.any(), refine, lambda near, values: values, near, values)


def _product(unit1: jax.Array, unit2: jax.Array) -> jax.Array:
    """Cosines: sums over a thousand features each, since rounding adds up in longer ones."""
    if len(unit1) == 1:
        # XLA adds up the terms of a single row one by one, which is far less accurate.
        return _product(jnp.concatenate([unit1, unit1]), unit2)[:1]
    features = unit1.shape[1]
    edges = range(0, features, -(-features // -(-features // _SUMMED)))
    parts = [
        jnp.matmul(a, b.T, precision="highest")
        for a, b in ((u[:, i : i + edges.step] for u in (unit1, unit2)) for i in edges)
    ]
    return functools.reduce(jnp.add, parts)


def _replace(
    exact: Callable[[jax.Array, jax.Array], jax.Array], near: jax.Array, values: jax.Array
) -> jax.Array:
    """`values` with exact(row, column) wherever `near` is true.

    Each round of the loop replaces one entry in every row of the tile: the first that is still
    marked. With `near` = [[0, 1, 1], [0, 0, 1]] the first round replaces (0, 1) and (1, 2), the
    second (0, 2). So there are as many rounds as the fullest row has marks. A row with none left
    keeps its values.
    """
    rows = jnp.arange(len(near), dtype=jnp.int32)

    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        near, values = state
        columns = jax.lax.argmax(near, 1, jnp.int32)
        marked = near[rows, columns]
        new = jnp.where(marked, exact(rows, columns), values[rows, columns])
        return near.at[rows, columns].set(False), values.at[rows, columns].set(new)

    return jax.lax.while_loop(lambda state: state[0].any(), step, (near, values))[1]


def _small_angle(a: _Rows, b: _Rows) -> jax.Array:
    """The angle between row i of either batch, where it is close to 0 or to π.

    With u = x'/|x'|, and for any number c,

        sin θ = |d − (d·u) u| / |x|,   d = x − c x',

    since c x' has no component across u. Rounding errors of d are relative to d, which is short
    if c is near ±|x|/|x'|. They vanish if c and the two parts x' = h + (x' − h) have half of the
    digits each: then c h and c (x' − h) are exact, and so is d, by Sterbenz' lemma.

    In decimals of four digits: x = 1.003, x' = 1.234, c = 0.81 (of 0.8128), h = 1.2. The products
    0.972 and 0.02754 are exact, and d = 1.003 − 0.972 − 0.02754 = 0.00346 has lost nothing.
    """
    obtuse = jnp.sum(a.unit * b.unit, axis=1) < 0
    half = half_digits(a.x.dtype)
    (x1, norms1), (x2, norms2) = _near_one(a), _near_one(b)
    ratio = _rounded(jnp.where(obtuse, -1, 1) * norms1 / norms2, half)[:, None]
    high = _rounded(x2, half)
    difference = x1 - ratio * high - ratio * (x2 - high)
    along = jnp.sum(difference * b.unit, axis=1, keepdims=True)
    across = row_norms(difference - along * b.unit)[:, 0]
    acute = jnp.arcsin(jnp.minimum(across / norms1, 1))
    return jnp.where(obtuse, math.pi - acute, acute)


def _near_one(rows: _Rows) -> tuple[jax.Array, jax.Array]:
    """Rows multiplied by the power of 2 that takes their norms to [1/2, 1), and these norms."""
    mantissa, exponent = jnp.frexp(rows.norms)
    return jnp.ldexp(rows.x, -exponent[:, None]), mantissa


def _rounded(x: jax.Array, digits: int) -> jax.Array:
    """The first so many binary digits of x."""
    exponent_bits = jnp.finfo(x.dtype).nexp
    return jax.lax.reduce_precision(x, exponent_bits=exponent_bits, mantissa_bits=digits - 1)


def _symmetric(values: jax.Array) -> jax.Array:
    return jnp.triu(values) + jnp.triu(values, 1).T


def _mirror(out: jax.Array, corners: Sequence[tuple[int, int]], size: int) -> jax.Array:
    """Copy the upper triangle to the lower one, tile by tile.

    In loops of their own: fused into that of the tiles, XLA would compute all of a tile
    a second time in the order of the transpose.
    """

    def tile_of(out: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(out, (row, column), (size, size))

    def across(k: jax.Array, out: jax.Array) -> jax.Array:
        row, column = off_diagonal[k]
        return jax.lax.dynamic_update_slice(out, tile_of(out, row, column).T, (column, row))

    def within(k: jax.Array, out: jax.Array) -> jax.Array:
        start = diagonal[k]
        tile = _symmetric(tile_of(out, start, start))
        return jax.lax.dynamic_update_slice(out, tile, (start, start))

    off_diagonal = jnp.asarray([(i, j) for i, j in corners if i != j], jnp.int32).reshape(-1, 2)
    diagonal = jnp.asarray([i for i, j in corners if i == j], jnp.int32)
    if len(off_diagonal):
        out = jax.lax.fori_loop(0, len(off_diagonal), across, out)
    # These come last: where n is ragged the others overlap them.
    return jax.lax.fori_loop(0, len(diagonal), within, out)
