"""The eigenvalues of a zonal kernel on the sphere."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from nt_residual.theory import checks, decay, harmonics, quadrature

# A degree whose share of the kernel is less certain than this is refused.
_RESOLVED = 1e-3


class ZonalKernel(Protocol):
    """A kernel that depends on the angle between its inputs, as `rntk.ResidualKernel`."""

    def at_angle(self, theta: Any, /) -> ArrayLike:
        """The kernel of unit inputs at some angles in [0, π], of the shape of `theta`."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """The eigenvalues of a kernel over uniform points of the sphere S^(d−1).

    Attributes:
      dim: d.
      degree: k = 0, 1, …, shape (m,).
      eigenvalue: λ_k, shape (m,). Rounding may leave one that is zero slightly negative.
      quadrature_error: an estimate of the absolute error of λ_k, shape (m,).
      multiplicity: N(d, k), as floats, infinite beyond their range, shape (m,).
      log_multiplicity: log N(d, k), always finite, shape (m,).
      mass: N λ_k, the share of degree k in r(0), shape (m,).
      diagonal: r(0), the kernel of a unit input with itself: the sum of all masses.
      tail: r(0) − Σ mass, the share of the degrees beyond the last.
    """

    dim: int
    degree: np.ndarray
    eigenvalue: np.ndarray
    quadrature_error: np.ndarray
    multiplicity: np.ndarray
    log_multiplicity: np.ndarray
    mass: np.ndarray
    diagonal: float
    tail: float

    @property
    def resolved(self) -> np.ndarray:
        """Which eigenvalues stand out from their error, ten times: bools, shape (m,).

        The others are zero (by parity, say) or too small to be told from it.
        """
        return np.abs(self.eigenvalue) > 10 * self.quadrature_error

    def decay(self) -> decay.Decay:
        """The power law λ_k ~ k^(−p), fitted to the upper half of the degrees.

        Eigenvalues within their error count as zero and are left out. Where T is finite
        p = d for the NTK, which has a cusp |θ| at θ = 0, and d + 2 for the NNGP; only
        degrees far above T and d show it. Where even and odd degrees follow different laws
        the fit is to both, and its uncertainty says so.

        Returns:
          The exponent with its uncertainty, and that of the sorted eigenvalues.

        Raises:
          ValueError: if fewer than six eigenvalues can be fitted.

        Example:
          >>> from nt_residual import rntk, schedules
          >>> limit = rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma=1.0))
          >>> round(spectrum(limit, dim=3, max_degree=100).decay().exponent, 2)
          3.0
        """
        used = self.resolved & (self.eigenvalue > 0) & (self.degree > 0)
        return decay.fit(
            self.dim, self.degree[used], self.eigenvalue[used], self.log_multiplicity[used]
        )


def spectrum(
    kernel: ZonalKernel | Callable[[np.ndarray], ArrayLike], dim: int, max_degree: int
) -> Spectrum:
    """The eigenvalues of a zonal kernel over uniform points of the sphere S^(d−1).

        λ_k = (|S^(d−2)|/|S^(d−1)|) ∫_{-1}^{1} r(u) P_k(u) (1 − u²)^((d−3)/2) du,   P_k(1) = 1

    integrated over the angle by Gauss-Legendre panels that adapt to the kernel. In
    float64 √N λ_k is known to about 1e-16 r(0), so N λ_k is lost where N(d, k) exceeds
    about 1e26: at degree 12 in 784 dimensions. Such degrees are refused; `tail` still
    tells their common share.

    Args:
      kernel: an object with a method `at_angle`, or a function of angles, a float64 array
        of shape (n,) with values in [0, π], that returns the kernel of unit inputs at
        these angles, shape (n,).
      dim: d, at least 2; on the circle, d = 2, these are Fourier coefficients.
      max_degree: the largest degree k, at least 0.

    Returns:
      The eigenvalues, how often each occurs, and what remains.

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
    dim = checks.integer(dim, "dim", 2, "Pass the number of features d of inputs on S^(d−1).")
    max_degree = checks.integer(max_degree, "max_degree", 0, "Pass the largest degree wanted.")
    diagonal = float(profile(np.zeros(1))[0])
    if diagonal <= 0:
        raise ValueError(
            f"kernel must be positive at θ = 0, got {diagonal}. A covariance is; check that the "
            "function takes angles rather than their cosines."
        )
    found = quadrature.project(profile, dim, max_degree, diagonal)
    counts = [harmonics.multiplicity(dim, degree) for degree in range(max_degree + 1)]
    log_count = np.array([math.log(count) for count in counts])
    _check_resolved(np.log(found.error / diagonal) + log_count / 2, dim)
    mass = found.value * np.exp(log_count / 2)
    return Spectrum(
        dim=dim,
        degree=np.arange(max_degree + 1),
        eigenvalue=found.value * np.exp(-log_count / 2),
        quadrature_error=found.error * np.exp(-log_count / 2),
        multiplicity=np.array([_float(count) for count in counts]),
        log_multiplicity=log_count,
        mass=mass,
        diagonal=diagonal,
        tail=diagonal - math.fsum(mass),
    )


def _float(count: int) -> float:
    return float(count) if count.bit_length() < 1024 else math.inf


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
        values = checks.real_array(function(theta), "values of kernel", remedy)
        if values.shape != theta.shape:
            raise ValueError(
                f"kernel must return the shape of its angles, {theta.shape}, got shape "
                f"{values.shape}. {remedy}"
            )
        return values

    return profile


def _check_resolved(log_mass_error: np.ndarray, dim: int) -> None:
    lost = log_mass_error > math.log(_RESOLVED)
    if not lost.any():
        return
    first = int(np.argmax(lost))
    if first == 0:
        raise ValueError(
            "kernel must be a function that can be integrated, got a mean that is uncertain by "
            f"{math.exp(log_mass_error[0]):.1g} of r(0). Check that it is a "
            "deterministic function of the angle."
        )
    raise ValueError(
        f"max_degree must be at most {first - 1} for this kernel in {dim} dimensions, got "
        f"{len(lost) - 1}: beyond, rounding in float64 exceeds {_RESOLVED:g} of r(0). Pass "
        f"max_degree={first - 1}; the tail tells what the other degrees share."
    )
