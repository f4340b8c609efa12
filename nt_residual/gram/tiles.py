"""Tiles of a Gram matrix: their size, their place, and the programs that compute them.

All tiles of a matrix have one size, so that one compiled program computes each of them. Where the
size does not divide the number of inputs, the last tile begins earlier and repeats some rows of
the tile before it.
"""

import dataclasses
import functools
import math
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_residual import memory

Kernel = Callable[..., Any]

# Added to errors about entries that are NaN or infinite.
WHY_NOT_FINITE = (
    "angles to a zero input are undefined, and large inputs may leave the range of the dtype."
)
# Large enough for matrix products at full speed, small enough for a progress bar to move.
_ON_CPU, _ON_ACCELERATOR = 2048, 4096
# One tile may take 1/_SHARE of the spare memory while it is computed.
_SHARE = 4


# JAX keeps a compiled program, and the constants in it, as long as the function that `jax.jit`
# returned. Kernels that compare by value (frozen dataclasses) share one such function, to which
# they are a static argument: equal kernels share a program. Any other kernel may close over data.
# It has jitted functions of its own, which are dropped when the kernel is garbage collected.

shared_jit = functools.cache(jax.jit)
_own_jits: dict[int, Callable[..., Any]] = {}


class Reference:
    """A static argument that calls a kernel, and does not keep it alive."""

    def __init__(self, kernel: Kernel):
        self._weak, self._id = weakref.ref(kernel), id(kernel)

    def kernel(self) -> Kernel:
        """Return the kernel, or raise `ReferenceError` if it is gone."""
        kernel = self._weak()
        if kernel is None:
            raise ReferenceError(
                "the kernel of this gram.MatrixFree is gone. Keep the MatrixFree as long as what "
                "you flattened from it."
            )
        return kernel

    def __call__(self, x1: jax.Array, x2: jax.Array) -> Any:
        """Call the kernel."""
        return self.kernel()(x1, x2)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and self._weak is other._weak

    def __hash__(self) -> int:
        return self._id


def _by_value(kernel: Any) -> bool:
    frozen = getattr(getattr(kernel, "__dataclass_params__", None), "frozen", False)
    if not frozen or type(kernel).__hash__ is object.__hash__:
        return False
    try:
        hash(kernel)
    except TypeError:  # A field is an array, for example.
        return False
    return True


def static(kernel: Kernel) -> Kernel:
    """Return the kernel as a static argument: itself if it compares by value, or a reference."""
    return kernel if _by_value(kernel) else Reference(kernel)


def from_static(kernel: Kernel) -> Kernel:
    """Return the kernel that `static` was given."""
    return kernel.kernel() if isinstance(kernel, Reference) else kernel


def jit_for(owner: Any, function: Callable[..., Any], **options: Any) -> Any:
    """Return `jax.jit(function, **options)`, the same in each call.

    What it compiles dies with `owner`, a kernel or a matrix, unless that compares by value.
    `function` takes a kernel as `static` returns it.
    """
    if _by_value(owner):
        return shared_jit(function, **options)
    key = id(owner)
    if key not in _own_jits:
        # A new `partial` each time: JAX's caches hold only weak references to it.
        _own_jits[key] = functools.cache(lambda f, **o: jax.jit(functools.partial(f), **o))
        weakref.finalize(owner, _own_jits.pop, key, None).atexit = False
    return _own_jits[key](function, **options)


