"""Inputs as the kernels of networks without biases want them: centred, of unit length."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Preparation:
    """Subtracts a mean, and divides rows by their lengths.

    A row that is equal to the mean up to rounding has no direction. The network, which has no
    biases, gives 0 there whatever its parameters; so such a row is left out, rather than have the
    direction of its rounding errors.

    Attributes:
      mean: shape (d,), float64.
      normalize: whether to divide rows by their lengths.
      dtype: of the prepared rows.
    """

    mean: np.ndarray
    normalize: bool
    dtype: np.dtype

    @classmethod
    def fit(cls, x: np.ndarray, *, center: bool, normalize: bool, dtype: np.dtype) -> "Preparation":
        """The preparation of training inputs of shape (n, d)."""
        mean = np.zeros(x.shape[1])
        if center:
            # Of differences, so that the mean of equal rows is that row at any n.
            first = x[0].astype(np.float64)
            mean = first + (x - first).mean(axis=0)
        return cls(mean, normalize, dtype)

    def apply(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prepares inputs.

        Args:
          x: shape (n, d), finite floats.

        Returns:
          The prepared rows, shape (m, d), without those that have no direction; and which of
          the rows of `x` these are, shape (n,), bool.

        Raises:
          ValueError: if a row leaves the range of the dtype.
        """
        centred = x - self.mean
        largest = np.max(np.abs(centred), axis=1)
        scale = np.maximum(np.max(np.abs(x), axis=1), np.max(np.abs(self.mean)))
        # Sums of n numbers round to √n ε or less; √n is not known here, and 100 is plenty.
        kept = largest > 100 * np.finfo(np.float64).eps * scale
        rows = centred[kept]
        if self.normalize:
            # In two steps, neither of which overflows.
            rows /= largest[kept, None]
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        elif kept.any():
            self._check_range(math.sqrt(x.shape[1]) * largest[kept])
        return rows.astype(self.dtype), kept

    def _check_range(self, lengths: np.ndarray) -> None:
        limits = np.finfo(self.dtype)
        if lengths.max() ** 2 > limits.max or lengths.min() ** 2 < limits.tiny:
            raise ValueError(
                f"X must have rows whose squared lengths {self.dtype} can hold, got lengths from "
                f"{lengths.min():.3g} to {lengths.max():.3g}. Scale X, or pass "
                "normalize_inputs=True."
            )
