"""The kernel |x| |x'| r(θ) between all pairs of inputs, for the price of their products.

On a CPU the matrix is made tile by tile, so that what lies between the matrix product and
the kernel stays in cache; between a batch and itself only half of the tiles are computed.

A product of unit vectors knows cos θ to a few ε, hence θ itself only to ε/sin θ. Where
that would show, the angle is computed once more from the difference of the two inputs:
for one such pair of each row of the tile at a time, until none is left.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from nt_residual.rntk.angle import angle
from nt_residual.rntk.arccos import arccos
from nt_residual.rntk.chebyshev import Fit, Series
from nt_residual.rntk.inputs import row_norms


class Tiling(NamedTuple):
    """The largest tiles: rows and columns, and the side of those between a batch and itself."""

    rows: int
    columns: int
    side: int


# Features that one product sums over.
_SUMMED = 1024

CPU_TILING = Tiling(rows=400, columns=4096, side=800)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["series", "near_zero", "near_pi", "scale"],
    meta_fields=["degree", "jumps"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    """A kernel scale·(|x| |x'|)^degree r(θ) with r(0) = 1, as it is evaluated on the device.

    Attributes:
      series: r for θ > 0.
      near_zero: pairs of a larger cosine get their angle from the difference of inputs.
      near_pi: pairs of a smaller cosine do, too.
      scale: the kernel of a unit input with itself.
      degree: 1, unless activations are homogeneous of another degree.
      jumps: whether r jumps to 1 at θ = 0, so that angles which rounding can produce
        count as zero.
    """

    series: Series
    near_zero: float
    near_pi: float
    scale: float = 1.0
    degree: float = 1.0
    jumps: bool = False

    def __call__(self, theta: jax.Array) -> jax.Array:
        """Evaluates r at angles in radians, in [0, π], any shape and float dtype."""
        values = self.series(theta)
        if not self.jumps:
            return values
        return jnp.where(theta <= 8 * jnp.finfo(theta.dtype).eps, 1, values)


def profile_of(fit: Fit, dtype: jax.typing.DTypeLike, **options) -> Profile:
    """The profile that is accurate in the given dtype, cut from a fit in float64.

    Args:
      fit: r(θ).
      dtype: that of the inputs.
      **options: the scale, degree and jumps of the profile.
    """
    eps = float(jnp.finfo(dtype).eps)
    # In the dtype of the inputs: JAX 0.10 takes a float64 constant for float32 once a program
    # without float64 has held it.
    series = fit.cut(_tolerance(dtype), dtype)
    if options.get("jumps"):
        return Profile(series, 1 - 100 * eps, -2.0, **options)
    distance = np.geomspace(eps, math.pi / 2, 2000)

    def largest_near(theta: np.ndarray) -> float:
        # What an error of 5 ε in cos θ does to r: the largest seen, for 3 to 100,000 features.
        error = np.abs(fit.slope_at_angle(theta)) * 5 * eps / distance
        near = np.flatnonzero(error > 12 * _tolerance(dtype))
        # Rounding may take a cosine beyond 1, but not to 2.
        return math.cos(distance[near[-1]]) if len(near) else 2.0

    near_zero, near_pi = largest_near(distance), -largest_near(math.pi - distance)
    return Profile(series, near_zero, near_pi, **options)


def coefficients(fit: Fit, dtype: jax.typing.DTypeLike) -> np.ndarray:
    """Those of `fit` that inputs of a dtype are evaluated with, float64, shape (count,)."""
    return np.trim_zeros(np.asarray(fit.cut(_tolerance(dtype)).coefficients), "b")


def _tolerance(dtype: jax.typing.DTypeLike) -> float:
    """What may be cut from a series, in units of r(0)."""
    return max(float(jnp.finfo(dtype).eps), 1e-11)


def error_bound(fit: Fit, dtype: jax.typing.DTypeLike) -> float:
    """How far r(θ) can be from exact on the device, in units of r(0).

    The fit's own error, what is cut off, cosines that are taken from products, rounding; and
    where r is so steep that it shows, what is left of the last digit of small angles.
    """
    eps = float(jnp.finfo(dtype).eps)
    steepest = float(np.max(np.abs(fit.slope_at_angle(np.linspace(0, math.pi, 1001)))))
    return fit.error + 16 * _tolerance(dtype) + steepest * 2 * eps * 2.0 ** -_half_digits(dtype)


def evaluate(profile: Profile, x1: jax.Array, x2: jax.Array | None) -> jax.Array:
    """`gram`, compiled, in tiles unless the inputs are known to be sharded."""
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
def in_automatic_axes(out, function, options, operands, *inputs):
    """Return function(options, operands, x1, x2) sharded as `out`, computed on automatic axes."""

    def automatic(operands, *inputs):
        return function(options, operands, inputs[0], inputs[1] if len(inputs) > 1 else None)

    # Operands too may have the type of an explicit mesh, that of the context.
    return jax.sharding.auto_axes(automatic, out_sharding=out)(operands, *inputs)


def _untiled(_, profile, x1, x2):
    return gram(profile, x1, x2, None)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def gram(
    profile: Profile,
    x1: jax.Array,
    x2: jax.Array | None,
    tiling: Tiling | None = CPU_TILING,
) -> jax.Array:
    """The matrix scale·(|x| |x'|)^degree r(θ).

    Args:
      profile: scale and r.
      x1: shape (n1, d), float32 or float64, rows finite and not zero.
      x2: shape (n2, d), likewise; `None` for `x1`, which gives an exactly symmetric
        matrix, and its exact diagonal.
      tiling: of the matrix on a CPU, `None` for none. Accelerators do without, since they
        fuse what tiles would keep in cache, and inputs sharded over devices must.

    Returns:
      Shape (n1, n2). Not checked: a zero row gives NaN. The derivative of the angle
      between equal inputs, where it has a cusp, is taken to be zero.
    """
    profile = jax.tree.map(lambda leaf: jnp.asarray(leaf, x1.dtype), profile)
    rows1 = _Rows.of(x1, profile.degree)
    rows2 = _Rows.of(x1 if x2 is None else x2, profile.degree, profile.scale)
    whole = functools.partial(_whole, same=x2 is None)
    if tiling is None:
        return whole(profile, rows1, rows2)
    tiles = functools.partial(_square if x2 is None else _rectangle, tiling)
    return jax.lax.platform_dependent(profile, rows1, rows2, cpu=tiles, default=whole)


@gram.defjvp
def _gram_jvp(tiling, primals, tangents):
    (profile, x1, x2), (_, *moved) = primals, tangents

    def differentiable(*inputs):
        return _from_angles(profile, inputs[0], inputs[1] if len(inputs) > 1 else None)

    inputs, moved = ([x1], moved[:1]) if x2 is None else ([x1, x2], moved)
    derivative = jax.jvp(differentiable, tuple(inputs), tuple(moved))[1]
    return gram(profile, x1, x2, tiling), derivative


def _from_angles(profile: Profile, x1: jax.Array, x2: jax.Array | None) -> jax.Array:
    """The same matrix, from operations that can be differentiated."""
    values = profile(angle(x1, x2))
    if x2 is None:
        values = jnp.where(jnp.eye(len(x1), dtype=bool), 1, values)
    factors1 = row_norms(x1) ** profile.degree
    factors2 = factors1 if x2 is None else row_norms(x2) ** profile.degree
    return factors1 * (profile.scale * factors2).T * values


def _whole(profile, rows1, rows2, *, same):
    values = _tile(profile, rows1, rows2, (0, 0), (len(rows1.x), len(rows2.x)), same)
    return _symmetric(values) if same else values


def _symmetric(values):
    return jnp.triu(values) + jnp.triu(values, 1).T


def _rectangle(tiling, profile, rows1, rows2):
    rows, row_starts = _tile_starts(len(rows1.x), tiling.rows)
    columns, column_starts = _tile_starts(len(rows2.x), tiling.columns)
    starts = [(row, column) for row in row_starts for column in column_starts]
    return _fill(profile, rows1, rows2, starts, (rows, columns), same=False)


def _square(tiling, profile, rows1, rows2):
    size, starts = _tile_starts(len(rows1.x), tiling.side)
    pairs = [(row, column) for i, row in enumerate(starts) for column in starts[i:]]
    out = _fill(profile, rows1, rows2, pairs, (size, size), same=True)
    return _mirror(out, pairs, size)


def _tile_starts(n: int, largest: int) -> tuple[int, list[int]]:
    """The size of equal tiles that cover n rows, and where they start; the last may overlap."""
    count = -(-n // largest)
    size = -(-n // count)
    return size, [min(k * size, n - size) for k in range(count)]


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


def _fill(profile, rows1, rows2, starts, size, *, same):
    """Writes the tiles that start at `starts`; `same` if both batches are the same."""
    starts = jnp.asarray(starts, jnp.int32)

    def step(k, out):
        start = tuple(starts[k])
        values = _tile(profile, rows1, rows2, start, size, same)
        return jax.lax.dynamic_update_slice(out, values, start)

    # Zeros that vary over the devices as the inputs do, as `jax.shard_map` wants them.
    zero = 0 * (rows1.factors[0] + rows2.factors[0])
    out = jnp.full((len(rows1.x), len(rows2.x)), zero)
    return jax.lax.fori_loop(0, len(starts), step, out)


def _tile(profile, rows1, rows2, start, size, same):
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
        itself = start[0] + _index(cosine, 0) == start[1] + _index(cosine, 1)
        values = jnp.where(itself, factors, values)
        near = near & ~itself
    # The inputs are sliced in there, since few tiles need more than their unit vectors.
    refine = functools.partial(_refine, profile, rows1, rows2, start)
    return jax.lax.cond(near.any(), refine, lambda near, values: values, near, values)


def _product(unit1, unit2):
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


def _index(array, axis):
    return jax.lax.broadcasted_iota(jnp.int32, array.shape, axis)


def _refine(profile, rows1, rows2, start, near, values):
    """Computes the entries in `near` from differences of inputs, one a row at a time."""
    rows = jnp.arange(len(near), dtype=jnp.int32)
    a = rows1.take(start[0] + rows)

    def step(state):
        near, values = state
        columns = jax.lax.argmax(near, 1, jnp.int32)
        found = near[rows, columns]
        b = rows2.take(start[1] + columns)
        exact = a.factors * b.factors * profile(_angle_of_pairs(a, b))
        values = values.at[rows, columns].set(jnp.where(found, exact, values[rows, columns]))
        return near.at[rows, columns].set(False), values

    return jax.lax.while_loop(lambda state: state[0].any(), step, (near, values))[1]


def _angle_of_pairs(a, b):
    """The angle between row i of either batch, where it is close to 0 or to π.

    sin θ is the length of x's component across x', relative to x's. Most of what is along
    x' goes away in x ∓ c x', where c is the ratio of lengths rounded to half the digits: with
    x' in two parts of half the digits each, both products are exact, and the difference is.
    """
    obtuse = jnp.sum(a.unit * b.unit, axis=1) < 0
    half = _half_digits(a.x.dtype)
    (x1, norms1), (x2, norms2) = _near_one(a), _near_one(b)
    ratio = _rounded(jnp.where(obtuse, -1, 1) * norms1 / norms2, half)[:, None]
    high = _rounded(x2, half)
    difference = x1 - ratio * high - ratio * (x2 - high)
    along = jnp.sum(difference * b.unit, axis=1, keepdims=True)
    across = row_norms(difference - along * b.unit)[:, 0]
    acute = jnp.arcsin(jnp.minimum(across / norms1, 1))
    return jnp.where(obtuse, math.pi - acute, acute)


def _near_one(rows):
    """Rows multiplied by the power of 2 that takes their norms to [1/2, 1), and these norms."""
    mantissa, exponent = jnp.frexp(rows.norms)
    return jnp.ldexp(rows.x, -exponent[:, None]), mantissa


def _half_digits(dtype):
    return (jnp.finfo(dtype).nmant + 1) // 2


def _rounded(x, digits):
    """The first so many binary digits of x."""
    exponent_bits = jnp.finfo(x.dtype).nexp
    return jax.lax.reduce_precision(x, exponent_bits=exponent_bits, mantissa_bits=digits - 1)


def _mirror(out, starts, size):
    """Copies the upper triangle to the lower one, tile by tile.

    In loops of their own: fused into that of the tiles, XLA would compute all of a tile
    a second time in the order of the transpose.
    """

    def tile_of(out, row, column):
        return jax.lax.dynamic_slice(out, (row, column), (size, size))

    def across(k, out):
        row, column = off_diagonal[k]
        return jax.lax.dynamic_update_slice(out, tile_of(out, row, column).T, (column, row))

    def within(k, out):
        tile = tile_of(out, diagonal[k], diagonal[k])
        tile = _symmetric(tile)
        return jax.lax.dynamic_update_slice(out, tile, (diagonal[k], diagonal[k]))

    off_diagonal = jnp.asarray([(i, j) for i, j in starts if i != j], jnp.int32).reshape(-1, 2)
    diagonal = jnp.asarray([i for i, j in starts if i == j], jnp.int32)
    if len(off_diagonal):
        out = jax.lax.fori_loop(0, len(off_diagonal), across, out)
    # These come last: where n is ragged the others overlap them.
    return jax.lax.fori_loop(0, len(diagonal), within, out)


_compiled_gram = jax.jit(gram, static_argnums=3)
