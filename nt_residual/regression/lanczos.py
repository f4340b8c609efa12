"""Gradient flow from Krylov bases that grow as later times are asked for.

With K Q = Q T + β q eᵀ + E the coefficients are c_t ≈ |y| Q w, w = g_t(T) e_1 (`tridiagonal` has
the notation; E is rounding). The error of the predictions K c_t, relative to |y|, has two parts:

- truncation, at most β |w_m|: the basis is too small (`Tridiagonals.bound`);
- rounding, |E w|, which one product measures: E w = K (Q w) − (Q T w + β w_m q).

More products make the former smaller, and not the latter. Where float32 vectors leave too much
rounding, the bases are made anew in float64, with the same K: each product converts parts of it.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from nt_residual.gram.operators import Operator
from nt_residual.regression.kernel_matrix import check_definite, rounding
from nt_residual.regression.krylov import Krylov
from nt_residual.regression.predictions import precision
from nt_residual.regression.solution import learned
from nt_residual.regression.tridiagonal import Tridiagonals

# The most products between two looks at the error, and the most entries that they use: Ctrl-C and
# the progress bar wait as long.
_STEP, _ENTRIES = 16, 4e8
_MOST = 1000
# Of the exponent of the scale, so that float32 holds it.
_LARGEST_EXPONENT = 120


class Lanczos:
    """The dual coefficients c_t ≈ |y| Q g_t(T) e_1 of all outputs at any time.

    The bases are kept: a time that they suffice for costs one product at most, to measure
    rounding. The targets `y` are float64, shape (n, n_outputs); `GradientFlow.fit` has the options.
    """

    def __init__(
        self,
        operator: Operator,
        y: np.ndarray,
        *,
        ridge: float,
        tol: float,
        max_iterations: int | None,
        progress: bool,
    ):
        n = len(y)
        self.n_train, self._ridge, self._tol, self._progress = n, ridge, tol, progress
        self._operator = operator
        self._most = min(n, max_iterations or _MOST)
        with precision(operator.dtype):
            self._diagonal = operator.diagonal()
        self._norms = np.linalg.norm(y, axis=0)
        # An output that is zero keeps all coefficients zero, whatever its basis begins with.
        anything = np.random.default_rng(0).standard_normal((n, 1))
        start = np.where(self._norms > 0, y, anything)
        self._first = (start / np.linalg.norm(start, axis=0)).T
        # The largest entry of s K is about 1.
        exponent = -math.frexp(float(np.max(self._diagonal)))[1]
        self._scale = math.ldexp(1, int(np.clip(exponent, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)))
        self._begin(np.promote_types(operator.dtype, np.float32))

    def _begin(self, dtype: np.dtype) -> None:
        """Make the first vectors of bases in this dtype. On `MemoryError` nothing has changed."""
        # |E w|/|w| of each output, and the size of the basis and the time of the measurement.
        measured = np.zeros(len(self._norms)), 0, -1.0
        expected = rounding(dtype, self._diagonal)
        before, self._earlier = dict(vars(self)), getattr(self, "iterations", 0)
        try:
            with precision(dtype):
                start = self._operator.place(self._first.astype(dtype))
                krylov = Krylov(self._operator, start, self._scale, self._scale * expected)
                self.dtype, self._krylov, self._measured = dtype, krylov, measured
                self._expected_rounding, self._stopped, self._diagonalized = expected, "", 0
                self._extend()
        except BaseException:
            vars(self).update(before)
            raise

    @property
    def iterations(self) -> int:
        """The number of products with the kernel matrix that made the bases."""
        return self._earlier + self._krylov.size

    def errors(self, times: np.ndarray) -> tuple[np.ndarray, str]:
        """Enlarge the bases until the last time is known; return residual and message."""
        residual, rounded = self._errors(times)
        if rounded > self._tol / 2 and self.dtype != np.float64 and residual.max() > self._tol:
            try:
                self._begin(np.dtype(np.float64))
            except MemoryError as error:
                why = f"a basis in float64 {error}"
                return residual, self._advice(times, residual, rounded, why)
            residual, rounded = self._errors(times)
        return residual, self._advice(times, residual, rounded)

    def _errors(self, times: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the residual at each time, with bases of this dtype, and the largest rounding."""
        with precision(self.dtype):
            self._grow(times[-1])
            rounded = self._rounding(times[-1])[:, None] * self._lengths(times)
        # Predictions of targets that are zero are exact.
        some = self._norms > 0
        both = np.hypot(self._small.bound(self._learned(times)), rounded)
        return both[some].max(axis=0, initial=0), float(rounded[some].max(initial=0))

    def coefficients(self, times: np.ndarray) -> np.ndarray:
        """Return c_t from the bases as they are, shape (T, n, n_outputs), float64."""
        learned, sizes = self._normalized(times)
        with precision(self.dtype):
            combined = self._combined(self._small.weights(learned))
        return np.asarray(combined, np.float64) * (self._norms * sizes.T)[:, None]

    def training_error(self, times: np.ndarray) -> np.ndarray:
        """Return the mean squared residual on the training points, shape (T,)."""
        # y − K c_t = |y| (Q (e_1 − T w) − β w_m q).
        inside, beyond = self._small.fitted(self._learned(times))
        inside[..., 0] -= 1
        squares = np.sum(inside**2, axis=2) + beyond**2
        return self._norms**2 @ squares / (self.n_train * len(self._norms))

    def spectral_range(self) -> tuple[float, float]:
        """Return the smallest and the largest Ritz value of K + δI."""
        values = self._small.values + self._ridge
        return float(values[values > self._cutoff].min()), float(values.max())

    def _grow(self, time: float) -> None:
        """Enlarge the bases until the predictions are known, at this time and all before it."""
        self._diagonalize()  # Ctrl-C may have come after the last products.
        options = {"desc": "Lanczos", "unit": "product", "disable": not self._progress}
        with tqdm(initial=self._krylov.size, **options) as bar:
            self._stopped = ""
            while not self._stopped and not self._is_enough(time):
                before = self._krylov.size
                self._stopped = self._extend()
                bar.update(self._krylov.size - before)
                bar.set_postfix(error=f"{self._worst_truncation(time):.1e}")

    def _is_enough(self, time: float) -> bool:
        """Return whether `tol` is reached, or truncation is less than rounding."""
        truncation = self._worst_truncation(time)
        if truncation <= self._tol / 2:
            return True
        # To measure rounding takes a product. The expected one tells when that is worth it.
        length = self._lengths(np.array([time]))[:, 0]
        if truncation > np.max(self._expected_rounding * length) / 2:
            return False
        return truncation <= np.max(self._rounding(time) * length) / 2

    def _extend(self) -> str:
        """Make some more products; if no more can be made, return why."""
        krylov = self._krylov
        count = min(_step(self.n_train), self._most - krylov.size)
        if count == 0:
            return f"after {krylov.size} products, the most that max_iterations allows"
        try:
            krylov.grow(count)
        except MemoryError as error:
            if krylov.size == 0:
                raise
            return f"since a larger basis {error}"
        self._diagonalize()
        return ""

    def _diagonalize(self) -> None:
        """Compute T of each output in its eigenbasis, in units of K, unless it is there."""
        krylov = self._krylov
        if self._diagonalized == krylov.size:
            return
        rows = krylov.diagonal / self._scale, krylov.coupling / self._scale
        self._small = Tridiagonals.of(*rows, krylov.lengths, krylov.over)
        smallest, largest = self._small.values.min(), self._small.values.max()
        check_definite(smallest, largest, self._operator.dtype)
        # As for `Eigh` in float64. In float32 n ε λ_max would take more than is lost.
        count = self.n_train if self.dtype == np.float64 else 1
        own = count * float(jnp.finfo(self.dtype).eps) * largest
        self._cutoff = max(rounding(self._operator.dtype, self._diagonal), own)
        self._diagonalized = krylov.size

    def _learned(self, times: np.ndarray) -> np.ndarray:
        """Return g_t at the Ritz values of each output, shape (n_outputs, T, m)."""
        return learned(self._small.values, times, self.n_train, self._ridge, self._cutoff)

    def _normalized(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return g_t/s_t, which float32 can hold at any time, and s_t > 0, (n_outputs, T)."""
        learned = self._learned(times)
        sizes = np.max(learned, axis=2)
        sizes = np.where(sizes > 0, sizes, 1)
        return learned / sizes[..., None], sizes

    def _worst_truncation(self, time: float) -> float:
        bounds = self._small.bound(self._learned(np.array([time])))[:, 0]
        return float(bounds[self._norms > 0].max(initial=0))

    def _lengths(self, times: np.ndarray) -> np.ndarray:
        """Return |w| = |c_t|/|y|, shape (n_outputs, T)."""
        return np.linalg.norm(self._small.weights(self._learned(times)), axis=2)

    def _rounding(self, time: float) -> np.ndarray:
        """Return |E w|/|w| of each output, measured at this time or a later one."""
        value, size, latest = self._measured
        if size < self._krylov.size or latest < time:
            value = self._measure(time)
            self._measured = value, self._krylov.size, time
        return value

    def _measure(self, time: float) -> np.ndarray:
        """Return |E w|/|w| for w ∝ g_t(T) e_1, from s E w = s K (Q w) − s (Q T w + β w_m q)."""
        learned, _ = self._normalized(np.array([time]))
        weights = self._small.weights(learned)
        inside, beyond = (self._scale * part for part in self._small.fitted(learned))
        following = self._krylov.next.T * beyond.T.astype(self.dtype)
        expected = self._combined(inside)[0] + following
        scale, distance = np.array(self._scale, self.dtype), self._operator.jit(_distance)
        found = distance(self._operator, self._combined(weights)[0], expected, scale)
        lengths = (self._norms > 0) * np.linalg.norm(weights[:, 0], axis=1)
        found = np.asarray(found, np.float64) / self._scale
        return np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)

    def _combined(self, weights: np.ndarray) -> jax.Array:
        """Return Q w for weights w, (n_outputs, T, m), shape (T, n, n_outputs)."""
        basis = self._krylov.basis
        room = ((0, 0), (0, 0), (0, basis.shape[1] - weights.shape[2]))
        return _combine(basis, np.pad(weights, room).astype(self.dtype))

    def _advice(
        self, times: np.ndarray, residual: np.ndarray, rounded: float, why_float32: str = ""
    ) -> str:
        """Return why predictions are not known to `tol`, and what to do; nothing if they are."""
        if np.all(residual <= self._tol):
            return ""
        why, remedies = [], ["earlier times", "a ridge"]
        if self._stopped:
            why.append(f"Lanczos' process stopped {self._stopped}")
            remedies += ["a larger max_iterations", "solver='eigh'"]
        if rounded > self._tol / 2:
            why.append(f"{self.dtype} does not hold more digits")
            if why_float32:
                why.append(why_float32)
                remedies.append("some of the outputs at a time")
        first = times[np.argmax(residual > self._tol)]
        return (
            f"predictions from t = {first:g} on are known to {residual.max():.1e} "
            f"only, relative to the targets, and tol is {self._tol:g}: {', and '.join(why)}. "
            f"Pass {', '.join(remedies[:-1])} or {remedies[-1]}."
        )


def _step(n: int) -> int:
    """Return how many products to make at a time: a power of two, so that few are compiled."""
    return 2 ** int(math.log2(min(max(_ENTRIES / n**2, 1), _STEP)))


@jax.jit
def _combine(basis: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.einsum("omn,otm->tno", basis, weights, precision="highest")


def _distance(operator: Operator, c: jax.Array, expected: jax.Array, scale: jax.Array) -> jax.Array:
    """Return |s K c − expected| for each column."""
    return jnp.linalg.norm(operator.product(c) * scale - expected, axis=0)
