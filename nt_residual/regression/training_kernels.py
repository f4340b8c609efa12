"""The kernel of an estimator's training rows: a matrix, or projected onto landmarks."""

from typing import Any

import numpy as np

from nt_residual import gram, memory
from nt_residual.regression import kernel_tiles
from nt_residual.regression.gradient_flow import GradientFlow
from nt_residual.regression.predictions import precision
from nt_residual.rntk import ResidualKernel


class KernelMatrix:
    """The whole matrix in memory."""

    stored = True

    def __init__(self, kernel: ResidualKernel, x: np.ndarray):
        remedy = "Pass landmarks=4000, or train on fewer rows, in float32."
        memory.check(_parts(x), memory.available(), "this machine", remedy)
        self.matrix = kernel_tiles.matrix(kernel, x)

    @staticmethod
    def fits(x: np.ndarray) -> bool:
        """Return whether there is memory for it."""
        return sum(_parts(x).values()) <= memory.available()

    def flow(self, targets: np.ndarray, rows: Any = None, **options: Any) -> GradientFlow:
        """Return the flow of all rows, or of some."""
        k = self.matrix if rows is None else self.matrix[np.ix_(rows, rows)]
        return GradientFlow.fit(k, targets, **options)

    def between(self, new: np.ndarray, rows: np.ndarray, flow: GradientFlow) -> np.ndarray:
        """Return the kernel between rows and those of a flow."""
        return self.matrix[np.ix_(new, rows)]


class ProjectedKernel:
    """The kernel projected onto some of the rows."""

    stored = False

    def __init__(self, kernel: ResidualKernel, x: np.ndarray, landmarks: int, seed: int):
        self._kernel, self._x, self._seed = kernel, x, seed
        self._landmarks = landmarks

    def flow(self, targets: np.ndarray, rows: Any = None, **options: Any) -> GradientFlow:
        """Return the flow of all rows, or of some, each with landmarks of its own."""
        x = self._x if rows is None else self._x[rows]
        count = self._landmarks if rows is None else min(self._landmarks, len(x))
        with precision(x.dtype):
            low_rank = gram.LowRank(self._kernel, x, count, seed=self._seed)
            return GradientFlow.fit(low_rank, targets, **options)

    def between(self, new: np.ndarray, rows: np.ndarray, flow: GradientFlow) -> Any:
        """Return the kernel between rows and the landmarks of a flow."""
        with precision(self._x.dtype):
            return gram.MatrixFree(self._kernel, self._x[new], flow.landmarks)


def _parts(x: np.ndarray) -> dict[str, int]:
    size = x.itemsize * len(x) ** 2
    # Parts of it for the choice of the time, and the solver's own.
    return {"the kernel matrix": size, "copies of it": 3 * size // 2}
