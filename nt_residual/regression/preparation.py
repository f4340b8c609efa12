"""Inputs as the kernels of networks without biases want them: centered, with a constant feature."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Preparation:
    """Subtracts a mean, divides by a length, and appends a constant feature.

    Without a constant feature a row that is equal to the mean up to rounding has no direction. The
    network, which has no other biases, gives 0 there whatever its parameters; so such a row is
    left out, rather than have the direction of its rounding errors.

    Attributes:
      mean: shape (d,), float64.
      scale: the root mean square length of the centered training rows.
      bias: the value of the feature that is appended, 0 for none.
      normalize: whether to divide rows, with that feature, by their lengths.
      dtype: of the prepared rows.
    """

    mean: np.ndarray
    scale: float
    bias: float
    normalize: bool
    dtype: np.dtype

    @classmethod
    def fit(
        cls, x: np.ndarray, *, center: bool, bias: float, normalize: bool, dtype: np.dtype
    ) -> "Preparation":
        """Return the preparation of training inputs of shape (n, d)."""
        mean = np.zeros(x.shape[1])
        if center:
            # Of differences, so that the mean of equal rows is that row at any n.
            first = x[0].astype(np.float64)
            mean = first + (x - first).mean(axis=0)
        centered, kept = _differences(x, mean)
        scale = 1.0
        if kept.any():
            # In two steps, neither of which overflows.
            largest = np.max(np.abs(centered))
            scale = largest * math.sqrt(np.mean(np.sum((centered / largest) ** 2, axis=1)))
        return cls(mean, float(scale), float(bias), normalize, dtype)

    @property
    def n_features(self) -> int:
        """The number of features of prepared rows."""
        return len(self.mean) + (self.bias > 0)

    def apply(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prepare inputs.

        Args:
          x: shape (n, d), finite floats.

        Returns:
          The prepared rows, shape (m, n_features), without those that have no direction; and which
          of the rows of `x` these are, shape (n,), bool.

        Raises:
          ValueError: if a row leaves the range of the dtype.
        """
        rows, kept = _differences(x, self.mean)
        if self.bias > 0:
            rows = np.column_stack([rows / self.scale, np.full(len(rows), self.bias)])
            kept = np.ones(len(rows), bool)
        else:
            rows = rows[kept] / self.scale
        largest = np.max(np.abs(rows), axis=1)
        if self.normalize:
            # In two steps, neither of which overflows.
            rows /= largest[:, None]
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        elif kept.any():
            self._check_range(math.sqrt(rows.shape[1]) * largest)
        return rows.astype(self.dtype), kept

    def _check_range(self, lengths: np.ndarray) -> None:
        limits = np.finfo(self.dtype)
        if lengths.max() ** 2 > limits.max or lengths.min() ** 2 < limits.tiny:
            raise ValueError(
                f"X must have rows whose squared lengths {self.dtype} can hold, got lengths from "
                f"{lengths.min():.3g} to {lengths.max():.3g}, in units of the root mean square "
                "length in training. Pass normalize_inputs=True."
            )


def _differences(x: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows minus the mean in float64, and which of them are more than rounding."""
    differences = x - mean
    scale = np.maximum(np.max(np.abs(x), axis=1), np.max(np.abs(mean)))
    # Sums of n numbers round to √n ε or less; √n is not known here, and 100 is plenty.
    kept = np.max(np.abs(differences), axis=1) > 100 * np.finfo(np.float64).eps * scale
    return differences, kept
