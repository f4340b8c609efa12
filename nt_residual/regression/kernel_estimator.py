"""What the estimators of `estimators` share: kernel, choice of the time, dual coefficients."""

import numbers
import warnings
from collections.abc import Iterator
from typing import Any, Literal, cast

import jax
import numpy as np
import scipy.sparse

from nt_residual import _checks, memory, schedules, theory
from nt_residual.compat import enable_x64
from nt_residual.regression import criteria
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

_RULES = ("auto", "holdout", "kfold", "gcv", "loo", "theory")
_WANTED = f"one of {_RULES} or a time ≥ 0 (math.inf included)"
_FOLDS = 5
# Up to this number of rows 'auto' leaves one out. On circles, moons and two of Friedman's functions
# that has up to 9% less error than a fifth held out at n = 50 and 100, and the same from 200 on,
# where it takes several times as long.
_LARGEST_LOO = 500
# The side of the tiles of kernel matrices, and what their number of features is a multiple of.
_SIDE, _WIDTH = 256, 8


class KernelEstimator(BaseEstimator):
    """A scikit-learn estimator of which `fit` calls `_fit`, and `predict` uses `_estimate`."""

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
        self.dtype = dtype
        self.random_state = random_state

    def _fit(self, x: Any, y: np.ndarray, strata: np.ndarray | None = None) -> None:
        """Fits targets of shape (n,) or (n, o), which are centered here."""
        self._check_parameters()
        schedule = schedules.PowerLaw(self.gamma, self.c)
        self.kernel_ = ResidualKernel(self.depth, schedule, self.kind, self.trained)
        self._warn_of_constant_columns(x)
        self.preparation_ = Preparation.fit(
            x,
            center=self.center,
            bias=self.bias,
            normalize=self.normalize_inputs,
            dtype=np.dtype(self.dtype),
        )
        self.x_train_, kept = self.preparation_.apply(x)
        if not kept.any():
            raise ValueError(
                f"X must have rows that differ from {'their mean' if self.center else 'zero'}, "
                f"got {len(x)} samples none of which does. Pass bias=1.0."
            )
        self.offset_ = y.mean(axis=0)
        targets = (y - self.offset_)[kept]
        rule = self._rule(len(targets))
        k = self._kernel_matrix()
        found = self._choose_by_parts(rule, k, targets, None if strata is None else strata[kept])
        flow = self._flow(rule, k, targets)
        if rule == "gcv":
            found = criteria.generalized_cross_validation(flow)
        elif rule == "loo":
            found = criteria.leave_one_out(flow, targets)
        self.stopping_ = found
        self.stopping_time_ = self._time_without_data(x) if found is None else found.time
        solution = flow.solve(self.stopping_time_)
        if solution.status != "converged":
            warnings.warn(solution.message, ConvergenceWarning, stacklevel=3)
        self.dual_coef_ = np.asarray(solution.value, np.float64)
        self.solver_ = flow.solver

    def _rule(self, n: int) -> Any:
        """`stopping`, with 'auto' resolved."""
        if self.stopping != "auto":
            return self.stopping
        return "loo" if n <= _LARGEST_LOO and self.solver != "lanczos" else "holdout"

    def _kernel_matrix(self) -> np.ndarray:
        n, itemsize = len(self.x_train_), self.x_train_.dtype.itemsize
        # Parts of it for the choice of the time, and the solver's own.
        parts = {"the kernel matrix": n * n * itemsize, "copies of it": 3 * n * n * itemsize // 2}
        remedy = "Pass dtype='float32', or train" if self.dtype == "float64" else "Train"
        memory.check(
            parts,
            memory.available(),
            "this machine",
            f"{remedy} on fewer rows of X. GradientFlow with gram.MatrixFree stores no matrix.",
        )
        return _matrix(self.kernel_, self.x_train_)

    def _choose_by_parts(
        self, rule: Any, k: np.ndarray, targets: np.ndarray, strata: np.ndarray | None
    ) -> Stopping | None:
        """The time that is best where parts of the data are predicted from others, if asked for."""
        if rule not in ("holdout", "kfold"):
            return None
        n, random = len(targets), check_random_state(self.random_state)
        if n < 2:
            raise ValueError(
                f"stopping={self.stopping!r} needs at least 2 rows of X to divide, got {n} that "
                "has a direction. Pass a time."
            )
        if rule == "kfold":
            seed = int(random.randint(2**31 - 1))
            options: Any = {"solver": self.solver, "ridge": self.ridge, "center_targets": False}
            return kfold(k, targets, min(_FOLDS, n), seed=seed, **options)
        train, held_out = _split(n, self.validation_fraction, random, strata)
        flow = self._flow(rule, k[np.ix_(train, train)], targets[train])
        return holdout(flow, k[np.ix_(held_out, train)], targets[held_out])

    def _time_without_data(self, x: np.ndarray) -> float:
        if self.stopping == "theory":
            return float(theory.stopping_time(len(x), x.shape[1]))
        return float(self.stopping)

    def _flow(self, rule: Any, k: np.ndarray, targets: np.ndarray) -> GradientFlow:
        # The criteria need all eigenvalues.
        needs_eigh = self.solver == "auto" and rule in ("gcv", "loo")
        solver: Any = "eigh" if needs_eigh else self.solver
        # The targets are centered already.
        return GradientFlow.fit(k, targets, solver=solver, ridge=self.ridge, center_targets=False)

    def _warn_of_constant_columns(self, x: np.ndarray) -> None:
        constant = np.flatnonzero((x == x[0]).all(axis=0) & (x[0] != 0))
        if self.center and constant.size:
            warnings.warn(
                f"X has {constant.size} constant columns other than zero, the first of them column "
                f"{constant[0]}, and centering removes them. For a constant feature pass bias=, "
                f"which is {self.bias}, or center=False; otherwise drop these columns.",
                UserWarning,
                stacklevel=4,
            )

    def _validated(self, X: Any, y: Any = "no_validation", **options) -> Any:
        """What scikit-learn makes of its users' X, or X and y."""
        if scipy.sparse.issparse(X):
            raise TypeError(
                f"X must be a dense array, got a sparse {type(X).__name__}. Pass X.toarray(), or "
                "sparse_output=False to the transformer that made it."
            )
        floats = (np.float64, np.float32)
        return validate_data(self, cast(Any, X), y, dtype=floats, **options)

    def _estimate(self, X: Any) -> np.ndarray:
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
        _checks.number(self.bias, "bias", remedy="0 is for none.")
        for name in ("center", "normalize_inputs"):
            _checks.boolean(getattr(self, name), name)
        _checks.choice(self.dtype, "dtype", ("float32", "float64"))
        check_random_state(self.random_state)


def _matrix(kernel: ResidualKernel, x: np.ndarray) -> np.ndarray:
    """The kernel matrix of prepared rows, exactly symmetric, in their dtype."""
    out = np.empty((len(x), len(x)), x.dtype)
    for rows, columns, tile in _tiles(kernel, x, x, upper=True):
        tile = np.triu(tile) + np.triu(tile, 1).T if rows == columns else tile
        out[rows, columns], out[columns, rows] = tile, tile.T
    np.fill_diagonal(out, np.sum(np.square(x, dtype=np.float64), axis=1))
    return out


def _product(
    kernel: ResidualKernel, x1: np.ndarray, x2: np.ndarray, coefficients: np.ndarray
) -> np.ndarray:
    """k(x1, x2) @ coefficients, added up in float64."""
    out = np.zeros((len(x1), *coefficients.shape[1:]))
    for rows, columns, tile in _tiles(kernel, x1, x2):
        out[rows] += tile.astype(np.float64) @ coefficients[columns]
    return out


def _tiles(
    kernel: ResidualKernel, x1: np.ndarray, x2: np.ndarray, *, upper: bool = False
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield tiles of k(x1, x2), with rows and columns; if `upper`, none below the diagonal.

    Rows and features are padded, so that one program serves any number of inputs, and an entry
    does not depend on the other rows. The kernel takes longer where inputs are nearly parallel, so
    what pads `x2` is orthogonal to all inputs: it points along a feature that they do not have.
    """
    features = x1.shape[1]
    width = (features // _WIDTH + 1) * _WIDTH
    left = _padded(x1, width, np.pad(x1[0], (0, width - features)))
    right = _padded(x2, width, np.eye(1, width, features)[0])
    for i in range(0, len(x1), _SIDE):
        for j in range(i if upper else 0, len(x2), _SIDE):
            with enable_x64(x1.dtype == np.float64):
                tile = np.asarray(_evaluate(kernel, left[i : i + _SIDE], right[j : j + _SIDE]))
            rows, columns = slice(i, min(i + _SIDE, len(x1))), slice(j, min(j + _SIDE, len(x2)))
            yield rows, columns, tile[: rows.stop - i, : columns.stop - j]


def _padded(x: np.ndarray, width: int, row: np.ndarray) -> np.ndarray:
    """`x` with zeros to its right, and copies of `row` below, to a multiple of the tiles' side."""
    out = np.zeros((-(-len(x) // _SIDE) * _SIDE, width), x.dtype)
    out[: len(x), : x.shape[1]] = x
    out[len(x) :] = row
    return out


@jax.jit
def _evaluate(kernel: ResidualKernel, x1: jax.Array, x2: jax.Array) -> jax.Array:
    return kernel(x1, x2)


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
