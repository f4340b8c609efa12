"""The eigenvalues of a zonal kernel on the sphere."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks
from nt_residual.rntk import taylor
from nt_residual.rntk.kernel import ResidualKernel
from nt_residual.theory import decay, expansion, harmonics, quadrature

# A degree whose share of the kernel is less certain than this is refused.
_RESOLVED = 1e-3
# Above this uncertainty, in units of r(0), a power series is tried as well.
_ACCURATE = 1e-8
# Its largest number of terms: some 10 s at a depth of 1000.
_MOST_TERMS = 2**16
_EPS = float(np.finfo(np.float64).eps)


@runtime_checkable
class ZonalKernel(Protocol):
    """A kernel that depends on the angle between its inputs, as `rntk.ResidualKernel`."""

    def at_angle(self, theta: Any, /) -> ArrayLike:
        """Return the kernel of unit inputs at angles in [0, π], in the shape of `theta`."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """The eigenvalues of a kernel over uniform points of the sphere S^(d−1).

    All arrays have shape (m,), with one entry per degree.

    Attributes:
      dim: d.
      degree: k = 0, 1, …
      eigenvalue: λ_k, up to rounding; one below 1e-308 is zero here, not in `log_eigenvalue`.
      multiplicity: N(d, k), as floats, infinite beyond their range.
      log_multiplicity: log N(d, k), always finite.
      mass: N λ_k, the share of degree k in r(0).
      mass_error: an estimate of the absolute error of N λ_k; that of λ_k is 1/N of it.
      diagonal: r(0), the kernel of a unit input with itself: the sum of all masses.
      tail: r(0) − Σ mass, the share of the degrees beyond the last.
    """

    dim: int
    degree: np.ndarray = dataclasses.field(repr=False)
    eigenvalue: np.ndarray = dataclasses.field(repr=False)
    multiplicity: np.ndarray = dataclasses.field(repr=False)
    log_multiplicity: np.ndarray = dataclasses.field(repr=False)
    mass: np.ndarray = dataclasses.field(repr=False)
    mass_error: np.ndarray = dataclasses.field(repr=False)
    diagonal: float
    tail: float

    @property
    def resolved(self) -> np.ndarray:
        """True for eigenvalues of more than ten times their error: bools, shape (m,)."""
        return np.abs(self.mass) > 10 * self.mass_error

    @property
    def log_eigenvalue(self) -> np.ndarray:
        """The logarithm of λ_k, shape (m,): −∞ where it is zero or, by rounding, negative."""
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(self.mass, 0)) - self.log_multiplicity

    def decay(self, parity: Literal["even", "odd"] | None = None) -> decay.Decay:
        """Fit the power law λ_k ~ k^(−p) to the upper half of the degrees.

        Eigenvalues within their error are left out. Where T is finite p = d for the NTK, which
        has a cusp |θ| at θ = 0, and p = d + 2 for the NNGP. Only degrees far above T, 1/√T and d
        show it. In deep networks with γ > 1/2 even degrees are the larger ones up to about
        1/√T, and follow another law than odd degrees.

        `parity` is 'even' or 'odd' for the degrees of one parity; `None` for all, which must
        follow one law.

        Raises:
          TypeError: if `parity` is no string.
          ValueError: if `parity` is unknown, fewer than five eigenvalues can be fitted, or even
            and odd degrees do not follow one law.

        Example:
          >>> from nt_residual import rntk, schedules
          >>> limit = rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma=1.0))
          >>> round(spectrum(limit, dim=3, max_degree=100).decay().exponent, 2)
          3.0
        """
        used = self.resolved & (self.eigenvalue > 0) & (self.degree > 0)
        if parity is not None:
            names = ("even", "odd")
            used &= self.degree % 2 == names.index(_checks.choice(parity, "parity", names))
        return decay.fit(
            self.dim, self.degree[used], self.eigenvalue[used], self.log_multiplicity[used]
        )


def spectrum(
    kernel: ZonalKernel | Callable[[np.ndarray], ArrayLike], dim: int, max_degree: int
) -> Spectrum:
    """Compute the eigenvalues of a zonal kernel over uniform points of the sphere S^(d−1).

        λ_k = (|S^(d−2)|/|S^(d−1)|) ∫_{-1}^{1} r(u) P_k(u) (1 − u²)^((d−3)/2) du,   P_k(1) = 1

    by Gauss-Legendre panels over the angle that adapt to the kernel. Rounding adds about
    1e-16 r(0) to √N λ_k, so N λ_k is lost where N(d, k) exceeds about 1e26: at degree 12 in 784
    dimensions. There the eigenvalues of a `ResidualKernel` come from its power series in cos θ,
    whose coefficients a_j are positive, so that nothing cancels:

        N λ_k = Σ_j a_j p_k(j),   u^j = Σ_k p_k(j) P_k(u)

    At degree 200 the relative error of N λ_k is then about 1e-10 in 50 dimensions and more, and
    1e-6 in 14. For other kernels such degrees are refused, and `tail` is their common share.

    Args:
      kernel: an object with a method `at_angle`, or a function of angles. It takes a float64
        array of shape (n,) with values in [0, π] and returns the kernel of unit inputs, shape
        (n,).
      dim: d, at least 2; on the circle, d = 2, these are Fourier coefficients.
      max_degree: the largest degree k, at least 0.

    Raises:
      TypeError: if `kernel` is neither, returns no real numbers, or an argument is not
        an integer.
      ValueError: if an argument is too small, the kernel returns another shape, NaN or
        infinity, is not positive at θ = 0, or `max_degree` is more than can be resolved.

    Example:
      >>> from nt_residual import rntk, schedules
      >>> limit = rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma=1.0))
      >>> spectrum(limit, dim=3, max_degree=4).eigenvalue.round(6) + 0.0
      array([0.25    , 0.166667, 0.039062, 0.      , 0.002604])

    Reference: Bach 2017, Breaking the curse of dimensionality with convex neural networks,
      appendix D; Bietti & Mairal 2019.
    """
    profile = _profile(kernel)
    dim = _checks.integer(dim, "dim", 2, "Pass the number of features d of inputs on S^(d−1).")
    max_degree = _checks.integer(max_degree, "max_degree", 0, "Pass the largest degree wanted.")
    diagonal = float(profile(np.zeros(1))[0])
    if diagonal <= 0:
        raise ValueError(
            f"kernel must be positive at θ = 0, got {diagonal}. A covariance is; check that the "
            "function takes angles rather than their cosines."
        )
    counts = [harmonics.multiplicity(dim, degree) for degree in range(max_degree + 1)]
    log_count = np.array([math.log(count) for count in counts])
    # In two steps, since N overflows before its root does.
    root = np.exp(-log_count / 2)
    mass, error = _masses(kernel, profile, dim, log_count, diagonal)
    _check_resolved(error / diagonal, dim)
    return Spectrum(
        dim=dim,
        degree=np.arange(max_degree + 1),
        eigenvalue=mass * root * root,
        multiplicity=np.array([float(n) if n.bit_length() < 1024 else math.inf for n in counts]),
        log_multiplicity=log_count,
        mass=mass,
        mass_error=error,
        diagonal=diagonal,
        tail=diagonal - math.fsum(mass),
    )


def _masses(
    kernel: Any, profile: quadrature.Profile, dim: int, log_count: np.ndarray, diagonal: float
) -> tuple[np.ndarray, np.ndarray]:
    """N λ_k and its error by quadrature, or from a power series where that is more accurate."""
    has_series = isinstance(kernel, ResidualKernel)
    hopeless = log_count / 2 + math.log(_EPS) > math.log(_RESOLVED)
    used = int(np.sum(~hopeless)) if has_series else len(log_count)
    mass, error = np.zeros(len(log_count)), np.full(len(log_count), math.inf)
    found = quadrature.project(profile, dim, used - 1, diagonal)
    with np.errstate(over="ignore", invalid="ignore"):
        root = np.exp(log_count[:used] / 2)
        mass[:used], error[:used] = (each * root for each in found)
    rough = error > _ACCURATE * diagonal
    if not has_series or not rough.any():
        return mass, error
    count = expansion.count_needed(dim, int(np.flatnonzero(rough)[-1]), _MOST_TERMS)
    by_series = expansion.masses(taylor.expand(kernel, count), dim, len(mass) - 1)
    other_mass, other_error = (each * diagonal for each in by_series)
    better = other_error < error
    return np.where(better, other_mass, mass), np.where(better, other_error, error)


def _profile(kernel: ZonalKernel | Callable[[np.ndarray], ArrayLike]) -> quadrature.Profile:
    """The kernel as a function of angles whose results are checked."""
    function: Callable[[np.ndarray], Any] = getattr(kernel, "at_angle", kernel)  # type: ignore[assignment]
    if not callable(function):
        raise TypeError(
            "kernel must have a method at_angle or be a function of angles, got "
            f"{type(kernel).__name__}. Pass rntk.ResidualKernel(…), or a function of an array of "
            "angles in radians."
        )

    def profile(theta: np.ndarray) -> np.ndarray:
        remedy = "It is called with an array of angles and must return the kernel at each."
        values = _checks.real_array(function(theta), "values of kernel", remedy)
        if values.shape != theta.shape:
            raise ValueError(
                f"kernel must return the shape of its angles, {theta.shape}, got shape "
                f"{values.shape}. {remedy}"
            )
        return values

    return profile


def _check_resolved(mass_error: np.ndarray, dim: int) -> None:
    lost = ~(mass_error <= _RESOLVED)
    if not lost.any():
        return
    first = int(np.argmax(lost))
    if first == 0:
        raise ValueError(
            "kernel must be a function that can be integrated, got a mean that is uncertain by "
            f"{mass_error[0]:.1g} of r(0). Check that it is a deterministic function of the angle."
        )
    raise ValueError(
        f"max_degree must be at most {first - 1} for this kernel in {dim} dimensions, got "
        f"{len(lost) - 1}: beyond, rounding exceeds {_RESOLVED:g} of r(0). Pass "
        f"max_degree={first - 1}, or a ResidualKernel, of which the power series is known."
    )
