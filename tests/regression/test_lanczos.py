import dataclasses
import functools
import math
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import collectives, full, mainly, matrix_of_spectrum
from jax.experimental import io_callback
from jax.sharding import NamedSharding, PartitionSpec
from matfree import decomp

from nt_residual import gram, memory
from nt_residual.gram.operators import as_operator
from nt_residual.regression import GradientFlow, krylov
from nt_residual.regression.lanczos import Lanczos

N = 48
TIMES = np.array([0.0, 1.0, 100.0, 1e4, math.inf])
SPECTRA = {
    "geometric": np.geomspace(10, 1e-3, N),
    "algebraic": 10 / np.arange(1, N + 1) ** 2.0,
    "clustered": np.repeat([7.0, 1.0, 0.1, 0.02], N // 4),
    "one outlier": np.append(N, np.full(N - 1, 0.5)),
}


def _matrix(spectrum, dtype=np.float64):
    return matrix_of_spectrum(spectrum, np.random.default_rng(0)).astype(dtype)


def _targets(n=N):
    return np.random.default_rng(1).standard_normal((n, 2))


def _error(flow, k_train, y, times):
    return _error_of(flow.solve(times), k_train, y)


def _error_of(solution, k_train, y):
    """Of predictions at the training points, as `Solution.residual` measures it."""
    exact = GradientFlow.fit(np.asarray(k_train, np.float64), y, solver="eigh")
    off = solution.value - exact.solve(solution.times).value
    off = np.asarray(k_train, np.float64) @ off
    return (np.linalg.norm(off, axis=1) / np.linalg.norm(y, axis=0)).max(axis=1)


# The predictions.


@pytest.mark.parametrize("spectrum", ["geometric", "clustered", *full("algebraic", "one outlier")])
def test_what_has_converged_is_what_an_eigendecomposition_gives(spectrum, dtype):
    k_train, y = _matrix(SPECTRA[spectrum], dtype), _targets()
    tol = {"float32": 1e-4, "float64": 1e-9}[dtype.name]
    # In float32 only times at which rounding of K leaves that many digits.
    times = TIMES[:3] if dtype == np.float32 else TIMES
    flow = GradientFlow.fit(k_train, y, solver="lanczos", tol=tol)
    solution = flow.solve(times)
    assert solution.status == "converged"
    assert solution.value.dtype == np.float64
    assert np.all(solution.residual <= tol)
    assert np.all(_error(flow, k_train, y, times) <= tol)


@pytest.mark.parametrize("spectrum", ["geometric", "one outlier", *full("algebraic", "clustered")])
def test_the_residual_bounds_the_error_whatever_the_size_of_the_basis(spectrum):
    k_train, y = _matrix(SPECTRA[spectrum]), _targets()
    for size in (1, 3, 8, 20):
        flow = GradientFlow.fit(k_train, y, solver="lanczos", tol=1e-12, max_iterations=size)
        residual = flow.solve(TIMES).residual
        error = _error(flow, k_train, y, TIMES)
        assert np.all(error <= 1.0001 * residual + 1e-11)
        # Nor is it far above once all that the basis knows is learned.
        assert np.all(residual[3:] <= 3 * error[3:] + 1e-9)


def test_rounding_of_float32_shows_in_the_residual_where_float64_does_not_fit(monkeypatch):
    # Singular but for rounding, and with targets that have a part along small eigenvalues.
    k_train, y = _matrix(np.geomspace(100, 1e-4, N), np.float32), _targets()
    flow = GradientFlow.fit(k_train, y, solver="lanczos", tol=1e-6)
    times = np.array([1.0, 1e4])
    # The first buffer holds all vectors, and more memory is needed in float64 only.
    assert flow.solve(1.0).status == "converged"
    with monkeypatch.context() as patch:
        patch.setattr(memory, "available", lambda device: 100)
        solution = flow.solve(times)
    assert solution.residual[0] < 1e-6 < solution.residual[1]
    assert solution.status == "not converged"
    assert "from t = 10000 on" in solution.message
    assert "float32 does not hold more digits, and a basis in float64 needs" in solution.message
    assert "Pass earlier times, a ridge or some of the outputs at a time." in solution.message
    error = _error_of(solution, k_train, y)
    assert np.all(error < 2 * solution.residual + 1e-7)
    assert solution.residual[1] < 5 * error[1]


@pytest.mark.parametrize("form", ["array", "matrix-free", *full("stored")])
def test_vectors_in_float64_reach_what_float32_cannot(form, tmp_path):
    x = np.linalg.cholesky(_matrix(np.geomspace(100, 1e-4, N))).astype(np.float32)

    def linear(x1, x2):
        return jnp.matmul(x1, x2.T, precision="highest")

    k_train, y = gram.compute(linear, x), _targets()
    forms = {
        "array": lambda: k_train,
        "matrix-free": lambda: gram.MatrixFree(linear, x),
        "stored": lambda: gram.compute(linear, x, store=tmp_path / "k"),
    }
    flow = GradientFlow.fit(forms[form](), y, solver="lanczos", tol=1e-7)
    solution = flow.solve([1.0, 1e3])
    assert solution.status == "converged"
    exact = np.asarray(k_train, np.float64)
    for t, value in zip(solution.times, solution.value, strict=True):
        expected = y - scipy.linalg.expm(-t / N * exact) @ y
        assert np.linalg.norm(exact @ value - expected) < 1e-7 * np.linalg.norm(y)
    # A single product in float32 has a larger error.
    rounded = np.asarray(k_train) @ solution.value[1].astype(np.float32)
    assert np.linalg.norm(rounded - exact @ solution.value[1]) > 1e-6 * np.linalg.norm(y)


# The basis.


def _krylov(k_train, y):
    operator = as_operator(k_train)
    start = (y / np.linalg.norm(y, axis=0)).T.astype(k_train.dtype)
    return krylov.Krylov(operator, operator.place(start), scale=1.0, negligible=1e-10)


def test_a_process_in_parts_is_that_of_matfree_in_one(x64):
    k_train, y = _matrix(SPECTRA["geometric"]), _targets()
    process = _krylov(k_train, y)
    for count in (4, 8, 4, 4):
        process.grow(count)
    one_go = decomp.tridiag_sym(20, reortho="full", custom_vjp=False, materialize=False)
    for i in range(2):
        expected = one_go(lambda v: k_train @ v, jnp.asarray(y[:, i]))
        diagonal, off_diagonal = expected.J_small
        np.testing.assert_allclose(process.diagonal[i], diagonal, rtol=1e-8)
        np.testing.assert_allclose(process.coupling[i, :-1], off_diagonal, rtol=1e-8)
        np.testing.assert_allclose(process.basis[i, :20], expected.Q_tall, atol=1e-8)
        following = process.coupling[i, -1] * process.next[i]
        np.testing.assert_allclose(following, expected.residual, atol=1e-9)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["matrix"], meta_fields=[])
