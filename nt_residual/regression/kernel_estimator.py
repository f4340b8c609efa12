"""What the estimators of `estimators` share: kernel, choice of the time, dual coefficients."""

import math
import numbers
import warnings
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import gram, schedules, theory
from nt_residual.compat import enable_x64
from nt_residual.regression import angles, criteria
from nt_residual.regression.gradient_flow import GradientFlow
from nt_residual.regression.held_out import Stopping, holdout, kfold
from nt_residual.regression.preparation import Preparation
from nt_residual.rntk import ResidualKernel

try:
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "RNTKRegressor and RNTKClassifier need scikit-learn 1.6 or newer: pip install "
        "'scikit-learn>=1.6' (the extra 'estimators')"
    ) from error

_RULES = ("holdout", "kfold", "gcv", "loo", "theory")
_FOLDS = 5
# Rows of the kernel that are in float64 at a time.
_ROWS = 1024


class KernelEstimator(BaseEstimator):
    """A scikit-learn estimator of which `fit` calls `_fit`, and `predict` uses `_estimate`."""

    def __init__(
        self,
        depth: int | float = 1000,
        gamma: float = 1.0,
        c: float = 1.0,
        *,
        kind: Literal["ntk", "nngp"] = "ntk",
        trained: Literal["blocks", "all"] = "blocks",
        stopping: Literal["holdout", "kfold", "gcv", "loo", "theory"] | float = "holdout",
        validation_fraction: float = 0.2,
        ridge: float = 0.0,
        center: bool = True,
        normalize_inputs: bool = True,
        solver: Literal["auto", "eigh", "lanczos"] = "auto",
        dtype: Literal["float32", "float64"] = "float32",
        random_state: Any = None,
    ):
        self.depth = depth
        self.gamma = gamma
        self.c = c
        self.kind: Any = kind
        self.trained: Any = trained
        self.stopping = stopping
        self.validation_fraction = validation_fraction
        self.ridge = ridge
        self.center = center
        self.normalize_inputs = normalize_inputs
        self.solver = solver
        self.dtype = dtype
        self.random_state = random_state

    def _fit(self, x: Any, y: np.ndarray, strata: np.ndarray | None = None) -> None:
        """Fits targets of shape (n,) or (n, o), which are centred here."""
        self._check_parameters()
        schedule = schedules.PowerLaw(self.gamma, self.c)
        self.kernel_ = ResidualKernel(self.depth, schedule, self.kind, self.trained)
        self.preparation_ = Preparation.fit(
            x, center=self.center, normalize=self.normalize_inputs, dtype=np.dtype(self.dtype)
        )
        self.x_train_, kept = self.preparation_.apply(x)
        if not kept.any():
            raise ValueError(
                f"X must have rows that differ from {'their mean' if self.center else 'zero'}, "
                f"got {len(x)} samples none of which does."
            )
        self.offset_ = y.mean(axis=0)
        targets = (y - self.offset_)[kept]
        blocks = _Blocks(self.kernel_, self.x_train_)
        found = self._choose_by_parts(blocks, targets, None if strata is None else strata[kept])
        flow = self._flow(blocks.whole(), targets)
        if self.stopping == "gcv":
            found = criteria.generalised_cross_validation(flow)
        elif self.stopping == "loo":
            found = criteria.leave_one_out(flow, targets)
        self.stopping_ = found
        self.stopping_time_ = self._time_without_data(x) if found is None else found.time
        solution = flow.solve(self.stopping_time_)
        if solution.status != "converged":
            warnings.warn(solution.message, ConvergenceWarning, stacklevel=3)
        self.dual_coef_ = np.asarray(solution.value, np.float64)
        self.solver_ = flow.solver

    def _choose_by_parts(
        self, blocks: "_Blocks", targets: np.ndarray, strata: np.ndarray | None
    ) -> Stopping | None:
        """The time that is best where parts of the data are predicted from others, if asked for."""
        if self.stopping not in ("holdout", "kfold"):
            return None
        n, random = len(targets), check_random_state(self.random_state)
        if n < 2:
            raise ValueError(
                f"stopping={self.stopping!r} needs at least 2 rows of X to divide, got {n} that "
                "has a direction. Pass a time."
            )
        if self.stopping == "kfold":
            seed = int(random.randint(2**31 - 1))
            options: Any = {"solver": self.solver, "ridge": self.ridge}
            return kfold(blocks.whole(), targets, min(_FOLDS, n), seed=seed, **options)
        train, held_out = _split(n, self.validation_fraction, random, strata)
        flow = self._flow(blocks.part(train, train), targets[train])
        return holdout(flow, blocks.part(held_out, train), targets[held_out])

    def _time_without_data(self, x: np.ndarray) -> float:
        if self.stopping == "theory":
            return float(theory.stopping_time(len(x), x.shape[1]))
        return float(self.stopping)

    def _flow(self, k: ArrayLike, targets: np.ndarray) -> GradientFlow:
        # The criteria need all eigenvalues.
        needs_eigh = self.solver == "auto" and self.stopping in ("gcv", "loo")
        solver: Any = "eigh" if needs_eigh else self.solver
        return GradientFlow.fit(k, targets, solver=solver, ridge=self.ridge)

    def _validated(self, X: ArrayLike, y: Any = "no_validation", **options) -> Any:
        """What scikit-learn makes of its users' X, or X and y."""
        floats = (np.float64, np.float32)
        return validate_data(self, cast(Any, X), y, dtype=floats, **options)

    def _estimate(self, X: ArrayLike) -> np.ndarray:
        """The network's outputs at new inputs, shape (n,) or (n, o), float64."""
        check_is_fitted(self)
        x = self._validated(X, reset=False)
        rows, kept = self.preparation_.apply(x)
        outputs = np.tile(self.offset_, (len(x),) + (1,) * self.offset_.ndim)
        if kept.any():
            outputs[kept] += _product(self.kernel_, rows, self.x_train_, self.dual_coef_)
        return outputs

    def _check_parameters(self) -> None:
        """Refuses what neither the kernel nor the flow would."""
        rule = self.stopping
        known = rule in _RULES if isinstance(rule, str) else _is_real(rule) and rule >= 0
        if not known:
            raise ValueError(
                f"stopping must be one of {_RULES} or a time ≥ 0 (math.inf included), got {rule!r}."
            )
        if self.solver == "lanczos" and isinstance(rule, str) and rule in ("gcv", "loo"):
            raise ValueError(
                f"stopping={rule!r} needs all eigenvalues, got solver='lanczos'. Pass "
                "solver='eigh' or 'auto', or stopping='holdout'."
            )
        fraction = self.validation_fraction
        if not (_is_real(fraction) and 0 < fraction < 1):
            raise ValueError(
                f"validation_fraction must be a number between 0 and 1, got {fraction!r}."
            )
        for name in ("center", "normalize_inputs"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}.")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', got {self.dtype!r}.")


