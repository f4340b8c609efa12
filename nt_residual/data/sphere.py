"""Points on the unit sphere S^(d−1), with targets whose harmonics are known."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks
from nt_residual.data.load import Dataset
from nt_residual.theory import Spectrum


def uniform(n: int, dim: int, *, seed: int = 0) -> np.ndarray:
    """Return independent uniform points on the unit sphere in `dim` dimensions.

    The result has the shape (n, dim), float64.

    Raises:
      TypeError: if an argument is not an integer.
      ValueError: if `n` < 1, `dim` < 2 or `seed` < 0.

    Example:
      >>> uniform(5, dim=3).shape
      (5, 3)
    """
    seed = _checks.integer(seed, "seed", 0)
    return _uniform(n, "n", dim, np.random.default_rng(seed))


def zonal(x: ArrayLike, coefficients: Mapping[int, float]) -> np.ndarray:
    """Compute f(x) = Σ_k a_k P_k(x_1), with one harmonic per degree k.

    P_k is the Gegenbauer polynomial of the sphere with P_k(1) = 1. On uniform points P_k(x_1) has
    the mean square 1/N(d, k), with N(d, k) the number of harmonics of degree k.

    Args:
      x: points on the unit sphere, shape (n, d), d ≥ 2.
      coefficients: a_k by degree k ≥ 0.

    Returns:
      Shape (n,), float64.

    Raises:
      TypeError: if a degree is not an integer, or a coefficient not a number.
      ValueError: if the points are not on the unit sphere or a degree is negative.

    Example:
      >>> zonal(np.eye(3), {1: 1.0, 2: 2.0})
      array([ 3., -1., -1.])
    """
    x = _checks.real_array(x, "x")
    norms = np.linalg.norm(x, axis=-1)
    if x.ndim != 2 or x.shape[1] < 2 or not np.allclose(norms, 1, atol=1e-5):
        raise ValueError(
            f"x must hold points of norm 1, shape (n, d) with d ≥ 2, got shape {x.shape} and norms "
            f"up to {np.max(norms, initial=0):.6g}. Pass data.unit_norm(x)."
        )
    wanted = dict(zip(*_terms(coefficients), strict=True))
    values, u, dim = np.zeros(len(x)), x[:, 0], x.shape[1]
    below, polynomial = np.zeros(len(x)), np.ones(len(x))
    for k in range(max(wanted, default=-1) + 1):
        values += wanted.get(k, 0.0) * polynomial
        # P_(k+1), by the recurrence of polynomials that are 1 at u = 1. P_1 is u in any
        # dimension, also in two, where the recurrence for k = 0 is 0/0.
        above = ((2 * k + dim - 2) * u * polynomial - k * below) / (k + dim - 2) if k else u
        below, polynomial = polynomial, above
    return values


def source(spectrum: Spectrum, smoothness: float) -> dict[int, float]:
    """Return a target that fulfils a source condition for a kernel, and no stronger one.

    The target Σ_k a_k P_k(x_1) is in the space [H]^s of a kernel with eigenvalues λ_k if

        Σ_k v_k²/λ_k^s < ∞,   v_k² = a_k²/N(d, k)

    [H]^1 is the kernel's Hilbert space H, and [H]^0 holds all square-integrable functions. Here

        v_k² ∝ λ_k^s/(k log²(k + 1)),   k ≥ 1,   Σ_k v_k² = 1

    As the degrees go to infinity the target is in [H]^s, and in no smaller space [H]^r, r > s.

    Args:
      spectrum: of the kernel, from `theory.spectrum`, to the largest degree of the target.
      smoothness: s ≥ 0.

    Returns:
      a_k > 0 by degree, with mean square 1, for eigenvalues that are not within error of zero.

    Raises:
      TypeError: if an argument is of another type.
      ValueError: if one is out of range, or no degree is left.

    Example:
      >>> from nt_residual import rntk, schedules, theory
      >>> kernel = rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma=1.0))
      >>> spectrum = theory.spectrum(kernel, dim=3, max_degree=8)
      >>> target = source(spectrum, smoothness=1.0)
      >>> {degree: round(a, 3) for degree, a in target.items()}
      {1: 1.692, 2: 0.472, 4: 0.079, 6: 0.033, 8: 0.019}

    Reference: Fischer & Steinwart 2020, Sobolev norm learning rates for regularized
      least-squares algorithms.
    """
    present, smoothness = _present(spectrum), _checks.number(smoothness, "smoothness")
    degrees = np.flatnonzero(present[1:]) + 1
    if not degrees.size:
        raise ValueError(
            f"spectrum must have a positive eigenvalue in degrees 1 to {len(present) - 1}, got "
            "none. Compute it to a larger degree."
        )
    # In logarithms, since multiplicities and eigenvalues leave the range of floats.
    log_power = smoothness * spectrum.log_eigenvalue[degrees]
    log_power -= np.log(degrees) + 2 * np.log(np.log(degrees + 1))
    log_power -= np.logaddexp.reduce(log_power)
    amplitude = np.exp((log_power + spectrum.log_multiplicity[degrees]) / 2)
    return {int(k): float(a) for k, a in zip(degrees, amplitude, strict=True)}


def norm(coefficients: Mapping[int, float], spectrum: Spectrum, smoothness: float = 1.0) -> float:
    """Compute the norm of a zonal target in the space [H]^s of a kernel.

        ‖Σ_k a_k P_k(x_1)‖² = Σ_k a_k²/(N(d, k) λ_k^s)

    For s = 1 it is the norm of the kernel's Hilbert space, for s = 0 the root mean square; see
    `source`.

    Args:
      coefficients: a_k by degree.
      spectrum: of the kernel, from `theory.spectrum`.
      smoothness: s ≥ 0.

    Returns:
      The norm; infinite if s > 0 and an eigenvalue is within its error of zero.

    Raises:
      TypeError: if an argument is of another type.
      ValueError: if a degree is negative or not in the spectrum, or s is negative.

    Example:
      >>> from nt_residual import rntk, schedules, theory
      >>> kernel = rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma=1.0))
      >>> spectrum = theory.spectrum(kernel, dim=3, max_degree=3)
      >>> round(norm({0: 1.0, 1: 1.0}, spectrum) ** 2, 6)  # 1/λ_0 + 1/(3 λ_1)
      6.0
      >>> norm({3: 1.0}, spectrum)
      inf
    """
    present, smoothness = _present(spectrum), _checks.number(smoothness, "smoothness")
    degrees, values = _terms(coefficients)
    last = len(spectrum.degree) - 1
    if max(degrees, default=0) > last:
        raise ValueError(
            f"coefficients must not exceed the degrees of the spectrum, 0 to {last}, got degree "
            f"{max(degrees)}. Compute the spectrum to that degree."
        )
    degrees, values = np.array(degrees, dtype=int)[values != 0], values[values != 0]
    if smoothness > 0 and not present[degrees].all():
        return math.inf
    log_square = 2 * np.log(np.abs(values)) - spectrum.log_multiplicity[degrees]
    if smoothness > 0:  # The eigenvalue may be zero otherwise, and its logarithm −∞.
        log_square -= smoothness * spectrum.log_eigenvalue[degrees]
    return math.exp(np.logaddexp.reduce(log_square, initial=-math.inf) / 2)


def load(
    n_train: int,
    n_test: int,
    dim: int,
    coefficients: Mapping[int, float],
    *,
    noise: float = 0.0,
    seed: int = 0,
) -> Dataset:
    """Draw uniform points on the sphere, with the targets of `zonal` and noisy training targets.

    Args:
      n_train: the number of training points.
      n_test: the number of test points.
      dim: d, at least 2.
      coefficients: of the target, by degree.
      noise: standard deviation of Gaussian noise.
      seed: of the random numbers.

    Raises:
      TypeError: if a size, a degree or the seed is not an integer, or `noise` not a number.
      ValueError: if one is too small or not finite.

    Example:
      >>> points = load(100, 50, dim=3, coefficients={1: 1.0}, noise=0.1)
      >>> points.x_train.shape, points.y_test.shape
      ((100, 3), (50,))
    """
    noise = _checks.number(noise, "noise")
    generator = np.random.default_rng(_checks.integer(seed, "seed", 0))
    x_train = _uniform(n_train, "n_train", dim, generator)
    x_test = _uniform(n_test, "n_test", dim, generator)
    y_train = zonal(x_train, coefficients)
    y_train += noise * generator.standard_normal(len(y_train))
    return Dataset(x_train, y_train, x_test, zonal(x_test, coefficients))


def _uniform(n: int, name: str, dim: int, generator: np.random.Generator) -> np.ndarray:
    n = _checks.integer(n, name, 1, "Pass the number of points.")
    dim = _checks.integer(dim, "dim", 2, "Pass the number of features d.")
    gaussian = generator.standard_normal((n, dim))
    return gaussian / np.linalg.norm(gaussian, axis=1, keepdims=True)


def _terms(coefficients: Mapping[int, float]) -> tuple[list[int], np.ndarray]:
    """Return the degrees of a target, and its coefficients."""
    remedy = "Pass coefficients by degree, as {1: 1.0, 2: 0.5}."
    if not isinstance(coefficients, Mapping):
        kind = type(coefficients).__name__
        raise TypeError(f"coefficients must be a mapping, got {kind}. {remedy}")
    degrees = [_checks.integer(k, "degree", 0, remedy) for k in coefficients]
    return degrees, _checks.real_array(list(coefficients.values()), "coefficients", remedy)


def _present(spectrum: Spectrum) -> np.ndarray:
    """The degrees with an eigenvalue that exceeds its error, shape (K,), bools."""
    if not isinstance(spectrum, Spectrum):
        raise TypeError(
            f"spectrum must be a Spectrum, got {type(spectrum).__name__}. Pass "
            "theory.spectrum(kernel, dim, max_degree)."
        )
    present = spectrum.resolved
    if np.any(spectrum.mass[present] < 0):
        worst = int(np.argmin(np.where(present, spectrum.mass, 0)))
        raise ValueError(
            "spectrum must be that of a positive semi-definite kernel, got the eigenvalue "
            f"{spectrum.eigenvalue[worst]:.3g} in degree {worst}. Check the kernel."
        )
    return present
