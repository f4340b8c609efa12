"""Predictions at 50 stopping times, given K, by our solvers and by neural-tangents.

Inputs are n points on the sphere in ten dimensions, with n/4 test points and ten outputs.
Predictions at one of the times are checked against exp(−tK/n) in float64, by scipy's
`expm_multiply`. For 'lanczos' only products with K are counted: n² numbers read and 20 n²
operations each. Decompositions are not counted.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg

from benchmarks import networks
from benchmarks.suite.case import Case, Counts, distance
from nt_residual import data, gram, regression
from nt_residual import neural_tangents as nt
from nt_residual.regression import krylov

SIZES = {
    "quick": ((400, ("eigh", "lanczos", "neural-tangents")),),
    "standard": ((2000, ("eigh", "lanczos", "neural-tangents")), (5000, ("lanczos",))),
    "large": ((4000, ("eigh", "lanczos", "neural-tangents")), (20_000, ("lanczos",))),
}
OUTPUTS, TIMES, DIMENSION = 10, 50, 10
# The solver's own `tol` is 1e-4, root mean square.
TOLERANCE = 1e-3
# The index of the time at which predictions are checked: late enough that much is learned.
_CHECKED = 20


class Problem(NamedTuple):
    """The kernels of training inputs and between test and training inputs; targets and times."""

    k: jax.Array
    k_test: jax.Array
    y: np.ndarray
    times: np.ndarray


def cases(size: str) -> list[Case]:
    """Return all solvers for each n."""
    return [case(solver, n) for n, solvers in SIZES[size] for solver in solvers]


def case(solver: str, n: int) -> Case:
    """Return one solver at one size."""
    return Case(
        family="regression",
        who=solver,
        sizes={"n": n, "times": TIMES, "outputs": OUTPUTS, "dtype": "float32"},
        build=lambda: (functools.partial(_path, solver), (problem(n),)),
        check=lambda predictions: distance(predictions[_CHECKED], _reference(n)),
        tolerance=TOLERANCE,
        counts=lambda predictions: _counts(solver, n, predictions),
        jit=False,
        # 'eigh' runs on the host.
        program=None if solver == "eigh" else functools.partial(_program, solver, n),
    )


@functools.lru_cache(maxsize=1)
def problem(n: int) -> Problem:
    """Return a problem with noisy targets, a function of degree two on the sphere."""
    kernel, generator = networks.kernel(1000), np.random.default_rng(0)
    x = data.sphere.uniform(n + n // 4, DIMENSION).astype(np.float32)
    weights = generator.standard_normal((2, DIMENSION, OUTPUTS))
    y = x[:n] @ weights[0] + (x[:n] @ weights[1]) ** 2 + generator.standard_normal((n, OUTPUTS))
    k = kernel(jnp.asarray(x))
    return Problem(k[:n, :n], k[n:, :n], y.astype(np.float32), np.geomspace(1, n, TIMES))


def _path(solver, problem):
    k, k_test, y, times = problem
    if solver == "neural-tangents":
        predict = nt.predict.gradient_descent_mse(k, y)
        # The loss in neural-tangents is averaged over the outputs too.
        return predict(times * OUTPUTS, None, 0.0, k_test)
    return regression.GradientFlow.fit(k, y, solver=solver).predict(k_test, times)


def _program(solver, n, devices):
    """Return what to compile: all times for neural-tangents, 16 products for 'lanczos'."""
    k, k_test, y, times = problem(n)
    if solver == "neural-tangents":
        # The times are not an argument, since neural-tangents reads their values.
        path = lambda k, k_test, y: _path(solver, Problem(k, k_test, y, times))  # noqa: E731
        return path, (k, k_test, y)
    step = functools.partial(krylov._continued, count=16)
    numbers = np.int32(0), np.float32(1), np.float32(0)
    operator = gram.Sharded(k, jax.sharding.Mesh(devices[:1], ("rows",)), n)
    return step, (operator, np.zeros((OUTPUTS, 64, n), "float32"), y.T, *numbers)


@functools.lru_cache(maxsize=1)
def _reference(n):
    """Return k_test c_t with c' = (y − K c)/n, c_0 = 0, by the exponential of a larger matrix."""
    k, k_test, y, times = (np.asarray(part, np.float64) for part in problem(n))
    generator = np.zeros((n + OUTPUTS, n + OUTPUTS))
    generator[:n, :n], generator[:n, n:] = -k / n, y / n
    start = np.eye(n + OUTPUTS, OUTPUTS, -n)
    t = times[_CHECKED]
    trace = t * np.trace(generator)
    grown = scipy.sparse.linalg.expm_multiply(t * generator, start, traceA=trace)
    return k_test @ grown[:n]


def _counts(solver, n, predictions):
    if solver != "lanczos":
        return Counts(predictions.size)
    k, _, y, times = problem(n)
    products = regression.GradientFlow.fit(k, y, solver=solver).solve(times).iterations
    read, made = 4.0 * n * n * products, 2.0 * n * n * OUTPUTS * products
    return Counts(predictions.size, read, made)