class _Blocks:
    """Blocks of the kernel matrix of the training inputs.

    They come from angles that are kept for other kernels, or, where these are too many, from the
    kernel itself, and then no more than one of them is made at a time.
    """

    def __init__(self, kernel: ResidualKernel, x: np.ndarray):
        self._kernel, self._x = kernel, x
        few = angles.fit_in_cache(len(x), len(x), x.dtype)
        self._matrix = angles.kernel_matrix(kernel, x) if few else None

    def whole(self) -> ArrayLike:
        """All of it, shape (n, n)."""
        everything = slice(None)
        return self.part(everything, everything) if self._matrix is None else self._matrix

    def part(self, rows: Any, columns: Any) -> ArrayLike:
        """Some rows and columns. They are the same where they are the same object."""
        if self._matrix is not None:
            return self._matrix[np.ix_(rows, columns)]
        x1, x2 = self._x[rows], None if rows is columns else self._x[columns]
        with enable_x64(self._x.dtype == np.float64):
            return gram.compute(self._kernel, x1, x2)


def _product(
    kernel: ResidualKernel, x1: np.ndarray, x2: np.ndarray, coefficients: np.ndarray
) -> np.ndarray:
    """k(x1, x2) @ coefficients, in float64 unless there is much of it."""
    if not angles.fit_in_cache(len(x1), len(x2), x1.dtype):
        with enable_x64(x1.dtype == np.float64):
            return gram.product(kernel, x1, x2, coefficients)
    matrix = angles.kernel_matrix(kernel, x1, x2)
    parts = (matrix[start : start + _ROWS] for start in range(0, len(matrix), _ROWS))
    return np.concatenate([part.astype(np.float64) @ coefficients for part in parts])


def _split(
    n: int, fraction: float, random: np.random.RandomState, strata: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Random training and held-out indices, the same fraction of each stratum up to rounding."""
    order = random.permutation(n)
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    count = min(max(round(fraction * n), 1), n - 1)
    held_out = np.zeros(n, bool)
    held_out[order[((np.arange(count) + 0.5) * n / count).astype(int)]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _is_real(value: Any) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and not math.isnan(value)
