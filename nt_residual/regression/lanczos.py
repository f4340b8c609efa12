"""Gradient flow from Krylov bases that grow as later times are asked for."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from nt_residual.gram.operators import Operator
from nt_residual.regression import filters
from nt_residual.regression.inputs import check_definite, rounding, scaled
from nt_residual.regression.krylov import Krylov
from nt_residual.regression.products import precision
from nt_residual.regression.solution import Report
from nt_residual.regression.tridiagonal import Tridiagonal

# Products between two looks at how well the predictions are known, at most.
_STEP = 16
# Of one look at the clock, in seconds: Ctrl-C and the progress bar wait no longer.
_PATIENCE = 1.0
_MOST = 1000

# T of an output, and a function of its eigenvalues at each time, shape (T, m).
_Pair = tuple[Tridiagonal, np.ndarray]


class Lanczos:
    """Dual coefficients c_t ≈ |y| Q g_t(T) e_1 of all outputs at any time.

    `tridiagonal` has the formulas. The bases are kept: a time that they are good for costs
    no product with K but the one that measures rounding.

    Args:
      operator: K, shape (n, n).
      y: targets, float64, shape (n, n_outputs).
      ridge: δ ≥ 0.
      tol: the error of predictions that is aimed at, as `Solution.residual` defines it.
      max_iterations: the most products with K; `None` for 1000.
      progress: whether to show a progress bar.
      exponent: K is in units of 2^exponent, and times in units of 2^(−exponent). Messages tell
        the user those of the user.

    Raises:
      MemoryError: if not even the first vectors fit.
      ValueError: if K is not finite or has a clearly negative eigenvalue.
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
        exponent: int = 0,
    ):
        n = len(y)
        self.n_train, self._ridge, self._tol, self._progress = n, ridge, tol, progress
        self._operator, self._exponent = operator, exponent
        self._most = min(n, max_iterations or _MOST)
        self.dtype = np.promote_types(operator.dtype, np.float32)
        diagonal = operator.diagonal()
        self._entries = rounding(operator.dtype, diagonal)
        # By the largest entry first, so that no square leaves the range of float64.
        largest = np.max(np.abs(y), axis=0)
        self._norms = largest * np.linalg.norm(y / np.where(largest > 0, largest, 1), axis=0)
        # An output that is zero keeps all coefficients zero, whatever its basis begins with.
        anything = np.random.default_rng(0).standard_normal((n, 1))
        start = np.where(self._norms > 0, y, anything)
        start = start / np.max(np.abs(start), axis=0)
        start = (start / np.linalg.norm(start, axis=0)).T.astype(self.dtype)
        self._noise = _Noise(0, -1.0, np.zeros(len(self._norms)))
        self._stopped: str | None = None
        self._seen = 0
        with precision(self.dtype):
            self._rounding = rounding(self.dtype, diagonal)
            self._krylov = Krylov(operator, operator.place(start), self._rounding)
            self._extend()
            self._look()

    def report(self, times: np.ndarray) -> Report:
        """How well the coefficients are known at some times, after all has been done for it."""
        with precision(self.dtype):
            self._grow(times[-1])
            noise = self._measured_noise(times[-1])
        bounds = np.array([r.bound(g) for r, g in self._pairs(times)])
        return self._described(times, bounds, noise[:, None] * self._sizes(times))

    def coefficients(self, times: np.ndarray) -> np.ndarray:
        """c_t from the basis as it is, shape (T, n, n_outputs), float64."""
        pairs, sizes = self._normalized(times)
        with precision(self.dtype):
            combined = np.asarray(self._combined([r.weights(g) for r, g in pairs]), np.float64)
        return combined * (self._norms * sizes.T)[:, None]

    def training_error(self, times: np.ndarray) -> np.ndarray:
        """The mean squared residual on the training points, shape (T,)."""
        total = np.zeros(len(times))
        for norm, (ritz, learned) in zip(self._norms, self._pairs(times), strict=True):
            left = -ritz.fitted(learned)
            left[:, 0] += 1
            total += np.sum((norm * left) ** 2, axis=1)
        return total / (self.n_train * len(self._norms))

    def spectral_range(self) -> tuple[float, float]:
        """The smallest and the largest Ritz value of K + δI."""
        values = np.concatenate([ritz.values for ritz in self._ritz]) + self._ridge
        return float(values[values > self._cutoff].min()), float(values.max())

    def _grow(self, time: float) -> None:
        """Enlarges the bases until the predictions are known, at this time and all before it."""
        self._look()
        options = {"desc": "Lanczos", "unit": "product", "disable": not self._progress}
        with tqdm(initial=self._krylov.size, **options) as bar:
            while not self._known(time):
                before = self._krylov.size
                self._stopped = self._extend()
                if self._stopped:
                    return
                self._look()
                bar.update(self._krylov.size - before)
                bar.set_postfix(error=f"{self._bound(time):.1e}")
        self._stopped = None

    def _known(self, time: float) -> bool:
        """Whether a larger basis would not help: `tol` is reached, or what rounding leaves."""
        bound = self._bound(time)
        if bound <= self._tol / 2:
            return True
        # To measure it costs a product, and is worth it where an estimate is not far off.
        size = self._sizes(np.array([time]))[:, 0]
        return (
            bound <= np.max(self._rounding * size) / 2
            and bound <= np.max(self._measured_noise(time) * size) / 2
        )

    def _extend(self) -> str | None:
        """Some more products; if no more can be made, why not."""
        krylov = self._krylov
        count = min(_step(self._operator.seconds), self._most - krylov.size)
        if count == 0:
            return f"after {krylov.size} products, the most that max_iterations allows"
        try:
            krylov.grow(count)
        except MemoryError as error:
            if krylov.size == 0:
                raise
            return f"since a larger basis {error}"
        return None

    def _look(self) -> None:
        """Brings T in its eigenbasis up to date."""
        krylov = self._krylov
        if self._seen == krylov.size:
            return
        self._ritz = [
            Tridiagonal.of(krylov.diagonal[i, :length], krylov.coupling[i, :length], over)
            for i, (length, over) in enumerate(zip(krylov.lengths, krylov.over, strict=True))
        ]
        values = np.concatenate([ritz.values for ritz in self._ritz])
        check_definite(values.min(), values.max(), self._operator.dtype, self._exponent)
        # As for `Eigh` in float64. In float32 n ε λ_max would take more than is lost.
        count = self.n_train if self.dtype == np.float64 else 1
        own = count * float(jnp.finfo(self.dtype).eps) * values.max()
        self._cutoff = max(self._entries, own)
        self._seen = krylov.size

    def _pairs(self, times: np.ndarray) -> Iterable[_Pair]:
        """T of each output, and g_t at its eigenvalues, shape (T, m)."""
        for ritz in self._ritz:
            options = self.n_train, self._ridge, self._cutoff
            yield ritz, filters.learned(ritz.values, times, *options)

    def _bound(self, time: float) -> float:
        """Of the error of the predictions of the worst output."""
        times = np.array([time])
        bounds = np.array([r.bound(g)[0] for r, g in self._pairs(times)])
        return float(bounds[self._norms > 0].max(initial=0))

    def _sizes(self, times: np.ndarray) -> np.ndarray:
        """|c_t|/|y|, shape (n_outputs, T)."""
        return np.array([np.linalg.norm(r.weights(g), axis=1) for r, g in self._pairs(times)])

    def _normalized(self, times: np.ndarray) -> tuple[list[_Pair], np.ndarray]:
        """Return `_pairs` with g_t/s_t, which float32 can hold at any time, and s_t > 0.

        The sizes s_t have shape (n_outputs, T).
        """
        pairs = list(self._pairs(times))
        sizes = np.array([np.max(g, axis=1) for _, g in pairs])
        sizes = np.where(sizes > 0, sizes, 1)
        return [(r, g / s[:, None]) for (r, g), s in zip(pairs, sizes, strict=True)], sizes

    def _combined(self, weights: list[np.ndarray]) -> jax.Array:
        """Q w for weights w of shape (T, m), of each output."""
        basis = self._krylov.basis
        padded = np.zeros((len(weights), len(weights[0]), basis.shape[1]), self.dtype)
        for i, w in enumerate(weights):
            padded[i, :, : w.shape[1]] = w
        return _combine(basis, padded)

    def _measured_noise(self, time: float) -> np.ndarray:
        """By how much K Q differs from Q T + β q eᵀ, as it shows in c_t, for each output.

        This is what rounding does, in the products as in the basis. It is in units of K:
        times |c|/|y| it is the error of the predictions relative to |y|.
        """
        krylov, known = self._krylov, self._noise
        if known.size == krylov.size and known.time >= time:
            return known.value
        pairs, _ = self._normalized(np.array([time]))
        weights = [r.weights(g) for r, g in pairs]
        fitted = [r.fitted(g) for r, g in pairs]
        beyond = np.array([f[0, -1] for f in fitted])
        c, expected = (self._combined(w)[0] for w in (weights, [f[:, :-1] for f in fitted]))
        expected = expected + (krylov.next.T * beyond.astype(self.dtype)[None])
        found = np.asarray(self._operator.jit(_distance)(self._operator, c, expected), np.float64)
        length = (self._norms > 0) * [np.linalg.norm(w) for w in weights]
        value = np.divide(found, length, out=np.zeros_like(found), where=length > 0)
        self._noise = _Noise(krylov.size, time, value)
        return value

    def _described(self, times: np.ndarray, bounds: np.ndarray, rounded: np.ndarray) -> Report:
        """From the two parts of the errors, relative to |y|, of shape (n_outputs, T)."""
        # Where y is zero predictions are exact.
        errors = np.hypot(bounds, rounded)[self._norms > 0]
        residual, size = errors.max(axis=0, initial=0), self._krylov.size
        bad = residual > self._tol
        if not bad.any():
            return Report(residual, size, True, f"{size} products with the kernel matrix.")
        why, remedies = [], ["earlier times", "a ridge"]
        if self._stopped:
            why.append(f"Lanczos' process stopped {self._stopped}")
            remedies += ["a larger max_iterations", "solver='eigh'"]
        if rounded[self._norms > 0].max() > self._tol / 2:
            why.append(f"{self.dtype} does not hold more digits")
            remedies += [] if self._operator.dtype == np.float64 else ["a kernel matrix in float64"]
        first = scaled(times[np.argmax(bad)], -self._exponent)
        message = (
            f"predictions from t = {first:g} on are known to {residual.max():.1e} "
            f"only, relative to the targets, and tol is {self._tol:g}: {', and '.join(why)}. "
            f"Pass {', '.join(remedies[:-1])} or {remedies[-1]}."
        )
        return Report(residual, size, False, message)


class _Noise(NamedTuple):
    """What was measured, and with how many products and at what time."""

    size: int
    time: float
    value: np.ndarray


def _step(seconds: float) -> int:
    """Products at a time: a power of two, so that few programs are compiled."""
    return 2 ** int(math.log2(min(max(_PATIENCE / max(seconds, 1e-9), 1), _STEP)))


@jax.jit
def _combine(basis: jax.Array, weights: jax.Array) -> jax.Array:
    """Q w, shape (T, n, n_outputs)."""
    return jnp.einsum("omn,otm->tno", basis, weights, precision="highest")


def _distance(operator: Operator, c: jax.Array, expected: jax.Array) -> jax.Array:
    """|K c − expected| for each column."""
    return jnp.linalg.norm(operator.product(c) - expected, axis=0)
