"""Gradient flow on the squared loss: kernel regression with a stopping time."""

import dataclasses
import warnings
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import ArrayLike

from nt_residual import gram
from nt_residual.gram.inputs import check_count
from nt_residual.gram.sharded import no_mesh
from nt_residual.regression import inputs, products, solvers, training_kernel
from nt_residual.regression.eigh import Eigh
from nt_residual.regression.inputs import real_array as real_array
from nt_residual.regression.lanczos import Lanczos
from nt_residual.regression.solution import Solution


@dataclasses.dataclass(frozen=True, eq=False)
class GradientFlow:
    r"""Kernel regression trained by gradient flow for a time t, from f_0 = 0.

        f_t(x) = k(x, X) (K + δI)^{-1} (I − exp(−t (K + δI)/n)) y

    is the solution of gradient flow on the loss (1/2n) (Σ_i |f(x_i) − y_i|² + δ ‖f‖²), ‖f‖ the
    norm in the kernel's RKHS; without a ridge, δ = 0, on the squared loss alone. Gradient
    descent with step η has t = η · steps. t = ∞ interpolates; with a ridge it is
    kernel ridge regression, and the posterior mean of Gaussian process regression with noise
    of variance δ.

    There are two solvers, and both serve every time after the first at little cost.

    - 'eigh', one symmetric eigendecomposition, in float64 on the host: O(n³) in time and
      O(n²) in memory.
    - 'lanczos', orthonormal Krylov bases, one for each output, on the device: some tens of
      products with K for moderate times, more for later ones. They grow until the predictions at
      the times asked for are known to `tol`, which a bound on the error tells, and are
      kept. Interpolation with an ill-conditioned kernel may need too many; `solve` says so, and
      `predict` warns.

    Eigenvalues of K + δI that rounding can produce are taken to be zero, and nothing is
    learned along them; so t = ∞ is the interpolant of least norm. They are those below
    ε √n max_i K_ii, with ε of the dtype of K, or below the solver's own rounding of λ_max: n ε
    of float64, or ε where 'lanczos' computes in float32.

    `neural_tangents.predict.gradient_descent_mse` averages its loss over the
    outputs too: its time is this time multiplied by the number of outputs.

    Attributes:
      ridge: δ.
      reason: why the solver is the one that it is.
      vector_targets: whether `y` had one dimension, and predictions leave it out too.

    Example:
      >>> import math
      >>> import numpy as np
      >>> from nt_residual import rntk, schedules
      >>> kernel = rntk.ResidualKernel(1000, schedules.PowerLaw(0.5))
      >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
      >>> flow = GradientFlow.fit(kernel(x), np.array([1.0, 0.0, -1.0]))
      >>> flow.predict(kernel(x), t=math.inf).round(5) + 0.0
      array([ 1.,  0., -1.], dtype=float32)
    """

    ridge: float
    reason: str
    vector_targets: bool
    _solver: Eigh | Lanczos
    _kernel: gram.MatrixFree | None

    @classmethod
    @no_mesh()
    def fit(
        cls,
        k_train: ArrayLike | gram.MatrixFree | gram.Stored,
        y: ArrayLike,
        *,
        solver: Literal["auto", "eigh", "lanczos"] = "auto",
        ridge: float = 0.0,
        tol: float = 1e-4,
        max_iterations: int | None = None,
        progress: bool = False,
    ) -> "GradientFlow":
        """Prepares training with the kernel of the training inputs.

        Args:
          k_train: kernel of the training inputs, shape (n, n), symmetric and
            positive semi-definite up to rounding: an array of NumPy or JAX, which may be
            sharded, or a `gram.MatrixFree` or `gram.Stored`.
          y: targets, shape (n,) or (n, n_outputs), numbers.
          solver: 'auto' chooses 'eigh' for matrices in memory of up to 2000 inputs, 'lanczos'
            for all others. 'eigh' makes an array of any matrix.
          ridge: δ ≥ 0.
          tol: the error of predictions that 'lanczos' aims at, as `Solution.residual` defines
            it: root mean square, at the training points. At new inputs it may be larger.
          max_iterations: the most products with K that 'lanczos' makes; `None` for 1000. Its
            bases take that many vectors per output.
          progress: whether 'lanczos' shows a progress bar, now and later.

        Raises:
          MemoryError: if what the solver needs does not fit.
          TypeError: if an argument does not hold real numbers.
          ValueError: if a shape is wrong, the number of targets differs from n, a
            value is NaN or infinite, `k_train` is not symmetric or has a clearly
            negative eigenvalue, an option is out of range, or the solver is unknown.
        """
        kernel = training_kernel.check(k_train)
        targets = inputs.check_targets(y, kernel.shape[0])
        name, reason = solvers.choose(solver, kernel)
        ridge = inputs.check_number(ridge, "ridge", positive=False)
        fitted = solvers.fit(
            name,
            kernel,
            targets.reshape(len(targets), -1),
            ridge=ridge,
            tol=inputs.check_number(tol, "tol", positive=True),
            max_iterations=check_count(max_iterations, "max_iterations"),
            progress=progress,
        )
        data = kernel if isinstance(kernel, gram.MatrixFree) else None
        return cls(ridge, reason, targets.ndim == 1, fitted, data)

    @no_mesh()
    def predict(
        self,
        k_test_train: ArrayLike | gram.Stored | None = None,
        t: ArrayLike | None = None,
        *,
        kernel: Any = None,
        x_test: ArrayLike | None = None,
        x_train: ArrayLike | None = None,
        tile_size: int | None = None,
        progress: bool = False,
    ) -> np.ndarray:
        """The predictions at one or many times.

        Args:
          k_test_train: kernel between new and training inputs, shape (n_test, n): an array,
            which may be sharded, or a `gram.Stored`. Instead of it, `x_test` may be passed.
          t: the training time, ≥ 0, dimensionless; a scalar or shape (T,), not decreasing.
            `math.inf` is allowed.
          kernel: a kernel as for `gram.compute`, of which tiles are made and used one by
            one; `None` for that of the `gram.MatrixFree` that the flow was fitted with.
          x_test: new inputs, shape (n_test, …).
          x_train: the training inputs, shape (n, …); `None` as for `kernel`.
          tile_size: the largest side of a tile; `None` picks one.
          progress: whether to show a progress bar over tiles.

        Returns:
          Shape (n_test, n_outputs), or (T, n_test, n_outputs) for a vector of times,
          without the last axis where `y` had one dimension. The dtype of
          `k_test_train` if that is a float dtype, else float64; of tiles, that of the kernel.

        Raises:
          TypeError: if an argument is missing, has nothing to do, or does not hold real numbers.
          ValueError: if a shape is wrong, a value is NaN, or a time is negative or less than
            the one before it.

        Warns:
          RuntimeWarning: if the predictions at the training points are not known to `tol`, in
            root mean square, see `solve`. Those at new inputs may be less well known.
        """
        if t is None or (k_test_train is None) == (x_test is None):
            raise TypeError("predict needs t, and either k_test_train or x_test.")
        if k_test_train is not None:
            given = {"kernel": kernel, "x_train": x_train, "tile_size": tile_size}
            extra = [name for name, value in given.items() if value is not None]
            if extra:
                raise TypeError(
                    f"k_test_train leaves nothing for {', '.join(extra)} to do, got both. Pass "
                    "x_test instead of k_test_train, or leave them out."
                )
        times = inputs.check_times(t)
        if k_test_train is not None:
            products.check_shape(k_test_train, self.n_train)
            columns = self._columns(times.ravel())
            flat = products.with_matrix(k_test_train, columns)
            flat = flat.astype(inputs.float_dtype(k_test_train), copy=False)
        else:
            data = products.training_data(kernel, x_train, self._kernel, self.n_train)
            columns = self._columns(times.ravel())
            options = {"tile_size": tile_size, "progress": progress}
            # JAX's float64 stays what it is, as in `fit`, whatever the caller's context.
            source = self._kernel if x_train is None else x_train
            jaxs = isinstance(source, gram.MatrixFree | jax.Array)
            with products.precision(source.dtype if jaxs else None):
                flat = products.with_kernel(*data, x_test, columns, **options)
        values = flat.reshape(len(flat), times.size, columns.shape[1] // times.size)
        return self._shaped(np.moveaxis(values, 1, 0), times)

    @no_mesh()
    def solve(self, t: ArrayLike) -> Solution:
        """The dual coefficients c_t: predictions are k(x, X) c_t.

        Args:
          t: as for `predict`.

        Returns:
          The coefficients, in float64 for 'eigh' and else in the dtype of K or float32, with
          their status and an estimate of their error.

        Raises:
          TypeError: if `t` does not hold real numbers.
          ValueError: if a time is negative, NaN, or less than the one before it.

        Example:
          >>> import numpy as np
          >>> flow = GradientFlow.fit(2 * np.eye(2), np.array([1.0, -1.0]), solver="lanczos")
          >>> solution = flow.solve([1.0, np.inf])
          >>> solution.status, solution.value.round(2)
          ('converged', array([[ 0.32, -0.32], [ 0.5 , -0.5 ]]))
        """
        times = inputs.check_times(t)
        report = self._solver.report(times.ravel())
        return Solution(
            value=self._shaped(self._solver.coefficients(times.ravel()), times),
            times=times,
            status="converged" if report.converged else "not converged",
            message=report.message,
            iterations=report.iterations,
            residual=report.residual if times.ndim else report.residual[0],
        )

    @no_mesh()
    def training_error(self, t: ArrayLike) -> np.ndarray:
        """The mean squared residual over training points and outputs.

        Args:
          t: as for `predict`.

        Returns:
          A scalar or shape (T,), float64. Like `predict` it warns if it is not known to `tol`.
        """
        times = inputs.check_times(t)
        report = self._solver.report(times.ravel())
        if not report.converged:
            warnings.warn(report.message, RuntimeWarning, stacklevel=3)
        errors = self._solver.training_error(times.ravel())
        return errors if times.ndim else errors[0]

    def degrees_of_freedom(self, t: ArrayLike) -> np.ndarray:
        """The trace of S_t = K (K + δI)^{-1} (I − exp(−t (K + δI)/n)), which is f_t = S_t y.

        Args:
          t: as for `predict`.

        Returns:
          Between 0 and n, a scalar or shape (T,), float64.

        Raises:
          ValueError: if the solver is not 'eigh', which alone knows all eigenvalues.
        """
        solver, times = self._eigh("degrees_of_freedom"), inputs.check_times(t)
        traces = solver.degrees_of_freedom(times.ravel())
        return traces if times.ndim else traces[0]

    def leave_one_out(self, t: ArrayLike) -> np.ndarray:
        """What training on all other points predicts of each training point.

        This is exact, at every time and with a ridge or without: nothing is trained anew, yet
        the values are those of gradient flow on (1/2n) Σ_{j≠i} |f(x_j) − y_j|², whose time
        is that of a flow fitted to n − 1 points multiplied by n/(n − 1).

        Args:
          t: as for `predict`.

        Returns:
          As `predict` on the training points, float64.

        Raises:
          ValueError: if the solver is not 'eigh'.
        """
        solver, times = self._eigh("leave_one_out"), inputs.check_times(t)
        return self._shaped(solver.leave_one_out(times.ravel()), times)

    def spectral_range(self) -> tuple[float, float]:
        """The smallest and the largest eigenvalue of K + δI that the solver knows and uses.

        With 'lanczos' these are Ritz values: the largest is soon exact, the smallest falls
        as the basis grows.
        """
        return self._solver.spectral_range()

    @property
    def solver(self) -> Literal["eigh", "lanczos"]:
        """The solver in use."""
        return "eigh" if isinstance(self._solver, Eigh) else "lanczos"

    @property
    def n_train(self) -> int:
        """The number of training inputs."""
        return self._solver.n_train

    @property
    def eigenvalues(self) -> np.ndarray:
        """Those of K that are used, shape (r,), descending; of 'eigh' only."""
        return self._of_eigh("eigenvalues")

    @property
    def eigenvectors(self) -> np.ndarray:
        """Shape (n, r); of 'eigh' only."""
        return self._of_eigh("eigenvectors")

    @property
    def targets(self) -> np.ndarray:
        """The targets in the eigenbasis, shape (r, n_outputs); of 'eigh' only."""
        return self._of_eigh("targets")

    def _eigh(self, name: str) -> Eigh:
        if not isinstance(self._solver, Eigh):
            raise ValueError(
                f"{name} needs all eigenvalues, and the solver is {self.solver!r}. Pass "
                "solver='eigh' to fit."
            )
        return self._solver

    def _of_eigh(self, name: str) -> np.ndarray:
        if not isinstance(self._solver, Eigh):
            raise AttributeError(
                f"{name} exists with solver='eigh' only, and the solver is {self.solver!r}. "
                "spectral_range() exists with both."
            )
        return getattr(self._solver, name)

    def _columns(self, times: np.ndarray) -> np.ndarray:
        """The coefficients of all times side by side: one product serves all of them."""
        report = self._solver.report(times)
        if not report.converged:
            warnings.warn(report.message, RuntimeWarning, stacklevel=4)  # Past `no_mesh`.
        return np.moveaxis(self._solver.coefficients(times), 0, 1).reshape(self.n_train, -1)

    def _shaped(self, values: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Without the axes that were not asked for."""
        values = values[..., 0] if self.vector_targets else values
        return values if times.ndim else values[0]