@dataclasses.dataclass
class _Counting:
    """A matrix that counts its products."""

    matrix: jax.Array
    count = 0

    shape, dtype = (N, N), np.dtype("float32")
    jit, place = staticmethod(jax.jit), staticmethod(jnp.asarray)

    def product(self, v):
        def tick():
            _Counting.count += 1
            return np.float32(0)

        # The product waits for it.
        counted = io_callback(tick, jax.ShapeDtypeStruct((), np.float32))
        return jnp.matmul(self.matrix, v, precision="highest") + counted

    def diagonal(self):
        return np.diagonal(self.matrix).astype(np.float64)


def test_later_times_continue_from_the_basis_there_is():
    _Counting.count = 0
    operator = _Counting(jnp.asarray(_matrix(SPECTRA["geometric"], np.float32)))
    options = {"ridge": 0.0, "tol": 1e-4, "max_iterations": None, "progress": False}
    solver = Lanczos(operator, _targets(), **options)
    assert (_Counting.count, solver.iterations) == (16, 16)
    solver.errors(np.array([1.0]))
    # One more, to measure rounding.
    assert (_Counting.count, solver.iterations) == (17, 16)
    solver.errors(np.array([1.0, 3e3]))
    assert _Counting.count == solver.iterations + 2 > 18
    before = _Counting.count
    solver.errors(np.array([0.5, 10.0, 2e3]))
    solver.coefficients(np.array([0.5, 10.0, 2e3]))
    solver.training_error(np.array([10.0]))
    assert _Counting.count == before


