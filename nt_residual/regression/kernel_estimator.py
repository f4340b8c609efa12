"""The base of the estimators of `estimators`: kernel, choice of the time, dual coefficients."""

import functools
import math
import numbers
import warnings
from typing import Any, Literal, cast

import numpy as np

from nt_residual import _checks, gram, schedules, theory
from nt_residual.regression import kernel_tiles, preparation
from nt_residual.regression.gradient_flow import GradientFlow
from nt_residual.regression.predictions import precision
from nt_residual.regression.stopping import (
    Stopping,
    generalized_cross_validation,
    holdout,
    kfold,
    leave_one_out,
)
from nt_residual.regression.training_kernels import KernelMatrix, ProjectedKernel
from nt_residual.regression.uncertainty import ensemble_covariance, posterior_covariance
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

_RULES = ("auto", "holdout", "kfold", "gcv", "loo", "theory")
_WANTED = f"one of {_RULES} or a time ≥ 0 (math.inf included)"
_FOLDS = 5
# Up to this number of rows 'auto' leaves one out. For few rows that has up to 9% less error than a
# fifth held out; for more it has the same, and takes several times as long.
_LARGEST_LOO = 500
# Up to this number of rows landmarks='auto' takes the whole matrix, which then takes 1.6 GB.
_LARGEST_MATRIX, _LANDMARKS = 20_000, 4000


