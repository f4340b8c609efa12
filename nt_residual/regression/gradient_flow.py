"""Gradient flow on the squared loss: kernel regression with a stopping time."""

import dataclasses
import warnings
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks, gram
from nt_residual.gram.sharded import no_mesh
from nt_residual.regression import arguments, kernel_matrix, predictions
from nt_residual.regression.automatic import Automatic
from nt_residual.regression.eigh import Eigh
from nt_residual.regression.lanczos import Lanczos
from nt_residual.regression.projected import Projected
from nt_residual.regression.solution import Solution

# Up to the first size an eigendecomposition takes at most a quarter of the time that compiling
# 'lanczos' takes; up to the second, about that time.
_LARGEST_EIGH, _LARGEST_AUTOMATIC = 1000, 2000


@dataclasses.dataclass(frozen=True, eq=False)
class GradientFlow:
    r"""Kernel regression trained by gradient flow for a time t, from f_0 = 0.

        f_t(x) = k(x, X) (K + δI)^{-1} (I − exp(−t (K + δI)/n)) y

    is gradient flow on the loss (1/2n) (Σ_i |f(x_i) − y_i|² + δ ‖f‖²), with ‖f‖ the norm in the
    kernel's RKHS and a ridge δ ≥ 0. Gradient descent with step η has t = η · steps (see
    `time_of_steps`). t = ∞ interpolates; with a ridge it is kernel ridge regression, the posterior
    mean of a Gaussian process with noise of variance δ. `fit(…, center_targets=True)` starts from
    f_0 = mean(y) instead.

    Both solvers prepare once and then serve every time at little cost. On one core, n = 1000 takes
    'eigh' 0.15 s and n = 2000 1.1 s; 'lanczos' takes 0.02 and 0.05 s for 10 outputs, and 0.8 s to
    compile.

    - 'eigh': one eigendecomposition in float64 on the host, O(n³) in time and O(n²) in memory.
    - 'lanczos': orthonormal Krylov bases, one for each output, on the device: some tens of
      products with K for moderate times, more for later ones. The bases grow until a bound on the
      error of the predictions is at most `tol`. Where float32 vectors do not reach that, they are
      computed again in float64; K keeps its dtype. Interpolation with an ill-conditioned kernel
      may need too many products: then `solve` returns 'not converged', and `predict` warns.
    - 'landmarks', for a `gram.LowRank`: one eigendecomposition in as many dimensions as it has
      landmarks, after one pass over the inputs.

    Directions whose eigenvalue of K + δI may be mere rounding are not learned, so t = ∞ is the
    interpolant of least norm. These are eigenvalues below ε √n max_i K_ii, with ε of the dtype of
    K, or below the solver's own rounding: λ_max times n ε of float64, or times ε of float32 where
    'lanczos' computes in that.

    Attributes:
      ridge: δ.
      offset: f_0, the mean of the targets with `center_targets` and else 0, float64, shape
        (n_outputs,), or a scalar where `y` had one dimension.

    Example:
      >>> import math
      >>> import numpy as np
      >>> from nt_residual import rntk, schedules
      >>> kernel = rntk.ResidualKernel(1000, schedules.PowerLaw(0.5))
      >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
      >>> flow = GradientFlow.fit(kernel(x), np.array([1.0, 0.0, -1.0]))
      >>> flow.predict(kernel(x), t=math.inf).round(5) + 0.0
      array([ 1.,  0., -1.])
    """

    ridge: float
    offset: np.ndarray
    _one_output: bool  # y had one dimension, and predictions have none for outputs.
    _solver: Eigh | Lanczos | Automatic

    def __repr__(self) -> str:
        n = self.n_train
        return f"GradientFlow(n_train={n}, solver={self.solver!r}, ridge={self.ridge:g})"

    @classmethod
    @no_mesh()
    def fit(
        cls,
        k_train: ArrayLike | gram.MatrixFree | gram.Sharded | gram.Stored | gram.LowRank,
        y: ArrayLike,
        *,
        solver: Literal["auto", "eigh", "lanczos"] = "auto",
        ridge: float = 0.0,
        center_targets: bool | None = None,
        tol: float = 1e-4,
        max_iterations: int | None = None,
        progress: bool = False,
    ) -> "GradientFlow":
        """Prepare training with the kernel of the training inputs.

        Args:
          k_train: kernel of the training inputs, shape (n, n), symmetric and positive
            semi-definite up to rounding; or, projected onto landmarks, a `gram.LowRank`. An array
            may be sharded.
          y: targets, shape (n,) or (n, n_outputs), numbers.
          solver: 'auto' chooses 'eigh' for matrices in memory of up to 1000 inputs. For those of
            up to 2000 it begins with 'lanczos', and changes to 'eigh' when that is worth its cost:
            for times after 10⁴/mean(K_ii), where 'lanczos' does not converge, and for
            `degrees_of_freedom`, `leave_one_out` and `time_grid`. It chooses 'lanczos' for all
            others. 'eigh' converts any matrix to an array. A `gram.LowRank` has its own,
            'landmarks'.
          ridge: δ ≥ 0.
          center_targets: whether the flow starts from f_0 = mean(y), for each output, instead of
            f_0 = 0. `None` is False, with a warning where the mean is large.
          tol: 'lanczos' continues until `Solution.residual` is at most this. Errors at new inputs
            may be larger.
          max_iterations: the most products with K that 'lanczos' makes; `None` for 1000. Its
            bases take that many vectors per output.
          progress: whether 'lanczos' shows a progress bar, in all methods.

        Raises:
          MemoryError: if what the solver needs does not fit.
          TypeError: if an argument does not hold real numbers, or an option has another type.
          ValueError: if a shape is wrong, a value is NaN or infinite, `k_train` is not symmetric
            or has a clearly negative eigenvalue, or an option is out of range.

        Warns:
          UserWarning: if `center_targets` is `None` and the mean of the targets, unless they
            have two values only, is larger than their standard deviation.
        """
        projected = isinstance(k_train, gram.LowRank)
        kernel = k_train if projected else kernel_matrix.checked(k_train, "k_train")
        targets = arguments.check_targets(y, kernel.shape[0])
        _checks.choice(solver, "solver", ("auto", "eigh", "lanczos"))
        ridge = _checks.number(ridge, "ridge")
        options = {
            "tol": _checks.number(tol, "tol", positive=True),
            "max_iterations": _checks.optional_integer(
                max_iterations, "max_iterations", "Or pass None."
            ),
            "progress": _checks.boolean(progress, "progress"),
        }
        center = arguments.check_centering(targets, center_targets, stacklevel=4)
        # The first one makes the mean of targets that are all alike exact.
        offset = np.asarray((targets[0] + np.mean(targets - targets[0], axis=0)) * center)
        columns = (targets - offset).reshape(len(targets), -1)
        dtype = kernel_matrix.float_dtype(kernel)
        in_memory = isinstance(kernel, np.ndarray | jax.Array) and not kernel_matrix.is_sharded(
            kernel
        )
        if isinstance(kernel, gram.LowRank):
            if solver != "auto":
                raise ValueError(
                    f"solver must be 'auto' for a gram.LowRank, got {solver!r}. Leave it out."
                )
            fitted = Projected(kernel, columns, ridge=ridge, centered=center)
        elif solver == "eigh" or (
            solver == "auto" and in_memory and kernel.shape[0] <= _LARGEST_EIGH
        ):
            matrix = kernel_matrix.on_host(kernel)
            fitted = Eigh(matrix, columns, ridge=ridge, dtype=dtype, centered=center)
        else:
            with predictions.precision(dtype):
                operator = kernel_matrix.operator(kernel)
            if solver == "auto" and in_memory and kernel.shape[0] <= _LARGEST_AUTOMATIC:
                options |= {"ridge": ridge, "centered": center}
                fitted = Automatic(kernel, operator, columns, **options)
            else:
                fitted = Lanczos(operator, columns, ridge=ridge, **options)
        return cls(ridge, offset, targets.ndim == 1, fitted)

    @no_mesh()
    def predict(
        self,
        k_test_train: ArrayLike | gram.MatrixFree | gram.Sharded | gram.Stored,
        t: ArrayLike,
    ) -> np.ndarray:
        """Return the predictions at one or many times.

        Args:
          k_test_train: kernel between new and training inputs, shape (n_test, n): an array, or
            for instance `gram.MatrixFree(kernel, x_test, x_train)`. For a flow fitted to a
            `gram.LowRank` its landmarks take the place of the training inputs: (n_test, M).
          t: the training time, ≥ 0, dimensionless; a scalar or shape (T,), not decreasing.
            `math.inf` is allowed.

        Returns:
          Shape (n_test, n_outputs), or (T, n_test, n_outputs) for a vector of times,
          without the last axis where `y` had one dimension, float64.

        Raises:
          TypeError: if an argument does not hold real numbers.
          ValueError: if a shape is wrong, a value is NaN, or a time is negative or less than
            the one before it.

        Warns:
          RuntimeWarning: if the predictions at the training points are not known to `tol`: see
            `Solution.residual`.
        """
        return self._predict(k_test_train, arguments.check_times(t), "k_test_train")

    def _predict(self, kernel: Any, times: np.ndarray, name: str) -> np.ndarray:
        """Return `predict` at times that were checked, for a kernel that has this name."""
        kernel = kernel_matrix.checked(kernel, name, self._n_coefficients)
        self._warn_unless_known(times, stacklevel=5)
        c = np.moveaxis(self._solver.coefficients(times.ravel()), 0, 1).reshape(kernel.shape[1], -1)
        # The solver's dtype may not hold c, but holds numbers up to 1.
        sizes = np.max(np.abs(c), axis=0)
        sizes = np.where(sizes > 0, sizes, 1)
        columns = (c / sizes).astype(self._solver.dtype)
        # The times are side by side: one product serves all of them.
        flat = predictions.product(kernel, columns, name) * sizes
        values = np.moveaxis(flat.reshape(len(flat), times.size, -1), 1, 0) + self.offset
        return self._shaped(values, times)

    @no_mesh()
    def solve(self, t: ArrayLike) -> Solution:
        """Return the dual coefficients c_t: predictions are k(x, X) c_t + `offset`.

        They come in float64, with their status and an estimate of their error. For a flow fitted
        to a `gram.LowRank` they belong to its landmarks. Times `t` and their errors are as for
        `predict`.

        Example:
          >>> import numpy as np
          >>> flow = GradientFlow.fit(2 * np.eye(2), np.array([1.0, -1.0]), solver="lanczos")
          >>> solution = flow.solve([1.0, np.inf])
          >>> solution.status, solution.value.round(2)
          ('converged', array([[ 0.32, -0.32], [ 0.5 , -0.5 ]]))
        """
        times = arguments.check_times(t)
        residual, advice = self._solver.errors(times.ravel())
        return Solution(
            value=self._shaped(self._solver.coefficients(times.ravel()), times),
            times=times,
            status="not converged" if advice else "converged",
            message=advice,
            iterations=self._solver.iterations,
            residual=residual if times.ndim else residual[0],
        )

    @no_mesh()
    def training_error(self, t: ArrayLike) -> np.ndarray:
        """Return the mean squared residual over training points and outputs.

        For times `t` as in `predict` it is a scalar or shape (T,), float64, with its warnings.
        """
        times = arguments.check_times(t)
        self._warn_unless_known(times, stacklevel=4)
        errors = self._solver.training_error(times.ravel())
        return errors if times.ndim else errors[0]

    def degrees_of_freedom(self, t: ArrayLike) -> np.ndarray:
        """Return the trace of S_t = K (K + δI)^{-1} (I − exp(−t (K + δI)/n)), f_t = S_t y.

        With `center_targets` the mean is fitted too, and S_t becomes J + S_t (I − J), J = 11ᵀ/n.
        For times `t` as in `predict` it is between 0 and n, a scalar or shape (T,), float64.

        Raises:
          ValueError: if the solver is 'lanczos', which does not know all eigenvalues, and 'auto'
            cannot change it.
        """
        times = arguments.check_times(t)
        traces = self._eigh("degrees_of_freedom").degrees_of_freedom(times.ravel())
        return traces if times.ndim else traces[0]

    def leave_one_out(self, t: ArrayLike) -> np.ndarray:
        """Return the prediction of each training point by training on all others.

        It is exact at every time. The loss is
        (1/2n) Σ_{j≠i} |f(x_j) − y_j|²: its time is that of a flow fitted to n − 1 points
        multiplied by n/(n − 1). With `center_targets` the mean is that of the others. Times and
        shapes are as for `predict`.

        Raises:
          ValueError: as `degrees_of_freedom`, or with `center_targets` and one point only.
        """
        times = arguments.check_times(t)
        values = self._eigh("leave_one_out").leave_one_out(times.ravel())
        return self._shaped(values + self.offset, times)

    def spectral_range(self) -> tuple[float, float]:
        """Return the smallest and the largest eigenvalue of K + δI that the solver uses.

        With 'lanczos' these are Ritz values.
        """
        smallest, largest = self._solver.spectral_range()
        return float(smallest), float(largest)

    @property
    def solver(self) -> Literal["eigh", "lanczos", "landmarks"]:
        """The solver in use. With 'auto' it may change from 'lanczos' to 'eigh'."""
        if isinstance(self._solver, Automatic):
            return "eigh" if self._solver.decomposed else "lanczos"
        if isinstance(self._solver, Projected):
            return "landmarks"
        return "eigh" if isinstance(self._solver, Eigh) else "lanczos"

    @property
    def n_train(self) -> int:
        """The number of training inputs."""
        return self._solver.n_train

    def _decompose(self) -> None:
        """Use 'eigh' from now on, if 'auto' has not decided yet."""
        if isinstance(self._solver, Automatic):
            _ = self._solver.eigh

    @property
    def landmarks(self) -> np.ndarray | None:
        """The landmarks of a flow fitted to a `gram.LowRank`."""
        return self._solver.landmarks if isinstance(self._solver, Projected) else None

    @property
    def _n_coefficients(self) -> int:
        return self.n_train if self.landmarks is None else len(self.landmarks)

    def _eigh(self, name: str) -> Eigh:
        if isinstance(self._solver, Automatic):
            return self._solver.eigh
        if not isinstance(self._solver, Eigh):
            raise ValueError(
                f"{name} needs all eigenvalues, and the solver is {self.solver!r}. Pass "
                "solver='eigh' to fit, or a gram.LowRank."
            )
        return self._solver

    def _warn_unless_known(self, times: np.ndarray, stacklevel: int) -> None:
        _, advice = self._solver.errors(times.ravel())
        if advice:
            warnings.warn(advice, RuntimeWarning, stacklevel=stacklevel)

    def _shaped(self, values: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Drop the axis of outputs where `y` had none, and that of times where `t` was a scalar."""
        values = values[..., 0] if self._one_output else values
        return values if times.ndim else values[0]
