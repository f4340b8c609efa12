"""Points on the unit sphere S^(d−1), with targets whose harmonics are known."""

import operator
from collections.abc import Mapping

import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from nt_residual.data.dataset import Dataset


def uniform(n: int, dim: int, *, seed: int = 0) -> np.ndarray:
    """Independent uniform points on the unit sphere in `dim` dimensions.

    Args:
      n: the number of points, at least 1.
      dim: d, at least 2.
      seed: of the random numbers.

    Returns:
      Shape (n, dim), float64, rows of norm 1.

    Raises:
      ValueError: if `n` < 1 or `dim` < 2.

    Example:
      >>> import numpy as np
      >>> x = uniform(5, dim=3)
      >>> bool(np.allclose(np.linalg.norm(x, axis=1), 1))
      True
    """
    return _uniform(_size(n, "n", 1), _size(dim, "dim", 2), np.random.default_rng(seed))


def zonal(x: ArrayLike, coefficients: Mapping[int, float]) -> np.ndarray:
    """The function f(x) = Σ_k a_k P_k(x_1), one harmonic per degree k.

    P_k is the Gegenbauer polynomial of the sphere with P_k(1) = 1. Over the uniform
    distribution the P_k(x_1) are orthogonal, with mean square 1/N(d, k), where
    N(d, k) is the number of harmonics of degree k.

    Args:
      x: points on the unit sphere, shape (n, d), d ≥ 2.
      coefficients: a_k by degree k ≥ 0.

    Returns:
      Shape (n,), float64.

    Raises:
      ValueError: if the points are not on the unit sphere or a degree is negative.

    Example:
      >>> import numpy as np
      >>> zonal(np.eye(3), {1: 1.0, 2: 2.0})
      array([ 3., -1., -1.])
    """
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or x.shape[1] < 2:
        raise ValueError(f"x must have shape (n, d) with d ≥ 2, got shape {x.shape}.")
    if not np.allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5):
        raise ValueError("x must hold points of norm 1. Pass data.unit_norm(x).")
    order = (x.shape[1] - 2) / 2
    values = np.zeros(len(x))
    for degree, coefficient in coefficients.items():
        degree = _size(degree, "degree", 0)
        if order == 0:  # The circle, where the Gegenbauer polynomials vanish.
            polynomial = scipy.special.eval_chebyt(degree, x[:, 0])
        else:
            polynomial = scipy.special.eval_gegenbauer(degree, order, x[:, 0])
            polynomial = polynomial / scipy.special.eval_gegenbauer(degree, order, 1.0)
        values += coefficient * polynomial
    return values


def load(
    n_train: int,
    n_test: int,
    dim: int,
    coefficients: Mapping[int, float],
    *,
    noise: float = 0.0,
    seed: int = 0,
) -> Dataset:
    """Uniform points on the sphere, with the target `zonal` and noisy training data.

    Args:
      n_train: the number of training points.
      n_test: the number of test points.
      dim: d, at least 2.
      coefficients: of the target, by degree.
      noise: standard deviation of the Gaussian noise added to the training targets.
      seed: of the random numbers.

    Raises:
      ValueError: if a size is too small or `noise` is negative or not finite.

    Example:
      >>> points = load(100, 50, dim=3, coefficients={1: 1.0}, noise=0.1)
      >>> points.x_train.shape, points.y_test.shape
      ((100, 3), (50,))
    """
    if not (np.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise must be finite and ≥ 0, got {noise}.")
    generator = np.random.default_rng(seed)
    dim = _size(dim, "dim", 2)
    x_train = _uniform(_size(n_train, "n_train", 1), dim, generator)
    x_test = _uniform(_size(n_test, "n_test", 1), dim, generator)
    y_train = zonal(x_train, coefficients)
    y_train += noise * generator.standard_normal(len(y_train))
    return Dataset(x_train, y_train, x_test, zonal(x_test, coefficients))


def _uniform(n: int, dim: int, generator: np.random.Generator) -> np.ndarray:
    gaussian = generator.standard_normal((n, dim))
    return gaussian / np.linalg.norm(gaussian, axis=1, keepdims=True)


def _size(value: int, name: str, least: int) -> int:
    size = operator.index(value)
    if size < least:
        raise ValueError(f"{name} must be at least {least}, got {size}.")
    return size
