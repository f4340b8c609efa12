"""`RNTKRegressor` with its defaults: `fit`, `fit` with a new n in each call, `predict` of one row.

Inputs are normal, and targets are a function of two features with noise. Dual coefficients and
predictions are checked against gradient flow with the kernel in float64, at the stopping time that
was chosen. No work is counted. The first case compiles the program that all of them use.
"""

import functools
import itertools

import numpy as np

from benchmarks.suite.case import Case, Counts, distance, exactly
from nt_residual import regression
from nt_residual.regression import preparation

# The number of rows and of features.
SIZES = {"quick": (600, 18), "standard": (600, 18), "large": (2000, 18)}
# For dual coefficients: the kernel is in float32.
TOLERANCE = 1e-3


def cases(size: str) -> list[Case]:
    """Return a case for `fit`, for `fit` with another n, and for `predict`."""
    n, features = SIZES[size]
    x, y = _data(n, features)
    counter = itertools.count(1)
    functions = {
        "fit": lambda: _fit(x, y).dual_coef_,
        "fit, another n": lambda: _fit(*_first(x, y, next(counter))).dual_coef_,
        "predict one row": lambda: _model(n, features).predict(x[:1] + 0.1),
    }
    return [_case(who, function, n, features) for who, function in functions.items()]


def _case(who, function, n, features):
    return Case(
        family="estimators",
        who=who,
        sizes={"n": n, "features": features, "dtype": "float32"},
        build=lambda: (function, ()),
        check=functools.partial(_error, who, n, features),
        tolerance=TOLERANCE,
        counts=lambda result: Counts(len(result)),
        jit=False,
    )


@functools.cache
def _data(n, features):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((n, features))
    return x, x[:, 0] + np.sin(2 * x[:, 1]) + 0.1 * generator.standard_normal(n)


def _first(x, y, count):
    """Return the first rows, all but a few; their number differs between counts."""
    n = len(x) - count % (len(x) // 2)
    return x[:n], y[:n]


def _fit(x, y):
    return regression.RNTKRegressor(random_state=0).fit(x, y)


@functools.cache
def _model(n, features):
    return _fit(*_data(n, features))


def _error(who, n, features, result):
    x, y = _data(n, features)
    if who != "predict one row":
        x, y = x[: len(result)], y[: len(result)]
    model = _fit(x, y)
    rows = model.x_train_
    values, vectors = np.linalg.eigh(_exact(model, rows, rows))
    learned = -np.expm1(-values * model.stopping_time_ / len(y)) / values
    expected = vectors @ (learned * (vectors.T @ (y - y.mean())))
    if who == "predict one row":
        new = preparation.apply(x[:1] + 0.1, **model.preparation_, dtype=rows.dtype)
        expected = y.mean() + _exact(model, new, rows) @ expected
    return distance(result, expected)


def _exact(model, x1, x2):
    with exactly():
        return np.asarray(model.kernel_(x1.astype(np.float64), x2.astype(np.float64)))