def test_other_targets_and_times_need_no_compilation(caplog):
    k_train = _matrix(SPECTRA["geometric"], np.float32)
    fit = functools.partial(GradientFlow.fit, k_train, solver="lanczos")
    fit(_targets()).predict(k_train, [1.0, 1e3])
    caplog.clear()
    with jax.log_compiles():
        fit(3 * _targets()[::-1]).predict(k_train, [2.0, 1e3])
    assert not caplog.records


def test_an_interrupted_flow_continues_and_a_progress_bar_shows_the_error(monkeypatch, capsys):
    k_train, y = _matrix(SPECTRA["geometric"]), _targets()
    flow = GradientFlow.fit(k_train, y, solver="lanczos", progress=True)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(krylov, "_continued", interrupted)
        with pytest.raises(KeyboardInterrupt):
            flow.solve(1e3)
    assert _error(flow, k_train, y, np.array([1e3])) < 1e-4
    assert "error=" in capsys.readouterr().err


# Krylov spaces that are exhausted.


@pytest.mark.parametrize(
    ("k_train", "y"),
    {
        "identity": (3 * np.eye(6), _targets(6)),
        "low rank": (np.ones((6, 6)) + np.diag([1.0, 1, 1, 0, 0, 0]), _targets(6)),
        "zero output": (np.diag(np.arange(1.0, 7)), _targets(6) * [1, 0]),
        "all outputs zero": (np.diag(np.arange(1.0, 7)), np.zeros((6, 2))),
        "eigenvector": (np.diag(np.arange(1.0, 7)), np.eye(6)[:, [2, 4]]),
        "one point": (np.array([[2.0]]), np.array([[3.0, -1.0]])),
    }.values(),
    ids=lambda value: "",
)
@mainly("float64")
def test_an_exhausted_space_is_exact(k_train, y, dtype):
    k_train = k_train.astype(dtype)
    tol = {"float32": 1e-5, "float64": 1e-12}[dtype.name]
    with jax.debug_nans(True):
        flow = GradientFlow.fit(k_train, y, solver="lanczos", tol=tol)
        solution = flow.solve(TIMES)
    assert solution.status == "converged"
    exact = GradientFlow.fit(k_train, y, solver="eigh")
    np.testing.assert_allclose(solution.value, exact.solve(TIMES).value, atol=10 * tol)
    np.testing.assert_allclose(
        flow.training_error(TIMES), exact.training_error(TIMES), atol=10 * tol
    )


# What does not converge.


