"""Gradient flow on the squared loss: kernel regression with a stopping time."""

import dataclasses
import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True, eq=False)
class GradientFlow:
    r"""Kernel regression trained by gradient flow for a time t, from f_0 = 0.

        f_t(x) = k(x, X) K^{-1} (I − exp(−t K/n)) y

    is the solution of gradient flow on the loss (1/2n) Σ_i |f(x_i) − y_i|². Gradient
    descent with step η has t = η · steps. t = ∞ interpolates.

    One symmetric eigendecomposition, in float64 on the host, serves every time.
    Eigenvalues that rounding of the kernel's entries can produce, those below
    ε √n max_i K_ii with ε of the dtype of K, are taken to be zero, and nothing is
    learned along them; so t = ∞ is the interpolant of least norm.

    `neural_tangents.predict.gradient_descent_mse` averages its loss over the
    outputs too: its time is this time multiplied by the number of outputs.

    Attributes:
      eigenvalues: those kept, shape (r,), descending.
      eigenvectors: shape (n, r).
      targets: the targets in the eigenbasis, shape (r, n_outputs).
      vector_targets: whether `y` had one dimension, and predictions leave it out too.

    Example:
      >>> import numpy as np
      >>> from nt_residual import rntk, schedules
      >>> kernel = rntk.ResidualKernel(1000, schedules.PowerLaw(0.5))
      >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
      >>> flow = GradientFlow.fit(kernel(x), np.array([1.0, 0.0, -1.0]))
      >>> flow.predict(kernel(x), t=math.inf).round(5) + 0.0
      array([ 1.,  0., -1.], dtype=float32)
    """

    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    targets: np.ndarray
    vector_targets: bool

    @classmethod
    def fit(
        cls, k_train: ArrayLike, y: ArrayLike, *, solver: Literal["auto", "eigh"] = "auto"
    ) -> "GradientFlow":
        """Factorises the kernel of the training inputs.

        Args:
          k_train: kernel of the training inputs, shape (n, n), symmetric and
            positive semi-definite up to rounding.
          y: targets, shape (n,) or (n, n_outputs), numbers.
          solver: 'eigh', a dense eigendecomposition of cost O(n³) in time and
            O(n²) in memory; 'auto' chooses it.

        Raises:
          TypeError: if an argument does not hold real numbers.
          ValueError: if a shape is wrong, the number of targets differs from n, a
            value is NaN or infinite, `k_train` is not symmetric or has a clearly
            negative eigenvalue, or the solver is unknown.
        """
        if solver not in ("auto", "eigh"):
            raise ValueError(f"solver must be 'auto' or 'eigh', got {solver!r}.")
        epsilon = float(jnp.finfo(_float_dtype(k_train)).eps)
        kernel = real_array(k_train, "k_train")
        if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.size == 0:
            raise ValueError(
                f"k_train must have shape (n, n), n ≥ 1, got shape {kernel.shape}. "
                "Pass kernel(x_train)."
            )
        n = kernel.shape[0]
        outputs = real_array(y, "y")
        if outputs.ndim not in (1, 2) or outputs.shape[0] != n or outputs.size == 0:
            raise ValueError(
                f"y must have shape (n,) or (n, n_outputs) with n = {n}, the size of k_train, "
                f"got shape {outputs.shape}. Pass one target per training input."
            )
        tolerance = epsilon * math.sqrt(n) * float(np.max(np.diagonal(kernel)))
        _check_symmetric(kernel, tolerance)

        # float64: at float32 the error of a small eigenvalue exceeds the eigenvalue.
        # Divide and conquer is the fastest driver where all eigenvectors are wanted.
        values, vectors = scipy.linalg.eigh(kernel, driver="evd")
        if values[0] < -math.sqrt(epsilon) * values[-1] or values[-1] <= 0:
            raise ValueError(
                "k_train must be positive semi-definite, got eigenvalues from "
                f"{values[0]:.3g} to {values[-1]:.3g}. Check that it is kernel(x_train)."
            )
        kept = slice(None, -1 - int(np.sum(values > tolerance)), -1)
        vectors = vectors[:, kept]
        targets = vectors.T @ outputs.reshape(n, -1)
        return cls(values[kept], vectors, targets, vector_targets=outputs.ndim == 1)

    def predict(self, k_test_train: ArrayLike, t: ArrayLike) -> np.ndarray:
        """The predictions at one or many times.

        Args:
          k_test_train: kernel between new and training inputs, shape (n_test, n).
          t: the training time, ≥ 0, dimensionless; a scalar or shape (T,). `math.inf`
            is allowed.

        Returns:
          Shape (n_test, n_outputs), or (T, n_test, n_outputs) for a vector of times,
          without the last axis where `y` had one dimension. The dtype of
          `k_test_train` if that is a float dtype, else float64.

        Raises:
          TypeError: if an argument does not hold real numbers.
          ValueError: if a shape is wrong, a value is NaN, or a time is negative.
        """
        dtype = _float_dtype(k_test_train)
        kernel = real_array(k_test_train, "k_test_train")
        n = self.eigenvectors.shape[0]
        if kernel.ndim != 2 or kernel.shape[1] != n:
            raise ValueError(
                f"k_test_train must have shape (n_test, {n}), one column per training input, got "
                f"shape {kernel.shape}. Pass kernel(x_test, x_train)."
            )
        times = _times(t)
        projected = kernel @ self.eigenvectors
        predictions = np.stack(
            [projected @ (self._filter(time)[:, None] * self.targets) for time in times.ravel()]
        ).astype(dtype)
        if self.vector_targets:
            predictions = predictions[..., 0]
        return predictions if times.ndim else predictions[0]

    @property
    def n_train(self) -> int:
        """The number of training inputs."""
        return self.eigenvectors.shape[0]

    def _filter(self, time: float) -> np.ndarray:
        """(1 − exp(−tλ/n))/λ: by how much each eigendirection has been fitted."""
        with np.errstate(over="ignore"):
            return -np.expm1(-time * self.eigenvalues / self.n_train) / self.eigenvalues


