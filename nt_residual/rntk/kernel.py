"""The kernel of an infinitely wide residual network, at any depth, infinity included."""

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from nt_residual import schedules
from nt_residual.rntk import chebyshev, limits, recursion
from nt_residual.rntk.angle import angle, check_inputs, row_norms


@dataclasses.dataclass(frozen=True)
class ResidualKernel:
    r"""The neural tangent (or NNGP) kernel of a fully-connected residual network.

    The network has L blocks `x + α_ℓ √(1/m) V_ℓ σ(√(2/m) W_ℓ x)` between an input and
    an output layer, σ = ReLU, no biases, infinite width m. With θ the angle between
    two inputs, s_ℓ = α_ℓ²/(1 + α_ℓ²) and ρ_ℓ the correlation after ℓ blocks,

        r(θ) = Σ_ℓ s_ℓ [κ1(ρ_{ℓ−1}) + ρ_{ℓ−1} κ0(ρ_{ℓ−1})] Π_{i>ℓ} (1 − s_i θ_{i−1}/π) / (2 Σ s_ℓ)

    and the kernel is |x| |x'| r(θ). The first call computes r on the host in float64, at a
    cost that grows with depth (about 0.1 s for 1000 blocks), and keeps it as a Chebyshev
    series; after that a call costs the same at every depth. The series is within 2e-7
    (float32) or 1e-10 (float64) of r. Where 1024 coefficients do not reach that, as for
    α ≪ 1/L in float64, the recursion itself runs on the device; at infinite depth,
    where there is none, float64 is then good to 1e-7 (γ = 1/2 and c < 1e-4).

    Args:
      depth: the number of blocks L ≥ 1, or `math.inf` for the limit.
      schedule: α as a function of depth; any callable that returns one α per block.
        `depth=math.inf` needs one with a `limiting_effective_time`, as
        `schedules.PowerLaw` has.
      kind: 'ntk', or 'nngp' for the covariance of the outputs at initialisation.
      trained: 'blocks' if only the V_ℓ, W_ℓ are trained, as in the paper; 'all' if
        the input and the output layer are too. 'nngp' does not depend on it.
      normalize: whether the kernel of an input with itself is |x|². If not, it is that
        of the network as written, and grows like Π(1 + α²).

    Raises:
      TypeError: if `depth` is not a number or `schedule` not callable.
      ValueError: if `depth` < 1, an option is unknown, an α is NaN, infinite or
        negative, all are zero, or the kernel does not exist at infinite depth.

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
    schedule: schedules.Schedule
    kind: Literal["ntk", "nngp"] = "ntk"
    trained: Literal["blocks", "all"] = "blocks"
    normalize: bool = True

    def __post_init__(self):
        object.__setattr__(self, "depth", schedules.check_depth(self.depth))
        if not callable(self.schedule):
            raise TypeError(
                "schedule must be a callable depth -> alphas, got "
                f"{type(self.schedule).__name__}. For one α use schedules.Constant(α), for one "
                "per block schedules.Explicit(alphas)."
            )
        for name, choices in (("kind", ("ntk", "nngp")), ("trained", ("blocks", "all"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}.")
        try:
            hash(self.schedule)
        except TypeError:
            raise TypeError(
                "schedule must be hashable, since kernels are compared and cached by it, got "
                f"{type(self.schedule).__name__}. A dataclass is with frozen=True."
            ) from None
        if not isinstance(self.normalize, bool):
            raise TypeError(f"normalize must be True or False, got {self.normalize!r}.")
        if self.log_diagonal == -math.inf:
            self._check_zero()

    def __call__(self, x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
        """The kernel between two batches of inputs.

        Works under `jax.jit`, `jax.vmap` and `jax.grad`. The values of inputs are
        checked only outside of these; inside, a zero row gives NaN. The derivative
        of the angle between two equal inputs, where the kernel has a cusp, is taken
        to be zero.

        Args:
          x1: shape (n1, d), floats.
          x2: shape (n2, d), or `None` for `x1`, which gives an exactly symmetric
            matrix with an exact diagonal.

        Returns:
          Shape (n1, n2), the dtype of `x1`; at least float32 is used to compute it.

        Raises:
          TypeError: if an input does not hold real floats.
          ValueError: if an input is not two-dimensional, is empty, has NaN, infinity
            or a zero row, if the widths differ, or if the kernel would leave the range of
            the dtype.
        """
        x1 = check_inputs(x1, "x1")
        if x2 is not None:
            x2 = check_inputs(x2, "x2")
            if x1.shape[1] != x2.shape[1]:
                raise ValueError(
                    f"x1 and x2 must have the same number of features, got shapes {x1.shape} "
                    f"and {x2.shape}."
                )
        dtype = jnp.promote_types(x1.dtype, jnp.float32)
        self._check_range(x1, x1 if x2 is None else x2)
        x2 = None if x2 is None else x2.astype(dtype)
        return _gram(self, x1.astype(dtype), x2).astype(x1.dtype)

    def at_angle(self, theta: ArrayLike) -> np.ndarray:
        """The kernel of two unit inputs at a given angle, from the recursion itself.

        This is the reference that the compiled form is checked with: its cost grows
        with depth, its error does not: 1e-12 of the diagonal (1e-10 at infinite depth).

        Args:
          theta: angles in radians, in [0, π], any shape.

        Returns:
          A float64 NumPy array of the shape of `theta`.

        Raises:
          ValueError: if an angle is outside [0, π] or NaN.

        Example:
          >>> from nt_residual import schedules
          >>> ResidualKernel(math.inf, schedules.PowerLaw(0.5)).at_angle([0, math.pi / 2]).round(4)
          array([1.    , 0.1928])
        """
        theta = np.asarray(theta, np.float64)
        # π itself rounds up in lower precision.
        if not np.all((theta >= 0) & (theta <= np.float32(math.pi))):
            raise ValueError(
                "theta must hold angles in radians, in [0, π], got values from "
                f"{np.min(theta)} to {np.max(theta)}."
            )
        profile = self._profile(np.minimum(theta, math.pi))
        return profile if self.normalize else profile * math.exp(self.log_diagonal)

    @functools.cached_property
    def effective_time(self) -> float:
        """T = Σ log(1 + α²), or its limit at infinite depth."""
        if self.depth != math.inf:
            return schedules.effective_time(self._alphas)
        try:
            return float(self.schedule.limiting_effective_time)  # type: ignore[attr-defined]
        except AttributeError:
            raise ValueError(
                "depth=math.inf needs a schedule whose limit is known, got "
                f"{self.schedule!r}. Use schedules.PowerLaw(gamma, c), or give the schedule an "
                "attribute limiting_effective_time, for α that tend to zero uniformly."
            ) from None

    @functools.cached_property
    def log_diagonal(self) -> float:
        """The logarithm of the un-normalised kernel of a unit input with itself."""
        if self.kind == "nngp":
            return self.effective_time
        layers = 2 * self._total_share + (2 if self.trained == "all" else 0)
        return self.effective_time + (math.log(layers) if layers > 0 else -math.inf)

    @functools.cached_property
    def _alphas(self) -> np.ndarray:
        alphas = schedules.check_alphas(self.schedule(int(self.depth)))
        if len(alphas) != self.depth:
            raise ValueError(
                f"the schedule must give one α per block, got {len(alphas)} alphas for "
                f"depth={self.depth}."
            )
        return alphas

    @functools.cached_property
    def _total_share(self) -> float:
        """Σ s_ℓ."""
        if self.depth != math.inf:
            return float(recursion.branch_share(self._alphas).sum())
        return self.effective_time

    def _profile(self, theta):
        """The normalised kernel as a function of the angle, 1 at θ = 0."""
        if self.depth == math.inf:
            sums = limits.block_sums(theta, self.effective_time)
        else:
            sums = recursion.block_sums(theta, self._alphas)
        if self.kind == "nngp":
            return sums.correlation
        if self.trained == "blocks":
            return sums.blocks
        ends = (sums.correlation + sums.input_layer) / 2
        total = self._total_share
        share = 1.0 if total == math.inf else total / (total + 1)
        return share * sums.blocks + (1 - share) * ends

    def _check_zero(self) -> None:
        """Refuses an NTK of the blocks that is zero, unless it is the limit of a shape."""
        if not self.normalize:
            raise ValueError(
                "the NTK of the blocks is zero: every α is zero, or vanishes at infinite depth. "
                "Pass normalize=True for the limit of its shape, or trained='all'."
            )
        if self.depth != math.inf and not np.any(self._alphas):
            raise ValueError(
                "every α is zero, so the NTK of the blocks is zero and has no shape. Pass at "
                "least one positive α, kind='nngp', or trained='all'."
            )

    def _check_range(self, x1: jax.Array, x2: jax.Array) -> None:
        """Refuses inputs whose kernel would overflow, as far as their values are known."""
        log_kernel = 0.0 if self.normalize else self.log_diagonal
        if not isinstance(x1, Tracer) and not isinstance(x2, Tracer):
            log_kernel += _log_largest_norm(x1) + _log_largest_norm(x2)
        limit = math.log(float(jnp.finfo(x1.dtype).max))
        if log_kernel > limit:
            raise ValueError(
                f"the kernel of these inputs reaches exp({log_kernel:.4g}), beyond the range of "
                f"{x1.dtype} (exp({limit:.4g})). Scale the inputs down"
                + ("." if self.normalize else ", or pass normalize=True.")
            )


def _log_largest_norm(x: jax.Array) -> float:
    # In two factors, neither of which overflows.
    return sum(math.log(float(factor)) for factor in _largest_norm(x))


@jax.jit
def _largest_norm(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    largest = jnp.max(jnp.abs(x))
    return largest, jnp.max(row_norms(x / largest))


@functools.lru_cache(maxsize=256)
def _series(kernel: ResidualKernel, dtype: str) -> chebyshev.Series | None:
    """The kernel as a series, or `None` where only the recursion is accurate enough."""
    if kernel.depth == math.inf and kernel.effective_time == math.inf:
        # Constant for θ > 0. The value at θ = 0, where it jumps, is 1 for every kernel.
        constant = float(kernel._profile(np.array(1.0)))
        return chebyshev.Series((constant,), bend=0.0, error=0.0)
    tol = 2e-7 if dtype == "float32" else 1e-10
    series = chebyshev.fit(kernel._profile, bend=chebyshev.bend_for(kernel.effective_time), tol=tol)
    # At infinite depth there is no recursion to run on the device.
    return series if series.error <= tol or kernel.depth == math.inf else None


@functools.partial(jax.jit, static_argnums=0)
def _gram(kernel: ResidualKernel, x1: jax.Array, x2: jax.Array | None) -> jax.Array:
    theta = angle(x1, x2)
    series = _series(kernel, theta.dtype.name)
    profile = kernel._profile(theta) if series is None else series(theta)
    # Where the kernel jumps at θ = 0, angles that rounding can produce count as zero.
    jumps = kernel.depth == math.inf and kernel.effective_time == math.inf
    rounding = 8 * jnp.finfo(theta.dtype).eps if jumps else 0
    profile = jnp.where(theta <= rounding, 1, profile)
    if not kernel.normalize:
        profile = profile * math.exp(kernel.log_diagonal)
    norm1 = row_norms(x1)
    gram = norm1 * (norm1 if x2 is None else row_norms(x2)).T * profile
    # One triangle is mirrored, since rounding differs between them.
    return jnp.triu(gram) + jnp.triu(gram, 1).T if x2 is None else gram