def test_too_few_products_are_reported_with_advice():
    k_train, y = _matrix(SPECTRA["geometric"]), _targets()
    flow = GradientFlow.fit(k_train, y, solver="lanczos", max_iterations=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.predict(k_train, 0.01)
    solution = flow.solve([0.01, 1e3, math.inf])
    assert (solution.status, solution.iterations) == ("not converged", 4)
    assert solution.residual[0] < 1e-4 < solution.residual[1]
    assert "predictions from t = 1000 on are known to" in solution.message
    advice = "Pass earlier times, a ridge, a larger max_iterations or solver='eigh'."
    assert advice in solution.message
    for ask in (lambda: flow.predict(k_train, 1e3), lambda: flow.training_error(1e3)):
        with pytest.warns(RuntimeWarning, match="stopped after 4 products") as caught:
            ask()
        assert caught[0].filename == __file__


def test_a_basis_that_does_not_fit_ends_the_growth(monkeypatch):
    k_train, y = _matrix(SPECTRA["geometric"]), _targets()
    monkeypatch.setattr(krylov, "_FIRST_CAPACITY", 16)
    flow = GradientFlow.fit(k_train, y, solver="lanczos")
    monkeypatch.setattr(memory, "available", lambda device: 100)
    solution = flow.solve(math.inf)
    assert (solution.status, solution.iterations) == ("not converged", 16)
    assert "since a larger basis needs" in solution.message
    with pytest.raises(MemoryError, match=r"needs 24.6 kB of memory \(a basis of 16 vectors"):
        GradientFlow.fit(k_train, y, solver="lanczos")


def test_a_negative_eigenvalue_is_reported_when_it_is_found():
    k_train = _matrix(np.append(-0.5, np.linspace(0.1, 8, N - 1)))
    with pytest.raises(
        ValueError, match=r"positive semi-definite, got eigenvalues from -0\.\d+ to"
    ):
        GradientFlow.fit(k_train, _targets(), solver="lanczos").solve(math.inf)


def test_a_kernel_with_a_value_that_is_not_finite_is_refused():
    def kernel(x1, x2):
        return jnp.log(x1 @ x2.T)

    x = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match="k_train must be finite, got a product"):
        GradientFlow.fit(gram.MatrixFree(kernel, x), np.ones(4))
    k_train = np.eye(300, dtype=np.float32)
    k_train[280, 7] = np.nan
    with pytest.raises(ValueError, match=r"got 1 values.*the first at index \[280, 7\]"):
        GradientFlow.fit(k_train, np.ones(300), solver="lanczos")
    # One entry without its mirror image.
    k_train[280, 7] = 0.01
    with pytest.raises(ValueError, match=r"symmetric, got \|K − Kᵀ\| up to 0.01"):
        GradientFlow.fit(k_train, np.ones(300), solver="lanczos")


# Many devices.


@pytest.fixture(scope="module")
def points():
    """Kernel matrices of training and of new points, and targets."""
    rng = np.random.default_rng(0)
    x, new = (rng.standard_normal((n, 3)) for n in (64, 16))
    k_train, k_test = (np.exp(-((a[:, None] - x) ** 2).sum(2)).astype(np.float32) for a in (x, new))
    return k_train, k_test, rng.standard_normal((64, 3))


def _sharded(array):
    mesh = jax.make_mesh((8,), ("rows",))
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec("rows")))


@pytest.mark.parametrize("solver", ["auto", "eigh"])
def test_a_sharded_matrix_gives_the_predictions_of_one_that_is_not(points, solver):
    k_train, k_test, y = points
    fit = functools.partial(GradientFlow.fit, ridge=1e-2)
    expected = fit(k_train, y, solver="lanczos").predict(k_test, TIMES[1:3])
    flow = fit(_sharded(k_train), y, solver=solver)
    assert flow.solver == {"auto": "lanczos"}.get(solver, solver)
    for k in (k_test, _sharded(k_test)):
        np.testing.assert_allclose(flow.predict(k, TIMES[1:3]), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k: np.where(np.eye(64), np.nan, k), r"first at index \[0, 0\]"),
        (np.triu, "k_train must be symmetric"),
    ],
)
def test_a_sharded_matrix_is_checked(points, change, message):
    with pytest.raises(ValueError, match=message):
        GradientFlow.fit(_sharded(change(points[0]).astype(np.float32)), points[2])


def test_nothing_larger_than_the_vectors_is_sent_between_devices(points):
    k_train, _, y = points
    flow = GradientFlow.fit(_sharded(k_train), y, ridge=1e-2)
    assert isinstance(flow._solver, Lanczos)
    process, one = flow._solver._krylov, np.float32(1)
    program = process._operator.jit(krylov._continued, static_argnames="count").lower(
        process._operator, process.basis, process.next, 0, one, one, count=16
    )
    sent = collectives(program.compile())
    assert sent
    for shapes, _ in sent:
        for dims in re.findall(r"\[([\d,]*)\]", shapes):
            assert np.prod([int(d) for d in dims.split(",") if d]) <= y.size, shapes
