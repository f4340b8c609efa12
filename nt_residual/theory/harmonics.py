"""Spherical harmonics: how many there are of each degree, and their zonal polynomials."""

import math
from collections.abc import Mapping

import numpy as np

from nt_residual import _checks

DIM = "Pass the number of features d of inputs on the sphere S^(d−1)."


def multiplicity(dim: int, degree: int) -> int:
    """Return the number of spherical harmonics of one degree, exactly.

        N(d, k) = C(k+d−1, d−1) − C(k+d−3, d−1)

    Raises:
      TypeError: if an argument is not an integer.
      ValueError: if `dim` < 2 or `degree` < 0.

    Example:
      >>> [multiplicity(3, degree) for degree in range(4)]
      [1, 3, 5, 7]

    Reference: Atkinson & Han 2012, Spherical Harmonics, section 2.1.
    """
    dim = _checks.integer(dim, "dim", 2, DIM)
    degree = _checks.integer(degree, "degree", 0, "It is 0 for the constant.")
    lower = math.comb(degree + dim - 3, dim - 1) if degree >= 2 else 0
    return math.comb(degree + dim - 1, dim - 1) - lower


def zonal_power(coefficients: Mapping[int, float], dim: int) -> dict[int, float]:
    """Return the power in each degree of the target of `data.sphere.zonal`.

    For f(x) = Σ_k a_k P_k(x_1) over uniform x the mean square of degree k is

        v_k² = a_k²/N(d, k)

    Takes a_k by degree k ≥ 0, returns v_k² by degree, as `learning_curve` takes it.

    Raises:
      TypeError: if a degree is not an integer or a coefficient not a number.
      ValueError: if a degree is negative, `dim` < 2, or a coefficient is not finite.

    Example:
      >>> zonal_power({0: 1.0, 2: 5.0}, dim=3)
      {0: 1.0, 2: 5.0}
    """
    power = {}
    for degree, coefficient in coefficients.items():
        count = multiplicity(dim, degree)
        power[degree] = _checks.number(coefficient, f"a_{degree}", negative=True) ** 2 / count
    return power


def weighted_polynomials(theta: np.ndarray, dim: int, max_degree: int) -> np.ndarray:
    """Return the zonal polynomials, orthonormal over θ, with the weight of the sphere absorbed.

        q_k(θ) = √(N w(θ)) P_k(cos θ),   w(θ) = sin^(d−2)θ / ∫ sin^(d−2),   ∫ q_j q_k dθ = δ_jk
        u q_k = b_(k+1) q_(k+1) + b_k q_(k−1),   u = cos θ

    of shape (max_degree + 1, n). With the root of the weight in it nothing overflows, whatever N.

    Reference: Gautschi 2004, Orthogonal Polynomials, section 1.4.
    """
    degrees, half = np.arange(2, max_degree + 1), (dim - 2) / 2
    squares = degrees * (degrees + dim - 3) / ((degrees + half) * (degrees + half - 1))
    b = [0.0, 1 / math.sqrt(dim), *(np.sqrt(squares) / 2)]
    u = np.cos(theta)
    q = np.empty((max_degree + 1, *theta.shape))
    q[0] = np.exp(log_weight(theta, dim) / 2)
    previous = np.zeros_like(u)
    for k in range(max_degree):
        q[k + 1] = (u * q[k] - b[k] * previous) / b[k + 1]
        previous = q[k]
    return q


def log_weight(theta: np.ndarray, dim: int) -> np.ndarray:
    """Return the log of the density w of the angle between uniform points of the sphere."""
    if dim == 2:
        return np.full_like(theta, -math.log(math.pi))
    sine, cosine = np.sin(theta), np.cos(theta)
    # Near π/2 the sine rounds to 1, and a power of thousands would amplify that.
    equator = np.abs(cosine) < 0.7
    with np.errstate(divide="ignore"):
        log_sine = np.where(
            equator, np.log1p(-np.square(np.where(equator, cosine, 0))) / 2, np.log(sine)
        )
    # c_d = |S^(d−2)|/|S^(d−1)| by c_2 = 1/π, c_3 = 1/2, c_(d+2) = c_d d/(d−1): the gamma functions
    # of its closed form lose digits in high dimensions.
    below = np.arange(dim % 2 + 2, dim, 2)
    normalizer = np.prod(below / (below - 1)) * (1 / 2 if dim % 2 else 1 / math.pi)
    return math.log(normalizer) + (dim - 2) * log_sine