class KernelEstimator(BaseEstimator):
    """A scikit-learn estimator whose `fit` calls `_fit`, and whose `predict` calls `_estimate`."""

    x_all_: np.ndarray | None

    def __init__(
        self,
        depth: int | float = 1000,
        gamma: float = 0.5,
        c: float = 1.0,
        *,
        kind: Literal["ntk", "nngp"] = "ntk",
        trained: Literal["blocks", "all"] = "blocks",
        stopping: Literal["auto", "holdout", "kfold", "gcv", "loo", "theory"] | float = "auto",
        validation_fraction: float = 0.2,
        ridge: float = 0.0,
        bias: float = 1.0,
        center: bool = True,
        normalize_inputs: bool = False,
        solver: Literal["auto", "eigh", "lanczos"] = "auto",
        landmarks: int | Literal["auto"] | None = "auto",
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
        self.bias = bias
        self.center = center
        self.normalize_inputs = normalize_inputs
        self.solver = solver
        self.landmarks = landmarks
        self.dtype = dtype
        self.random_state = random_state

    @property
    def kernel_(self) -> ResidualKernel:
        """The kernel of the fit, whatever parameters were set since."""
        return _kernel(**self.network_)

    def _fit(self, x: Any, y: np.ndarray, strata: np.ndarray | None = None) -> np.ndarray:
        """Fit targets of shape (n,) or (n, n_outputs), centered here; return prepared inputs."""
        self._check_parameters()
        # In plain types, so that skops needs to trust no others.
        names = ("depth", "gamma", "c", "kind", "trained")
        self.network_ = {name: getattr(self, name) for name in names}
        _kernel.__wrapped__(**self.network_)  # It checks them.
        mean, scale = preparation.mean_and_scale(x, self.center)
        options = {"bias": self.bias, "normalize": self.normalize_inputs}
        self.preparation_ = {"mean": mean, "scale": scale, **options}
        rows = preparation.apply(x, **self.preparation_, dtype=np.dtype(self.dtype))
        self.offset_ = y.mean(axis=0)
        targets = y - self.offset_
        random = check_random_state(self.random_state)
        training = self._training_kernel(rows, random)
        rule = self.stopping
        if rule == "auto":
            rule = "loo" if len(y) <= _LARGEST_LOO and self.solver != "lanczos" else "holdout"
        # These need all eigenvalues.
        all_values = self.solver == "auto" and rule in ("gcv", "loo") and training.stored
        options: Any = {"solver": "eigh" if all_values else self.solver, "ridge": self.ridge}
        options["center_targets"] = False  # They are centered already.
        flow = training.flow(targets, **options)
        self.stopping_ = self._choose_time(rule, flow, training, targets, strata, options, random)
        if self.stopping_ is not None:
            self.stopping_time_ = self.stopping_.time
        else:
            time = theory.stopping_time(*x.shape) if rule == "theory" else rule
            self.stopping_time_ = float(time)
        solution = flow.solve(self.stopping_time_)
        if solution.status != "converged":
            warnings.warn(solution.message, ConvergenceWarning, stacklevel=3)
        self.dual_coef_ = solution.value
        self.solver_ = flow.solver
        self.x_train_: Any = rows if training.stored else flow.landmarks
        return rows

    def _training_kernel(
        self, x: np.ndarray, random: np.random.RandomState
    ) -> KernelMatrix | ProjectedKernel:
        """Return the kernel of the training rows: the matrix, or projected onto landmarks."""
        count: Any = self.landmarks
        if count == "auto":
            small = len(x) <= _LARGEST_MATRIX and KernelMatrix.fits(x)
            count = None if small or self.solver != "auto" else min(_LANDMARKS, len(x))
        if count is None:
            return KernelMatrix(self.kernel_, x)
        if self.solver != "auto" or self.stopping == "kfold":
            raise ValueError(
                "landmarks need solver='auto', and stopping='holdout', 'gcv', 'loo' or a time, got "
                f"solver={self.solver!r} and stopping={self.stopping!r}. Or pass landmarks=None."
            )
        return ProjectedKernel(self.kernel_, x, count, int(random.randint(2**31 - 1)))

    def _choose_time(
        self,
        rule: Any,
        flow: GradientFlow,
        training: KernelMatrix | ProjectedKernel,
        targets: np.ndarray,
        strata: np.ndarray | None,
        options: dict[str, Any],
        random: np.random.RandomState,
    ) -> Stopping | None:
        """Return the time that the rule chooses, or `None` if it uses no data."""
        n = len(targets)
        if rule == "gcv":
            return generalized_cross_validation(flow)
        if rule == "loo":
            return leave_one_out(flow, targets)
        if rule == "kfold" and isinstance(training, KernelMatrix):
            seed = int(random.randint(2**31 - 1))
            return kfold(training.matrix, targets, min(_FOLDS, n), seed=seed, **options)
        if rule == "holdout":
            train, held_out = _split(n, self.validation_fraction, random, strata)
            part = training.flow(targets[train], train, **options)
            return holdout(part, training.between(held_out, train, part), targets[held_out])
        return None

    def _validated(self, X: Any, y: Any = "no_validation", **options) -> Any:
        """Return X, or X and y, as scikit-learn converts and checks them."""
        floats = (np.float64, np.float32)
        return validate_data(self, cast(Any, X), y, dtype=floats, **options)

    def _estimate(self, X: Any) -> np.ndarray:
        """Return the network's outputs at new inputs, shape (n,) or (n, n_outputs), float64."""
        check_is_fitted(self)
        x = self._validated(X, reset=False)
        rows = preparation.apply(x, **self.preparation_, dtype=self.x_train_.dtype)
        fitted = self.x_train_, self.dual_coef_
        return self.offset_ + kernel_tiles.product(self.kernel_, rows, *fitted)

    def _covariance(self, X: Any, *, full: bool) -> np.ndarray:
        """Return the variances of networks of unit scale at new inputs, or their covariances."""
        check_is_fitted(self)
        x = self._validated(X, reset=False)
        rows = preparation.apply(x, **self.preparation_, dtype=self.x_train_.dtype)
        ntk, nngp = self.kernel_, _kernel(**{**self.network_, "kind": "nngp"})
        train, cross = self._matrices(nngp, rows)
        # The kernel of a row with itself is its squared length.
        prior = kernel_tiles.matrix(nngp, rows) if full else np.sum(np.square(rows, dtype=float), 1)
        k, k_cross = (train, cross) if ntk == nngp else self._matrices(ntk, rows)
        # Covariances do not depend on targets.
        solver = "auto" if isinstance(k, gram.LowRank) else "eigh"
        with precision(rows.dtype):
            flow = GradientFlow.fit(k, np.zeros(k.shape[0]), solver=solver, ridge=self.ridge)
            if ntk == nngp and self.ridge > 0 and self.stopping_time_ == math.inf:
                return posterior_covariance(flow, cross, prior)
            kernels = {"nngp_test": prior, "nngp_test_train": cross, "nngp_train": train}
            return ensemble_covariance(flow, k_cross, self.stopping_time_, **kernels)

    def _matrices(
        self, kernel: ResidualKernel, rows: np.ndarray
    ) -> tuple[np.ndarray | gram.LowRank, np.ndarray]:
        """Return a kernel of the training rows, and between new ones and those or landmarks."""
        between = kernel_tiles.between(kernel, rows, self.x_train_)
        if self.solver_ != "landmarks":
            return kernel_tiles.matrix(kernel, self.x_train_), between
        if self.x_all_ is None:
            raise ValueError("x_all_ must hold all training inputs, got None. Fit again.")
        with precision(rows.dtype):
            return gram.LowRank(kernel, self.x_all_, self.x_train_), between

    def _check_parameters(self) -> None:
        """Check the parameters that neither the kernel nor the flow checks."""
        rule = self.stopping
        if not isinstance(rule, str | numbers.Real) or isinstance(rule, bool):
            raise TypeError(f"stopping must be {_WANTED}, got {rule!r}.")
        if (rule not in _RULES) if isinstance(rule, str) else not rule >= 0:
            raise ValueError(f"stopping must be {_WANTED}, got {rule!r}.")
        if self.solver == "lanczos" and isinstance(rule, str) and rule in ("gcv", "loo"):
            raise ValueError(
                f"stopping={rule!r} needs all eigenvalues, got solver='lanczos'. Pass "
                "solver='eigh' or 'auto', or stopping='holdout'."
            )
        fraction = _checks.number(self.validation_fraction, "validation_fraction", positive=True)
        if fraction >= 1:
            raise ValueError(f"validation_fraction must be below 1, got {fraction}.")
        if self.landmarks is not None and self.landmarks != "auto":
            _checks.integer(self.landmarks, "landmarks", 1, "Or pass 'auto' or None.")
        _checks.number(self.bias, "bias", remedy="0 is for none.")
        for name in ("center", "normalize_inputs"):
            _checks.boolean(getattr(self, name), name)
        _checks.choice(self.dtype, "dtype", ("float32", "float64"))
        check_random_state(self.random_state)


# To make one takes 12 ms for 100,000 blocks, more than to predict one row.
@functools.lru_cache(maxsize=16)
def _kernel(depth: Any, gamma: float, c: float, kind: Any, trained: Any) -> ResidualKernel:
    return ResidualKernel(depth, schedules.PowerLaw(gamma, c), kind, trained)


def _split(
    n: int, fraction: float, random: np.random.RandomState, strata: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return random training and held-out indices, the same fraction of each stratum.

    `sklearn.model_selection.train_test_split` refuses a stratum with a single row.
    """
    order = random.permutation(n)
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    count = min(max(round(fraction * n), 1), n - 1)
    # Every n/count-th row in the order of the strata.
    held_out = np.zeros(n, bool)
    held_out[order[((np.arange(count) + 0.5) * n / count).astype(int)]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
