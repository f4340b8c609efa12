"""The kernel of an infinitely wide residual network of any depth, infinite depth included."""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import numpy as np
from jax.typing import ArrayLike

from nt_residual import _checks, schedules
from nt_residual.rntk import chebyshev, doubling, limits, recursion, tiles
from nt_residual.rntk.angles import check_angles
from nt_residual.rntk.blocks import KernelOfBlocks
from nt_residual.rntk.profile import Profile, SeriesKernel, profile_of
from nt_residual.rntk.rows import check_memory, check_pair, check_range

# The largest log_diagonal: beyond it float64 overflows, and a call raises an error.
_LARGEST_LOG = 700.0
# The largest error of a series, as a fraction of the diagonal. Beyond it a call raises an error.
_LARGEST_ERROR = 1e-7


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ResidualKernel(SeriesKernel, KernelOfBlocks):
    r"""The neural tangent (or NNGP) kernel of a fully-connected residual network.

    The network has L blocks `x + α_ℓ √(1/m) V_ℓ σ(√(2/m) W_ℓ x)` between an input and
    an output layer, σ = ReLU, no biases, infinite width m. With θ the angle between two inputs,
    s_ℓ = α_ℓ²/(1 + α_ℓ²), ρ_ℓ the correlation after ℓ blocks, and κ0, κ1 of `rntk.arc_cosine`,

        r(θ) = Σ_ℓ s_ℓ [κ1(ρ_{ℓ−1}) + ρ_{ℓ−1} κ0(ρ_{ℓ−1})] Π_{i>ℓ} (1 − s_i θ_{i−1}/π) / (2 Σ s_ℓ)

    and the kernel is |x| |x'| r(θ). The first call computes r on the host in float64 (0.1 s for
    up to 10^12 blocks of equal α, 0.2 s for 10,000 different α) and stores it as a Chebyshev
    series of about 20 (float32) or 60 (float64) terms. After that a call costs little more than
    the matrix product of its inputs, at every depth.

    Kernels are immutable and hashable, and static arguments of `jax.jit`.

    Args:
      depth: the number of blocks L ≥ 1, or `math.inf` for the limit.
      schedule: a callable that returns one α per block, given the depth; or an array of these α,
        shape (depth,), which becomes a `schedules.Explicit`. `depth=math.inf` needs
        a callable with a `limiting_effective_time`, such as `schedules.PowerLaw`, or
        `effective_time`.
      kind: 'ntk', or 'nngp' for the covariance of the outputs at initialization.
      trained: 'blocks' if only the V_ℓ, W_ℓ are trained, as in the paper; 'all' if the
        input and the output layer are trained too. 'nngp' does not depend on it.
      normalize: whether to scale the kernel of an input with itself to |x|². If not, it
        is the kernel of the network as written, which grows like Π(1 + α²).
      effective_time: the limit of T = Σ log(1 + α²), in [0, ∞]. Pass it with
        `depth=math.inf` for a schedule without `limiting_effective_time`. The α must tend
        to zero uniformly, like c·L^(−1/2), or the α of each block must be the same at all
        depths, like 1/ℓ. Then the first 16384 blocks are computed one by one, and the
        others in the limit of small α. At finite depth it is T of the network; leave it out.

    Raises:
      TypeError: if `depth` is not a number, or `schedule` neither a callable nor an array.
      ValueError: if `depth` < 1, an option is unknown, an α is NaN, infinite or
        negative, all are zero, the kernel does not exist at infinite depth, or
        `effective_time` contradicts the schedule.

    Example:
      >>> import jax.numpy as jnp
      >>> from nt_residual import schedules
      >>> k = ResidualKernel(depth=1000, schedule=schedules.PowerLaw(gamma=1.0))
      >>> x = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> k(x).round(4)
      Array([[1.    , 0.9091],
             [0.9091, 2.    ]], dtype=float32)

    Reference: arXiv 2403.04545.
    """

    depth: int | float
    schedule: Any  # A `schedules.Schedule`; a callable once the kernel is constructed.
    kind: Literal["ntk", "nngp"] = "ntk"
    trained: Literal["blocks", "all"] = "blocks"
    normalize: bool = True
    effective_time: float = None  # type: ignore[assignment]  # Known once it is constructed.

    _takes_traced_alphas = "rntk.recursive_kernel(x1, x2, schedule=…)"

    def __post_init__(self):
        object.__setattr__(self, "depth", schedules.check_depth(self.depth))
        recursion.check_options(self.kind, self.trained)
        _checks.boolean(self.normalize, "normalize")
        self._check_blocks()
        if self.kind == "ntk":
            self._check_not_zero(self._layers)

    def __call__(self, x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
        """Return the kernel between two batches of inputs.

        Works under `jax.jit`, `jax.vmap` and `jax.grad`, where values are not checked and a zero
        row gives NaN. Between two equal inputs the kernel has a cusp, and the derivative of their
        angle is set to zero.

        Args:
          x1: shape (n1, d), floats.
          x2: shape (n2, d), or `None` for `x1`, which gives an exactly symmetric
            matrix with an exact diagonal.

        Returns:
          Shape (n1, n2), in the dtype of `x1`; it is computed in at least float32.

        Raises:
          MemoryError: if inputs are not traced and the matrix does not fit in free memory.
          TypeError: if an input does not hold real floats.
          ValueError: if an input is not two-dimensional, is empty, has NaN, infinity or a zero
            row, if the widths differ, or if the kernel would leave the range of the dtype.
        """
        x1, x2, dtype = check_pair(x1, x2)
        check_memory(x1, x2, 1)
        log_scale = 0.0 if self.normalize else self.log_diagonal
        remedy = "" if self.normalize else ", or pass normalize=True"
        check_range(x1, x2, dtype, log_scale, remedy=remedy)
        return tiles.evaluate(device_profile(self, x1.dtype.name), x1, x2).astype(dtype)

    def at_angle(self, theta: ArrayLike) -> np.ndarray:
        """Return the kernel of two unit inputs at a given angle, from the recursion itself.

        This is the reference for the compiled form. If the blocks have different α, its cost grows
        with depth. The error is 1e-12 of the diagonal, and 1e-10 at infinite depth. If the α of
        each block is the same at all depths (see `effective_time`), the error is about Σ α⁴ over
        the blocks that are not computed one by one.

        Args:
          theta: angles in radians, in [0, π], any shape.

        Returns:
          A float64 NumPy array of the shape of `theta`.

        Raises:
          TypeError: if `theta` does not hold real numbers.
          ValueError: if an angle is outside [0, π] or NaN, or the un-normalized kernel
            leaves the range of float64.

        Example:
          >>> from nt_residual import schedules
          >>> ResidualKernel(math.inf, schedules.PowerLaw(0.5)).at_angle([0, math.pi / 2]).round(4)
          array([1.    , 0.1928])
        """
        profile = self._at_angle(check_angles(theta))
        if self.normalize:
            return profile
        if self.log_diagonal > _LARGEST_LOG:
            raise ValueError(
                f"the kernel of unit inputs reaches exp({self.log_diagonal:.4g}), beyond the range "
                "of float64. Pass normalize=True."
            )
        return profile * math.exp(self.log_diagonal)

    def at_depth(self, depth: int | float) -> "ResidualKernel":
        """Return the same kernel at another depth, `math.inf` included.

        Example:
          >>> from nt_residual import schedules
          >>> ResidualKernel(10, schedules.PowerLaw(0.5)).at_depth(math.inf).effective_time
          1.0
        """
        if schedules.check_depth(depth) == self.depth:
            return self
        return dataclasses.replace(self, depth=depth, effective_time=None)

    __hash__ = KernelOfBlocks.__hash__

    @functools.cached_property
    def log_diagonal(self) -> float:
        """The logarithm of the un-normalized kernel of a unit input with itself."""
        if self.kind == "nngp":
            return self.effective_time
        return self.effective_time + (math.log(self._layers) if self._layers > 0 else -math.inf)

    @property
    def _layers(self) -> float:
        """The NTK of a unit input with itself, divided by Π(1 + α²): a sum over layers."""
        return 2 * self._total_share + (2 if self.trained == "all" else 0)

    @functools.cached_property
    def fit(self) -> chebyshev.Fit:  # type: ignore[override]
        """The normalized kernel r(θ) as a series in float64."""
        if self.depth == math.inf and self.effective_time == math.inf:
            # Constant for θ > 0. At θ = 0 it jumps to 1.
            constant = float(self._at_angle(np.array([1.0]))[0])
            return chebyshev.Fit((constant,), chebyshev.PLAIN, error=0.0)
        variable = chebyshev.variable_for(self.effective_time)
        # Rounding adds up over the steps of the recursion. More coefficients would not help.
        one_by_one = self.depth != math.inf and self._equal_alpha is None
        tol = 2e-12 + (4e-17 * self.depth if one_by_one else 0)
        return chebyshev.fit(self._at_angle, variable, tol=tol)

    def _at_angle(self, theta: np.ndarray) -> np.ndarray:
        """Return the normalized kernel r(θ), which is 1 at θ = 0."""
        return self._of_half_angle(*recursion.half_angle(theta))

    def _of_half_angle(self, sin2: np.ndarray, cos2: np.ndarray) -> np.ndarray:
        """Return r from sin²(θ/2) and cos²(θ/2), which may be complex."""
        if self.depth == math.inf:
            head, rest = self._head_and_rest
            sums = limits.sums_of_blocks(sin2, cos2, rest, head)
        elif self._equal_alpha is not None and not np.iscomplexobj(sin2):
            depth = int(self.depth)
            sums = doubling.sums_of_equal_blocks(sin2, cos2, self._equal_alpha, depth)
        else:
            sums = recursion.sums_of_blocks(sin2, cos2, self._alphas)
        return recursion.combine(sums, self.kind, self.trained, self._total_share)


@functools.lru_cache(maxsize=256)
def device_profile(kernel: ResidualKernel, dtype: str) -> Profile:
    """Return the form of the kernel that is evaluated on the device, for inputs of a dtype."""
    error = kernel.fit.error
    if not error < _LARGEST_ERROR:
        raise ValueError(
            f"the effective time T = {kernel.effective_time:.3g} is more than can be resolved: the "
            f"kernel falls within angles of 3π/T, and its error is {error:.1g} of the diagonal. "
            "Pass smaller α, or the limit, which is 1/4 between different inputs "
            "(depth=math.inf, effective_time=math.inf)."
        )
    scale = 1.0 if kernel.normalize else math.exp(min(kernel.log_diagonal, _LARGEST_LOG))
    jumps = kernel.depth == math.inf and kernel.effective_time == math.inf
    return profile_of(kernel.fit, dtype, scale=scale, jumps=jumps)