def real_array(values: ArrayLike, name: str) -> np.ndarray:
    """Returns `values` in float64, refused if they are not finite real numbers."""
    array = _numbers(values, name)
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name} must be finite, got {int(np.sum(~np.isfinite(array)))} values that are NaN or "
            "infinite. Check the data it was computed from."
        )
    return array


def _numbers(values: ArrayLike, name: str) -> np.ndarray:
    """Returns `values` in float64, refused if they are not real numbers."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise TypeError(f"{name} must be an array of real numbers: {error}") from None
    if array.dtype != bool and (
        not jnp.issubdtype(array.dtype, np.number)
        or jnp.issubdtype(array.dtype, np.complexfloating)
    ):
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}.")
    return array.astype(np.float64)


def _float_dtype(k: ArrayLike) -> np.dtype:
    """The dtype of `k` if it is a float dtype; integers and lists count as float64."""
    dtype = np.dtype(getattr(k, "dtype", np.float64))
    return dtype if jnp.issubdtype(dtype, np.floating) else np.dtype(np.float64)


def _times(t: ArrayLike) -> np.ndarray:
    times = _numbers(t, "t")
    if times.ndim > 1 or times.size == 0:
        raise ValueError(f"t must be a scalar or have shape (T,), T ≥ 1, got shape {times.shape}.")
    if not np.all(times >= 0):
        raise ValueError(f"t must be ≥ 0 and not NaN, got {t!r}. math.inf is the interpolant.")
    return times


def _check_symmetric(kernel: np.ndarray, tolerance: float) -> None:
    # Entries computed in another order differ in the last bits: 100 of them are allowed.
    asymmetry = float(np.max(np.abs(kernel - kernel.T)))
    if asymmetry > 100 * tolerance:
        raise ValueError(
            f"k_train must be symmetric, got |K − Kᵀ| up to {asymmetry:.3g}. Pass kernel(x_train); "
            "a kernel between different inputs belongs in predict."
        )
