"""The kernel of an infinitely wide convolutional residual network."""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_residual import memory, schedules
from nt_residual._checks import boolean, choice, integer, optional_integer, sizes
from nt_residual.conv import tiles
from nt_residual.conv.images import check_images
from nt_residual.conv.network import Network, shares_of
from nt_residual.rntk import recursion
from nt_residual.rntk.blocks import KernelOfBlocks
from nt_residual.rntk.rows import check_range, is_known

# A smaller `ntk_scale` is scaled up to this, which does not change the normalized kernel.
_LEAST_SHARE = 1e-20
# The time that `gram.compute` should take for a tile, and a pair of pixels in a block, in seconds.
_TILE_SECONDS, _PAIR_SECONDS = 1.0, 4e-9


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ResidualKernel(KernelOfBlocks):
    r"""The neural tangent (or NNGP) kernel of a convolutional residual network.

    The network is `stax.ConvResNet` with the same arguments: a convolution, L blocks
    `x + α·branch(x)`, pooling and a dense layer, without biases, of infinite width. The branch
    of a two-layer block is convolution, ReLU, convolution. For pixels i, j of two images, with K
    the covariance and Θ the NTK, A the average over a filter and s = α²/(1 + α²), a block is

        K ← (1 − s) K + s A(M),   M = √(K̃_ii K̃_jj) κ1(θ),
        Θ ← (1 − s) Θ + s A(M + κ0(θ) (K̃ + Θ̃))

    where K̃ = A(K), Θ̃ = A(Θ), and θ is the angle of K̃, with κ0, κ1 of `rntk.arc_cosine`. The
    result for the same images is, with

        normalize=False:  the kernel of stax.ConvResNet(…, normalize_blocks=False);
        normalize=True:   the kernel of stax.ConvResNet(…, normalize_blocks=True), for 'ntk'
                          divided by `ntk_scale`, so that it is of order 1 at every depth.

    With circular padding, `flatten` and one stage, the normalized kernel of an image with itself is
    the mean square of its values. With zero padding ('SAME'), each convolution loses variance at
    the borders, and the kernel falls with depth.

    Compile time and memory do not depend on depth. The time of a call is linear in the depth. In
    float32 the error is 1e-6 of the diagonal if α falls at least like L^(-1/2). With constant α it
    grows with depth: 6e-6 for 200 blocks, 2e-5 for 1000.

    Kernels are immutable and hashable, and static arguments of `jax.jit`. You can call them under
    `jax.vmap`, `jax.shard_map` and, at finite depth, `jax.grad`. For large matrices and several
    devices use `gram.compute`.

    Args:
      depth: the number of blocks L ≥ 1; a tuple with the number of each stage, where each stage
        after the first halves the resolution; or `math.inf` for the limit, with an error of 1e-5
        of the diagonal in float32, 1e-8 in float64.
      schedule: the α of all blocks; see `rntk.ResidualKernel`.
      effective_time: T of all blocks; see `rntk.ResidualKernel`.
      image_shape: (height, width).
      kind: 'ntk', or 'nngp' for the covariance of the outputs at initialization.
      pooling: 'flatten' for a dense layer on all pixels, or 'gap' for global average pooling.
        With 'gap', time and memory grow with the square of the number of pixels.
      trained: 'blocks' if only the branches are trained; 'all' if the first and the last layer
        and the shortcuts are trained too. 'nngp' does not depend on it.
      normalize: see above.
      block: the branch: 'two_layer' for convolution, ReLU, convolution; 'one_layer' for ReLU,
        convolution; 'preactivation' for ReLU, convolution, ReLU, convolution.
      filter_shape: the shape of all filters except those of shortcuts, odd in each direction.
      padding: 'SAME' (zeros) or 'CIRCULAR'.

    Raises:
      TypeError: if an argument is of the wrong type.
      ValueError: if `depth` < 1, a size is less than 1, a filter even, a stride does not divide
        `image_shape`, an option is unknown, an α is NaN, infinite or negative, all are zero,
        or there is no limit at infinite depth.

    Example:
      >>> import jax.numpy as jnp
      >>> from nt_residual import schedules
      >>> k = ResidualKernel(
      ...     depth=100, schedule=schedules.PowerLaw(0.5), image_shape=(4, 4), padding="CIRCULAR"
      ... )
      >>> images = jnp.stack([jnp.eye(4), jnp.ones((4, 4))])[..., None]
      >>> k(images).round(2)
      Array([[0.25, 0.22],
             [0.22, 1.  ]], dtype=float32)

    Reference: arXiv 2403.04545; for convolutions arXiv 1810.05148 and 1904.11955.
    """

    depth: int | float | tuple[int, ...]  # type: ignore[assignment]
    schedule: Any  # A `schedules.Schedule`; a callable once the kernel is constructed.
    image_shape: tuple[int, int]
    kind: Literal["ntk", "nngp"] = "ntk"
    pooling: Literal["flatten", "gap"] = "flatten"
    trained: Literal["blocks", "all"] = "blocks"
    normalize: bool = True
    block: Literal["two_layer", "one_layer", "preactivation"] = "two_layer"
    filter_shape: tuple[int, int] = (3, 3)
    padding: Literal["SAME", "CIRCULAR"] = "SAME"
    effective_time: float = None  # type: ignore[assignment]  # Known once it is constructed.

    _takes_traced_alphas = "stax.ConvResNet(…, schedule=alphas)"

    def __post_init__(self):
        object.__setattr__(self, "depth", _check_depth(self.depth))
        object.__setattr__(self, "image_shape", sizes(self.image_shape, "image_shape"))
        object.__setattr__(self, "filter_shape", _check_filter(self.filter_shape))
        recursion.check_options(self.kind, self.trained)
        choice(self.pooling, "pooling", ("flatten", "gap"))
        choice(self.block, "block", ("two_layer", "one_layer", "preactivation"))
        choice(self.padding, "padding", ("SAME", "CIRCULAR"))
        boolean(self.normalize, "normalize")
        _check_strides(self.image_shape, self.depth)
        self._check_blocks()
        if self.effective_time == math.inf:
            raise ValueError(
                "the kernel has no useful limit at infinite depth, since the effective time "
                "diverges. Pass a finite depth, or α that fall at least like L^(-1/2)."
            )
        if self.kind == "ntk":
            self._check_not_zero(self.ntk_scale)

    def __call__(self, x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
        """Return the kernel between two batches of images, shape (n1, n2), in the dtype of `x1`.

        Values are not checked inside `jax.jit` or similar. The kernel of a zero image is zero. The
        angle between equal patches has a cusp, and its derivative is set to zero there.

        Args:
          x1: shape (n1, height, width, channels), floats; it is computed in at least float32.
          x2: shape (n2, height, width, channels), or `None` for `x1`, which takes half of the
            time and gives an exactly symmetric matrix.

        Raises:
          MemoryError: if there is not enough memory; see `memory_estimate`.
          TypeError: if an input does not hold real floats.
          ValueError: if a shape does not match the kernel, an input has NaN or infinity, or the
            kernel would leave the range of the dtype.
        """
        x1, x2, dtype = check_images(x1, x2, self.image_shape)
        self._check_range(x1, x2, dtype)
        plan = self._plan
        if is_known(x1):
            tile = tiles.sides(plan.network, x1, x2, next(iter(x1.devices())).platform)
            if len(x1.devices()) == 1:
                memory.check_call(tiles.least_memory(plan.network, x1, x2, tile), x1.devices())
            values = tiles.evaluate(plan, x1, x2, tile)
        else:
            values = tiles.evaluate_anywhere(plan, x1, x2)
        return (values * jnp.exp(jnp.asarray(plan.log_scale, values.dtype))).astype(dtype)

    def memory_estimate(
        self, n1: int, n2: int | None = None, *, in_channels: int, dtype="float32"
    ) -> int:
        """Return the memory that a call needs in bytes, with its result and without its inputs.

        This is the memory that the compiler reserves. The program is compiled, not run.

        Args:
          n1: the number of images of the first batch.
          n2: the number of images of the second batch, or `None` if there is only one batch.
          in_channels: the number of channels of the images.
          dtype: the dtype of the images.

        Raises:
          TypeError: if a number is not an integer.
          ValueError: if a number is less than 1.

        Example:
          >>> from nt_residual import schedules
          >>> k = ResidualKernel(8, schedules.PowerLaw(0.5), image_shape=(8, 8))
          >>> 4e6 < k.memory_estimate(1000, in_channels=1) < 40e6
          True
        """
        remedy = "Pass the number of images."
        n1, n2 = integer(n1, "n1", 1, remedy), optional_integer(n2, "n2", remedy)
        shape = (*self.image_shape, integer(in_channels, "in_channels", 1, "It is 3 for colors."))
        dtype = jax.dtypes.canonicalize_dtype(jnp.promote_types(dtype, jnp.float32))
        x1, x2 = (n if n is None else jax.ShapeDtypeStruct((n, *shape), dtype) for n in (n1, n2))
        plan = self._plan
        tile = tiles.sides(plan.network, x1, x2, jax.default_backend())
        return tiles.working_memory(plan, x1, x2, tile)

    def at_depth(self, depth: int | float | tuple[int, ...]) -> "ResidualKernel":
        """Return the same kernel at another depth, `math.inf` included.

        Example:
          >>> from nt_residual import schedules
          >>> k = ResidualKernel(10, schedules.PowerLaw(0.5), image_shape=(8, 8))
          >>> k.at_depth(math.inf).effective_time
          1.0
        """
        return dataclasses.replace(self, depth=depth, effective_time=None)

    @functools.cached_property
    def ntk_scale(self) -> float:
        """The number that `normalize=True` divides the NTK of the normalized network by.

        It is 2 Σ α²/(1 + α²) for blocks of two layers and one stage, plus 2 if all layers are
        trained. The normalized network is `stax.ConvResNet(…, normalize_blocks=True)`.
        """
        network = self._network
        total = network.layers * self._total_share
        if self.trained == "blocks":
            return total
        firsts = np.cumsum(network.stages)[:-1]
        shortcuts = 1 - recursion.branch_share(self._alphas[firsts]) if len(firsts) else 0
        return float(total + 2 + np.sum(shortcuts))

    @property
    def preferred_tile_size(self) -> int:
        """The side of the tiles of `gram.compute`, in images, so that each takes about 1 s."""
        blocks = 100 if self.depth == math.inf else self._n_blocks
        pairs = _TILE_SECONDS / (_PAIR_SECONDS * self._network.positions * blocks)
        return max(8, min(2048, math.isqrt(int(pairs))))

    __hash__ = KernelOfBlocks.__hash__

    @property
    def _n_blocks(self) -> int | float:
        return sum(self.depth) if isinstance(self.depth, tuple) else self.depth

    @functools.cached_property
    def _network(self) -> Network:
        if self.depth == math.inf:
            head, _ = self._head_and_rest
            stages = () if head is None else (len(head),)
        else:
            stages = self.depth if isinstance(self.depth, tuple) else (int(self.depth),)
        return Network(
            stages=stages,
            image_shape=self.image_shape,
            filter_shape=self.filter_shape,
            padding=self.padding,
            pooling=self.pooling,
            block=self.block,
            trains_all=self.trained == "all",
            ntk=self.kind == "ntk",
            continuum=self.depth == math.inf,
        )

    @functools.cached_property
    def _plan(self) -> tiles.Plan:
        network = self._network
        alphas, time = self._head_and_rest
        shares = recursion.branch_share(np.zeros(0) if alphas is None else alphas)
        total = self.ntk_scale
        if total < _LEAST_SHARE:
            # The kernel is the limit of vanishing α, and shares might underflow in its dtype.
            more = _LEAST_SHARE / total if total > 0 else 1.0
            shares, time, total = shares * more, time * more, _LEAST_SHARE
            if network.continuum and time == 0:
                time = total / network.layers
        shares, log_lost = shares_of(network, shares)
        log_lost -= (1 - network.kept(0)) * time
        return tiles.Plan(network, (shares, time, 1 / total), log_lost + self._log_scale)

    @property
    def _log_scale(self) -> float:
        if self.normalize:
            return 0.0
        return self.effective_time + (math.log(self.ntk_scale) if self.kind == "ntk" else 0.0)

    def _check_range(self, x1: jax.Array, x2: jax.Array | None, dtype: np.dtype) -> None:
        log_scale = self._plan.log_scale
        if log_scale < math.log(float(jnp.finfo(dtype).tiny)):
            raise ValueError(
                f"the kernel falls to exp({log_scale:.4g}), beyond the range of {dtype}, since "
                "convolutions lose variance at the borders. Pass padding='CIRCULAR', smaller α or "
                "fewer blocks."
            )
        # The mean square is the square of the norm, divided by the number of entries.
        log_scale -= math.log(math.prod(x1.shape[1:]))
        remedy = "" if self.normalize else ", or pass normalize=True"
        check_range(x1, x2, dtype, log_scale, remedy=remedy)


def _check_depth(depth: Any) -> int | float | tuple[int, ...]:
    if not isinstance(depth, tuple | list):
        return schedules.check_depth(depth)
    if not depth or math.inf in depth:
        raise ValueError(
            f"depth must hold a finite number of blocks for each stage, got {depth}. Pass (3, 4), "
            "for example, or math.inf alone."
        )
    depths = tuple(int(schedules.check_depth(blocks)) for blocks in depth)
    return depths if len(depths) > 1 else sum(depths)


def _check_filter(value: Any) -> tuple[int, int]:
    shape = sizes(value, "filter_shape")
    if not all(size % 2 for size in shape):
        raise ValueError(f"filter_shape must be odd in each direction, got {shape}. Pass (3, 3).")
    return shape


def _check_strides(image_shape: tuple[int, int], depth: Any) -> None:
    stride = 2 ** (len(depth) - 1) if isinstance(depth, tuple) else 1
    if any(size % stride for size in image_shape):
        raise ValueError(
            f"image_shape must be divisible by {stride}, for {len(depth)} stages, got "
            f"{image_shape}. Pad or crop the images, or use fewer stages."
        )
