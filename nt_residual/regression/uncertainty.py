"""Error bars of predictions: covariances of trained ensembles and of Gaussian processes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpy.typing import ArrayLike

from nt_residual import _checks, gram, memory
from nt_residual.regression import arguments, kernel_matrix
from nt_residual.regression.eigh import Eigh
from nt_residual.regression.gradient_flow import GradientFlow
from nt_residual.regression.projected import Projected

# Of the prior variance: a variance that is less than zero by more is no rounding.
_ROUNDING = 1e-3


def ensemble_covariance(
    flow: GradientFlow,
    k_test_train: ArrayLike,
    t: ArrayLike,
    *,
    nngp_test: ArrayLike,
    nngp_test_train: ArrayLike,
    nngp_train: ArrayLike | gram.LowRank,
) -> np.ndarray:
    r"""Return the covariance of the predictions of infinitely wide networks, trained for a time t.

    Networks start from random functions f_0 with the covariance K, their NNGP kernel, and are
    trained by gradient flow with their NTK Θ, the kernel of `flow`. Their predictions are
    Gaussian. The mean is what `flow.predict` returns, and the covariance is

        K_** − A_t K_X* − K_*X A_tᵀ + A_t K_XX A_tᵀ,   A_t = Θ_*X g_t(Θ)

    with f_t = A_t y. At t = 0 it is the covariance of f_0. It does not include noise of targets.

    For a flow that was fitted to a `gram.LowRank` pass another one with the NNGP kernel and the
    same landmarks as `nngp_train`, and kernels between test inputs and landmarks. K_** is not
    projected: far from all landmarks the variance stays that of f_0.

    Args:
      flow: fitted to the NTK by the solver 'eigh', or to a `gram.LowRank` of it.
      k_test_train: NTK between test and training inputs, shape (n_test, n).
      t: as for `GradientFlow.predict`.
      nngp_test: NNGP kernel of the test inputs. Its diagonal, shape (n_test,), gives variances;
        the matrix, shape (n_test, n_test), covariances.
      nngp_test_train: NNGP kernel between test and training inputs, shape (n_test, n).
      nngp_train: NNGP kernel of the training inputs, shape (n, n).

    Returns:
      Float64, shape (n_test,) or (n_test, n_test), with an axis (T,) before for a vector of times.
      It is the same for every output.

    Raises:
      MemoryError: if covariances do not fit.
      TypeError: if an argument does not hold real numbers.
      ValueError: if a shape is wrong, a value is NaN or infinite, times decrease, the solver is
        another, or a variance is negative: the kernels are not those of one network.

    Example:
      >>> import numpy as np
      >>> from nt_residual import rntk, schedules
      >>> ntk, nngp = (rntk.ResidualKernel(9, schedules.PowerLaw(0.5), k) for k in ("ntk", "nngp"))
      >>> x, x_test = np.eye(3, dtype=np.float32)[:2], np.eye(3, dtype=np.float32)
      >>> flow = GradientFlow.fit(ntk(x), np.array([1.0, -1.0]))
      >>> variances = ensemble_covariance(
      ...     flow,
      ...     ntk(x_test, x),
      ...     t=[0.0, np.inf],
      ...     nngp_test=np.diag(nngp(x_test)),
      ...     nngp_test_train=nngp(x_test, x),
      ...     nngp_train=nngp(x),
      ... )
      >>> variances.round(2) + 0.0
      array([[1.  , 1.  , 1.  ],
             [0.  , 0.  , 0.91]])

    Reference: Lee et al. 2019, arXiv 1902.06720, equations 13 to 16.
    """
    solver = flow._eigh("ensemble_covariance")
    times = arguments.check_times(t)
    ntk = _rows(k_test_train, "k_test_train", flow)
    nngp = _rows(nngp_test_train, "nngp_test_train", flow)
    prior = _prior(nngp_test, "nngp_test", ntk, nngp, count=times.size)
    to_directions, between = _nngp_directions(solver, nngp_train, flow.n_train)
    ours, theirs = ntk @ solver.eigenvectors, nngp @ to_directions
    found = np.empty((times.size, *prior.shape))
    for k, learned in enumerate(solver.learned(times.ravel())):
        a = ours * learned
        found[k] = prior - _products(a, 2 * theirs, prior) + _products(a, a @ between, prior)
    found = _not_negative(found, prior, "nngp_test, nngp_test_train and nngp_train")
    return found if times.ndim else found[0]


def posterior_covariance(
    flow: GradientFlow, k_test_train: ArrayLike, k_test: ArrayLike
) -> np.ndarray:
    r"""Return the posterior covariance of a Gaussian process, given noisy targets.

        K_** − K_*X (K_XX + δI)^{-1} K_X*

    with the noise variance δ, the ridge of `flow`. With an NNGP kernel this is the Bayesian
    infinitely wide network; the posterior mean is `flow.predict(k_test_train, math.inf)`. Add δ
    for the variance of a new noisy target.

    For a flow that was fitted to a `gram.LowRank`, pass the kernel between test inputs and
    landmarks. K_** is not projected: far from all landmarks the variance stays that of the prior.

    Args:
      flow: fitted to the kernel with `ridge` > 0, by the solver 'eigh' or to a `gram.LowRank`.
      k_test_train: kernel between test and training inputs, shape (n_test, n).
      k_test: kernel of the test inputs. Its diagonal, shape (n_test,), gives variances; the
        matrix, shape (n_test, n_test), covariances.

    Returns:
      Float64, shape (n_test,) or (n_test, n_test); the same for every output.

    Raises:
      MemoryError, TypeError, ValueError: as `ensemble_covariance`; `ValueError` also if the ridge
        is 0.

    Example:
      >>> import numpy as np
      >>> flow = GradientFlow.fit(np.eye(2), np.array([1.0, -1.0]), ridge=0.25)
      >>> posterior_covariance(flow, np.eye(2), np.ones(2))
      array([0.2, 0.2])

    Reference: Rasmussen & Williams 2006, equation 2.24.
    """
    solver = flow._eigh("posterior_covariance")
    if flow.ridge <= 0:
        raise ValueError(
            "flow must be fitted with a ridge > 0, the variance of the noise, got 0. For a process "
            "without noise pass a small one, 1e-6 of the diagonal of the kernel."
        )
    kernel = _rows(k_test_train, "k_test_train", flow)
    prior = _prior(k_test, "k_test", kernel, kernel, count=1)
    directions = kernel @ solver.eigenvectors
    weighted = directions / (solver.eigenvalues + flow.ridge)
    return _not_negative(prior - _products(weighted, directions, prior), prior, "k_test")


def log_marginal_likelihood(k_train: ArrayLike, y: ArrayLike, noise: ArrayLike) -> jax.Array:
    r"""Return the logarithm of the probability density of the targets of a Gaussian process.

        log p(y) = −½ yᵀ (K + δI)^{-1} y − ½ log det(K + δI) − (n/2) log 2π

    summed over outputs. It is a JAX function: differentiate it in the noise variance δ, and
    through `rntk.recursive_kernel(…, kind='nngp')` in α or the parameters of a schedule. Compare
    depths, γ, c and δ by it: larger is better. Use float64 (`jax_enable_x64`) for noise below
    1e-4 of the diagonal of K.

    Args:
      k_train: NNGP kernel of the training inputs, shape (n, n).
      y: targets, shape (n,) or (n, n_outputs).
      noise: the noise variance δ > 0, a scalar.

    Returns:
      A scalar; NaN if K + δI is not positive definite in the dtype of K.

    Raises:
      TypeError: if an argument does not hold real numbers.
      ValueError: if a shape is wrong, or the noise is not positive.

    Example:
      >>> import numpy as np
      >>> round(float(log_marginal_likelihood(np.eye(2), np.array([1.0, -1.0]), 0.5)), 4)
      -2.91

    Reference: Rasmussen & Williams 2006, equation 2.30.
    """
    k, targets, delta = (
        _jax_array(value, name)
        for value, name in ((k_train, "k_train"), (y, "y"), (noise, "noise"))
    )
    n = len(targets) if targets.ndim else 0
    if targets.ndim not in (1, 2) or k.shape != (n, n) or n == 0:
        raise ValueError(
            "k_train and y must have shapes (n, n) and (n,) or (n, n_outputs), got shapes "
            f"{k.shape} and {targets.shape}."
        )
    if delta.ndim or (not isinstance(delta, Tracer) and not delta > 0):
        raise ValueError(f"noise must be a positive number, got {noise}.")
    columns = targets.reshape(n, -1).astype(k.dtype)
    factor = jnp.linalg.cholesky(k + delta.astype(k.dtype) * jnp.eye(n, dtype=k.dtype))
    whitened = jax.scipy.linalg.solve_triangular(factor, columns, lower=True)
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
    outputs = columns.shape[1]
    return -(jnp.sum(whitened**2) + outputs * (log_det + n * np.log(2 * np.pi))) / 2


def _jax_array(value: Any, name: str) -> jax.Array:
    """Return an array, traced or not, having checked that it holds real numbers."""
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    _checks.real_dtype(np.dtype(array.dtype), name)
    return jnp.asarray(array)


def _rows(kernel: Any, name: str, flow: GradientFlow) -> np.ndarray:
    """Return a kernel between test and training inputs, or landmarks, in float64."""
    checked = kernel_matrix.checked(kernel, name, flow._n_coefficients)
    values = np.asarray(checked, np.float64)
    kernel_matrix.check_finite(values, name)
    return values


def _prior(kernel: Any, name: str, *rows: np.ndarray, count: int) -> np.ndarray:
    """Return prior variances or covariances, having checked their shape, and that they fit."""
    prior = _checks.real_array(kernel, name)
    n = len(rows[0])
    if any(len(part) != n for part in rows) or prior.shape not in ((n,), (n, n)):
        shapes = [part.shape for part in rows]
        raise ValueError(
            f"{name} must have shape (n_test,) or (n_test, n_test), with as many test inputs as "
            f"the other kernels, got shape {prior.shape} beside {shapes}."
        )
    parts = {"covariances": 8 * prior.size * (count + 2)}
    remedy = "Pass the diagonal of the prior for variances only, or fewer test inputs or times."
    memory.check(parts, memory.available(), "this machine", remedy)
    return prior


def _nngp_directions(solver: Eigh, nngp_train: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return K_*X V = nngp_test_train @ …, and Vᵀ K_XX V, V the eigenvectors of the NTK."""
    if not isinstance(solver, Projected):
        matrix = _checks.real_array(nngp_train, "nngp_train")
        if matrix.shape != (n, n):
            raise ValueError(f"nngp_train must have shape {(n, n)}, got shape {matrix.shape}.")
        return solver.eigenvectors, solver.eigenvectors.T @ matrix @ solver.eigenvectors
    if not isinstance(nngp_train, gram.LowRank):
        raise TypeError(
            f"nngp_train must be a gram.LowRank, as for flow, got {type(nngp_train).__name__}."
        )
    shared = solver.landmarks
    if not np.array_equal(nngp_train.landmarks, shared) or nngp_train.shape != (n, n):
        raise ValueError(
            "nngp_train must have the inputs and landmarks of the kernel of flow, got others. Pass "
            "gram.LowRank(nngp, x, ntk_low_rank.landmarks)."
        )
    cross = solver.cross_moments(nngp_train)
    return nngp_train.basis @ cross, cross.T @ cross


def _products(a: np.ndarray, b: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Return a bᵀ, symmetrized, or its diagonal, in the shape of the prior."""
    if prior.ndim == 1:
        return np.einsum("ij,ij->i", a, b)
    product = a @ b.T
    return (product + product.T) / 2


def _not_negative(found: np.ndarray, prior: np.ndarray, names: str) -> np.ndarray:
    """Return covariances without the variances that rounding made negative."""
    diagonal = prior if prior.ndim == 1 else np.diagonal(prior)
    variances = found if prior.ndim == 1 else np.diagonal(found, axis1=-2, axis2=-1)
    lowest = np.min(variances / np.max(diagonal))
    if lowest < -_ROUNDING:
        raise ValueError(
            f"the kernels give a variance of {lowest:.2g} times the largest prior variance. "
            f"Check that {names} are of the same network and inputs, and NNGP kernels where that "
            "is asked for."
        )
    if prior.ndim == 1:
        return np.maximum(found, 0)
    index = np.arange(len(prior))
    found[..., index, index] = np.maximum(variances, 0)
    return found
