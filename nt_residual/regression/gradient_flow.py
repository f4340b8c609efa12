"""Gradient flow on the squared loss: kernel regression with a stopping time."""

import dataclasses
import warnings
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks, gram
from nt_residual.gram.sharded import no_mesh
from nt_residual.regression import inputs, products, solvers, training_kernel
from nt_residual.regression.eigh import Eigh
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

    Targets whose mean is far from zero are learned badly from f_0 = 0: most of the time goes
    to the mean. `fit(…, center_targets=True)` subtracts it and adds it to all predictions, which
    is the flow from f_0 = mean(y).

    Neither the scale of K nor that of y matters: s·K gives at t/s what K gives at t, and s·y
    gives s·f_t, bit by bit where s is a power of two. 'lanczos' takes entries below the least
    normal number of their dtype (1e-38 in float32) for zero in matrices that are sharded, on
    disk or matrix-free, as most devices do; of arrays on one device both solvers use them.

    Attributes:
      ridge: δ.
      reason: why the solver is the one that it is.
      vector_targets: whether `y` had one dimension, and predictions leave it out too.
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
      array([ 1.,  0., -1.], dtype=float32)
    """

    ridge: float
    reason: str
    vector_targets: bool
    offset: np.ndarray
    # For K/2^e and (y − offset)/2^f: of both, e and f.
    _solver: Eigh | Lanczos
    _exponents: tuple[int, int]
    _kernel: gram.MatrixFree | None

    def __repr__(self) -> str:
        n = self.n_train
        return f"GradientFlow(n_train={n}, solver={self.solver!r}, ridge={self.ridge:g})"

    @classmethod
    @no_mesh()
    def fit(
        cls,
        k_train: ArrayLike | gram.MatrixFree | gram.Sharded | gram.Stored,
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
          k_train: kernel of the training inputs, shape (n, n), symmetric and
            positive semi-definite up to rounding: an array of NumPy or JAX, which may be
            sharded, or a `gram.MatrixFree`, `gram.Sharded` or `gram.Stored`.
          y: targets, shape (n,) or (n, n_outputs), numbers.
          solver: 'auto' chooses 'eigh' for matrices in memory of up to 2000 inputs, 'lanczos'
            for all others. 'eigh' makes an array of any matrix.
          ridge: δ ≥ 0.
          center_targets: whether the flow starts from f_0 = mean(y), for each output, and not
            from f_0 = 0. `None` is False, with a warning where the mean is large. Networks
            that are compared with the flow start from 0, and need False.
          tol: the error of predictions that 'lanczos' aims at, as `Solution.residual` defines
            it: root mean square, at the training points. At new inputs it may be larger.
          max_iterations: the most products with K that 'lanczos' makes; `None` for 1000. Its
            bases take that many vectors per output.
          progress: whether 'lanczos' shows a progress bar, now and later.

        Raises:
          MemoryError: if what the solver needs does not fit.
          TypeError: if an argument does not hold real numbers, or an option has another type.
          ValueError: if a shape is wrong, the number of targets differs from n, a
            value is NaN or infinite, `k_train` is not symmetric or has a clearly
            negative eigenvalue, an option is out of range, or the solver is unknown.

        Warns:
          UserWarning: if `center_targets` is `None`, and the mean of the targets is larger than
            their standard deviation. Targets with two values only are classes, and do not warn.
        """
        kernel = training_kernel.check(k_train)
        targets = inputs.check_targets(y, kernel.shape[0])
        name, reason = solvers.choose(solver, kernel)
        ridge = _checks.number(ridge, "ridge")
        max_iterations = _checks.optional_integer(max_iterations, "max_iterations", "Or pass None.")
        center = inputs.check_centering(targets, center_targets, stacklevel=4)
        unit = inputs.exponent(targets)
        outputs = inputs.scaled(targets.reshape(len(targets), -1), -unit)
        # The first one makes the mean of targets that are all alike exact.
        mean = (outputs[0] + np.mean(outputs - outputs[0], axis=0)) * center
        fitted, scale = solvers.fit(
            name,
            kernel,
            outputs - mean,
            ridge=ridge,
            centered=center,
            tol=_checks.number(tol, "tol", positive=True),
            max_iterations=max_iterations,
            progress=_checks.boolean(progress, "progress"),
        )
        data = kernel if isinstance(kernel, gram.MatrixFree) else None
        offset = inputs.scaled(mean, unit).reshape(targets.shape[1:])
        return cls(ridge, reason, targets.ndim == 1, offset, fitted, (scale, unit), data)

    @no_mesh()
    def predict(
        self,
        k_test_train: ArrayLike | gram.Sharded | gram.Stored | None = None,
        t: ArrayLike | None = None,
        *,
        kernel: Any = None,
        x_test: ArrayLike | None = None,
        x_train: ArrayLike | None = None,
        tile_size: int | None = None,
        progress: bool = False,
    ) -> np.ndarray:
        """Return the predictions at one or many times.

        Args:
          k_test_train: kernel between new and training inputs, shape (n_test, n): an array,
            which may be sharded, a `gram.Sharded` or a `gram.Stored`. Instead of it, `x_test`
            may be passed.
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
          without the last axis where `y` had one dimension. The dtype of `k_test_train` (of
          tiles, that of the kernel) if that is a float dtype whose range has y's, else float64.

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
            columns, exponents = self._columns(times)
            flat = products.with_matrix(k_test_train, columns)
            dtype = inputs.float_dtype(k_test_train)
        else:
            data = products.training_data(kernel, x_train, self._kernel, self.n_train)
            columns, exponents = self._columns(times)
            options = {"tile_size": tile_size, "progress": progress}
            # JAX's float64 stays what it is, as in `fit`, whatever the caller's context.
            source = self._kernel if x_train is None else x_train
            jaxs = isinstance(source, gram.MatrixFree | jax.Array)
            with products.precision(source.dtype if jaxs else None):
                flat = products.with_kernel(*data, x_test, columns, **options)
            dtype = flat.dtype
        values = inputs.scaled(flat, exponents).reshape(len(flat), times.size, -1)
        values = np.moveaxis(values, 1, 0) + self.offset
        dtype = dtype if inputs.holds(dtype, self._exponents[1]) else np.float64
        return self._shaped(values.astype(dtype), times)

    @no_mesh()
    def solve(self, t: ArrayLike) -> Solution:
        """Return the dual coefficients c_t: predictions are k(x, X) c_t + `offset`.

        Args:
          t: as for `predict`.

        Returns:
          The coefficients, float64, with their status and an estimate of their error.

        Raises:
          TypeError: if `t` does not hold real numbers.
          ValueError: if a time is negative, NaN, or less than the one before it, or float64
            does not hold the coefficients.

        Example:
          >>> import numpy as np
          >>> flow = GradientFlow.fit(2 * np.eye(2), np.array([1.0, -1.0]), solver="lanczos")
          >>> solution = flow.solve([1.0, np.inf])
          >>> solution.status, solution.value.round(2)
          ('converged', array([[ 0.32, -0.32], [ 0.5 , -0.5 ]]))
        """
        times, scaled = self._times(t)
        report, (scale, unit) = self._solver.report(scaled), self._exponents
        value = inputs.scaled(self._solver.coefficients(scaled), unit - scale)
        if not np.isfinite(value).all():
            raise ValueError(
                f"y must have a scale at which float64 holds the coefficients, got targets of "
                f"about 2^{unit} and a kernel of about 2^{scale}. Scale y, and predictions back."
            )
        return Solution(
            value=self._shaped(value, times),
            times=times,
            status="converged" if report.converged else "not converged",
            message=report.message,
            iterations=report.iterations,
            residual=report.residual if times.ndim else report.residual[0],
        )

    def training_error(self, t: ArrayLike) -> np.ndarray:
        """Return the mean squared residual over training points and outputs.

        Args:
          t: as for `predict`.

        Returns:
          A scalar or shape (T,), float64. Like `predict` it warns if it is not known to `tol`.
        """
        errors, unit = self._training_error(t)
        errors = inputs.scaled(errors, 2 * unit)
        return errors if np.ndim(t) else errors[0]

    def degrees_of_freedom(self, t: ArrayLike) -> np.ndarray:
        """Return the trace of S_t = K (K + δI)^{-1} (I − exp(−t (K + δI)/n)), f_t = S_t y.

        With `center_targets` the mean is fitted too, and S_t becomes J + S_t (I − J), J = 11ᵀ/n.

        Args:
          t: as for `predict`.

        Returns:
          Between 0 and n, a scalar or shape (T,), float64.

        Raises:
          ValueError: if the solver is not 'eigh', which alone knows all eigenvalues.
        """
        solver, (times, scaled) = self._eigh("degrees_of_freedom"), self._times(t)
        traces = solver.degrees_of_freedom(scaled)
        return traces if times.ndim else traces[0]

    def leave_one_out(self, t: ArrayLike) -> np.ndarray:
        """Return what training on all other points predicts of each training point.

        This is exact, at every time and with a ridge or without: nothing is trained anew, yet
        the values are those of gradient flow on (1/2n) Σ_{j≠i} |f(x_j) − y_j|², whose time
        is that of a flow fitted to n − 1 points multiplied by n/(n − 1). With `center_targets`
        the mean is that of the others.

        Args:
          t: as for `predict`.

        Returns:
          As `predict` on the training points, float64.

        Raises:
          ValueError: if the solver is not 'eigh', or the only point has no mean without it.
        """
        solver, (times, scaled) = self._eigh("leave_one_out"), self._times(t)
        values = inputs.scaled(solver.leave_one_out(scaled), self._exponents[1])
        return self._shaped(values + self.offset, times)

    def spectral_range(self) -> tuple[float, float]:
        """Return the smallest and the largest eigenvalue of K + δI that the solver knows and uses.

        With 'lanczos' these are Ritz values: the largest is soon exact, the smallest falls
        as the basis grows.
        """
        smallest, largest = inputs.scaled(self._solver.spectral_range(), self._exponents[0])
        return float(smallest), float(largest)

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
        return inputs.scaled(self._of_eigh("eigenvalues"), self._exponents[0])

    @property
    def eigenvectors(self) -> np.ndarray:
        """Shape (n, r); of 'eigh' only."""
        return self._of_eigh("eigenvectors")

    @property
    def targets(self) -> np.ndarray:
        """The targets less `offset` in the eigenbasis, shape (r, n_outputs); of 'eigh' only."""
        return inputs.scaled(self._of_eigh("targets"), self._exponents[1])

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

    def _times(self, t: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return times as they came, and those of the flow of K/2^e, shape (T,)."""
        times = inputs.check_times(t)
        return times, inputs.scaled(times.ravel(), self._exponents[0])

    @no_mesh()
    def _training_error(self, t: ArrayLike) -> tuple[np.ndarray, int]:
        """Return `training_error` in units of 2^(2f), (T,), and f: float64 holds these squares."""
        _, scaled = self._times(t)
        self._check_known(scaled)
        return self._solver.training_error(scaled), self._exponents[1]

    def _columns(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return v and the exponents of the predictions k v · 2^exponents at all times.

        The times are side by side: one product serves all of them.
        """
        scale, unit = self._exponents
        scaled = inputs.scaled(times.ravel(), scale)
        self._check_known(scaled)
        c = np.moveaxis(self._solver.coefficients(scaled), 0, 1).reshape(self.n_train, -1)
        v, exponents = products.in_range(c, scale, self._solver.dtype)
        return v, exponents + unit - scale

    def _check_known(self, scaled: np.ndarray) -> None:
        """Warn, in the line that called a method that called one of the above."""
        report = self._solver.report(scaled)
        if not report.converged:
            warnings.warn(report.message, RuntimeWarning, stacklevel=5)  # Past `no_mesh`.

    def _shaped(self, values: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Without the axes that were not asked for."""
        values = values[..., 0] if self.vector_targets else values
        return values if times.ndim else values[0]