@dataclasses.dataclass(frozen=True)
class Cut:
    """The range 0, …, n − 1 cut into pieces of one size, at most n."""

    n: int
    size: int

    @property
    def count(self) -> int:
        """The number of pieces."""
        return -(-self.n // self.size)

    def start(self, k: Any) -> Any:
        """Return where piece k begins; a NumPy or JAX integer if k is one."""
        if isinstance(k, int):
            return min(k * self.size, self.n - self.size)
        return jnp.minimum(k * self.size, self.n - self.size)

    def own(self, k: Any) -> jax.Array:
        """Return a mask of the entries of piece k outside the piece before, shape (size, 1)."""
        index = self.start(k) + jnp.arange(self.size)
        return (index >= k * self.size)[:, None]

    def take(self, x: jax.Array, k: Any) -> jax.Array:
        """Return the rows of piece k."""
        return jax.lax.dynamic_slice_in_dim(x, self.start(k), self.size)


Cuts = tuple[Cut, Cut]


def even_cut(n: int, largest: int) -> Cut:
    """Return the fewest pieces that a largest size allows, as equal as possible.

    Example:
      >>> even_cut(2100, 2048)
      Cut(n=2100, size=1050)
    """
    return Cut(n, -(-n // -(-n // largest)))


def pairs(rows: Cut, columns: Cut, *, symmetric: bool = False) -> list[tuple[int, int]]:
    """Return the tiles to compute, row by row: of a symmetric matrix the upper triangle."""
    return [(i, j) for i in range(rows.count) for j in range(i if symmetric else 0, columns.count)]


def entries(
    kernel: Kernel, x1: jax.Array, x2: jax.Array, dtype: np.dtype, diagonal: Any = False
) -> jax.Array:
    """Return the tile k(x1, x2), inside `jax.jit`.

    `diagonal` tells that x1 is x2; the tile is then exactly symmetric. It may be traced.
    """
    # Several operations use the tile. The barrier keeps XLA from computing it anew for each.
    values = jax.lax.optimization_barrier(kernel(x1, x2).astype(dtype))
    if diagonal is False:
        return values
    return jax.lax.cond(diagonal, lambda k: jnp.triu(k) + jnp.triu(k, 1).T, lambda k: k, values)


def _tile(
    kernel: Kernel, x1: Any, x2: Any, i: Any, j: Any, cuts: Cuts, dtype: np.dtype, symmetric: bool
) -> tuple[jax.Array, jax.Array]:
    """Return tile (i, j), and whether it is finite."""
    diagonal = i == j if symmetric else False
    values = entries(kernel, cuts[0].take(x1, i), cuts[1].take(x2, j), dtype, diagonal)
    return values, jnp.isfinite(values).all()


def _compiled(
    kernel: Kernel, x1: jax.Array, x2: jax.Array, cuts: Cuts, dtype: np.dtype, symmetric: bool
) -> tuple[Callable[..., Any], int]:
    """Return the program (x1, x2, i, j) ↦ tile, finite, and the bytes that it needs."""
    at = jax.sharding.SingleDeviceSharding(device_of(x1))
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at) for x in (x1, x2)]
    index = jax.ShapeDtypeStruct((), np.int32)
    tile = jit_for(kernel, _tile, static_argnames=("kernel", "cuts", "dtype", "symmetric"))
    lowered = tile.lower(static(kernel), *shapes, index, index, cuts, dtype, symmetric)
    program = lowered.compile()
    analysis = program.memory_analysis()
    if analysis is None:  # Some backends do not report it.
        return program, 4 * cuts[0].size * cuts[1].size * np.dtype(dtype).itemsize
    return program, analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def choose_cuts(
    kernel: Kernel,
    x1: jax.Array,
    x2: jax.Array,
    *,
    tile_size: int | None,
    dtype: np.dtype,
    symmetric: bool,
    spare: int,
) -> Cuts:
    """Return the pieces that rows and columns of k(x1, x2) are cut into.

    The largest side of a tile is `tile_size`. `None` takes `kernel.preferred_tile_size` or a
    default, or less, so that computing a tile takes at most a quarter of `spare` bytes.
    """
    largest = max(len(x1), len(x2))
    default = _ON_CPU if device_of(x1).platform == "cpu" else _ON_ACCELERATOR
    default = min(default, getattr(kernel, "preferred_tile_size", default))
    side = min(tile_size or default, largest)
    while True:
        cuts = even_cut(len(x1), side), even_cut(len(x2), side)
        if tile_size is not None or side == 1:
            return cuts
        _, working = _compiled(kernel, x1, x2, cuts, dtype, symmetric)
        if working <= spare / _SHARE:
            return cuts
        # Working memory grows with the number of entries, or more slowly.
        side = max(1, min(side // 2, int(side * math.sqrt(spare / _SHARE / working))))


def check_columns(v: Any, n: int) -> None:
    """Raise `ValueError` unless an array has shape (n,) or (n, o)."""
    if v.ndim not in (1, 2) or len(v) != n:
        raise ValueError(f"v must have shape ({n},) or ({n}, o), got shape {v.shape}.")


def device_of(x: jax.Array) -> Any:
    """Return the device of an array that is on one."""
    return next(iter(x.devices()))


class Tiles:
    """The tiles of k(x1, x2) on one device. `tiles(i, j)` computes one.

    If `x2` is `None`, tiles on the diagonal are exactly symmetric. `held` names the bytes that the
    device must hold beside the tiles. If this does not fit, `MemoryError` names the `remedies`.
    """

    def __init__(
        self,
        kernel: Kernel,
        x1: jax.Array | np.ndarray,
        x2: jax.Array | np.ndarray | None,
        dtype: np.dtype,
        tile_size: int | None,
        *,
        held: dict[str, int],
        remedies: str,
    ):
        self.symmetric, self.dtype = x2 is None, dtype
        first = jnp.asarray(x1)
        self.device = device_of(first)
        second = first if x2 is None else jax.device_put(x2, self.device)
        self.inputs, self.shape = (first, second), (len(first), len(second))
        limit, where = memory.share([self.device])
        memory.check(held, limit, where, remedies)
        options = {"dtype": dtype, "symmetric": self.symmetric}
        spare = limit - sum(held.values())
        self.cuts = choose_cuts(kernel, *self.inputs, tile_size=tile_size, spare=spare, **options)
        self._program, working = _compiled(kernel, *self.inputs, self.cuts, **options)
        name = f"tiles of {self.cuts[0].size} × {self.cuts[1].size}"
        memory.check({**held, name: working}, limit, where, remedies)

    def pairs(self) -> list[tuple[int, int]]:
        """Return the tiles to compute, row by row."""
        return pairs(*self.cuts, symmetric=self.symmetric)

    def __call__(self, i: int, j: int) -> jax.Array:
        """Return tile (i, j), or raise `ValueError` if an entry is NaN or infinite."""
        with jax.disable_jit(False):  # The program is compiled already.
            values, finite = self._program(*self.inputs, np.int32(i), np.int32(j))
        if not finite:
            bad = np.argwhere(~np.isfinite(np.asarray(values, np.float32)))[0]
            row, column = self.cuts[0].start(i) + bad[0], self.cuts[1].start(j) + bad[1]
            raise ValueError(
                f"the kernel must be finite, got NaN or infinity at row {row}, column {column}. "
                f"Look at x1[{row}] and x2[{column}]: {WHY_NOT_FINITE}"
            )
        return values
