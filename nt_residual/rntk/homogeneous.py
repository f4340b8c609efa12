"""Fast kernels of other fully-connected networks, at about the cost of a matrix product."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_residual import _checks
from nt_residual.compat import enable_x64
from nt_residual.rntk import chebyshev, tiles
from nt_residual.rntk.angles import check_angles
from nt_residual.rntk.profile import Profile, SeriesKernel, profile_of
from nt_residual.rntk.rows import check_memory, check_pair, check_range, is_known, row_norms

KernelFn = Callable[..., Any]

# The variables to try: one that stretches nothing, and those for several effective times.
_VARIABLES = (
    chebyshev.PLAIN,
    *(chebyshev.variable_for(time) for time in (1e-4, 1e-2, 1.0, 10.0, 100.0, 1000.0)),
)
# The number of angles in each call of the kernel, so that all calls have the same shape.
_CHUNK = 256


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class HomogeneousKernel(SeriesKernel):
    """The kernel scale·(|x| |x'|/d)^degree r(θ), made by `compile_homogeneous`.

    It is immutable and hashable, and a static argument of `jax.jit`.

    Attributes:
      fit: r as a series, r(0) = 1.
      degree: 1 for activations such as ReLU, 0 if inputs must have the given norm.
      scale: the kernel of an input of |x|² = d with itself.
      norm: the norm that inputs must have, or `None`.
      dim: the number of features that inputs must have, or `None`.
    """

    fit: chebyshev.Fit
    degree: float
    scale: float
    norm: float | None
    dim: int | None

    def __call__(self, x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
        """Return the kernel between two batches of inputs.

        Arguments, result and errors are those of `ResidualKernel.__call__`.

        Raises:
          ValueError: also if an input does not have the norm or the number of features that
            the kernel was compiled for.
        """
        x1, x2, dtype = check_pair(x1, x2)
        check_memory(x1, x2, 1)
        self._check_shape_and_norm(x1, "x1")
        self._check_shape_and_norm(x2, "x2")
        scale = self.scale / x1.shape[1] ** self.degree
        check_range(x1, x2, dtype, math.log(scale), degree=self.degree)
        profile = _profile(self.fit, x1.dtype.name, scale, self.degree)
        return tiles.evaluate(profile, x1, x2).astype(dtype)

    def at_angle(self, theta: ArrayLike) -> np.ndarray:
        """Return r(θ) from the float64 series, whose error is at most `fit.error`.

        Args:
          theta: angles in radians, in [0, π], any shape.

        Returns:
          A float64 NumPy array of the shape of `theta`, 1 at θ = 0.

        Raises:
          TypeError, ValueError: if `theta` does not hold angles in [0, π].
        """
        return self.fit.at_angle(check_angles(theta))

    def _check_shape_and_norm(self, x: jax.Array | None, name: str) -> None:
        if x is None:
            return
        if self.dim is not None and x.shape[1] != self.dim:
            raise ValueError(
                f"{name} must have the {self.dim} features that this kernel was compiled for, got "
                f"shape {x.shape}. Compile it again with dim={x.shape[1]}."
            )
        if self.norm is None or not is_known(x):
            return
        with jax.ensure_compile_time_eval():
            norms = np.asarray(row_norms(x))[:, 0]
        worst = int(np.argmax(np.abs(norms - self.norm)))
        if abs(norms[worst] - self.norm) > 1e-4 * self.norm:
            raise ValueError(
                f"{name} must have rows of norm {self.norm}, for which this kernel was compiled, "
                f"got {norms[worst]:.6g} in row {worst}. Normalize them: "
                f"{name} * ({self.norm} / norm of each row)."
            )


def compile_homogeneous(
    kernel_fn: KernelFn,
    *,
    get: str = "ntk",
    tol: float = 1e-7,
    norm: float | None = None,
    dim: int | None = None,
) -> HomogeneousKernel:
    """Convert the kernel of a fully-connected network to one that costs a matrix product.

    Without biases, and with activations for which σ(cx) = c^p σ(x) for every c > 0 (ReLU,
    leaky ReLU, the absolute value, monomials), a kernel is a power of |x| |x'| times a
    function of the angle between the inputs. `compile_homogeneous` samples that function in
    float64, and stores a Chebyshev series that is as long as `tol` requires.

    Args:
      kernel_fn: a kernel function of `neural_tangents.stax`, called as `kernel_fn(x1, x2, get)`.
      get: 'ntk' or 'nngp'.
      tol: the largest error of the series, as a fraction of the diagonal. Kernels with
        `neural_tangents.stax.Relu` have an error of about 1e-8 times their slope at θ = 0
        themselves; kernels with `nt_residual.stax.Relu` do not.
      norm: for networks with biases or other activations: the norm that all inputs will have.
      dim: the number of features d that inputs will have; required with `norm`.

    Raises:
      TypeError: if `kernel_fn` is not callable or an argument not a number.
      ValueError: if the kernel is not a function of norms and angle, is not homogeneous
        and no `norm` is given, is not finite, or if no series reaches `tol`.

    Example:
      >>> from nt_residual import neural_tangents as nt
      >>> from nt_residual import stax
      >>> _, _, kernel_fn = nt.stax.serial(nt.stax.Dense(1), stax.Relu(), nt.stax.Dense(1))
      >>> kernel = compile_homogeneous(kernel_fn)
      >>> kernel(np.eye(3))[0].round(4)
      Array([0.3333, 0.0531, 0.0531], dtype=float32)
    """
    if not callable(kernel_fn):
        raise TypeError(
            f"kernel_fn must be callable, got {type(kernel_fn).__name__}. Pass the third function "
            "that a layer of neural_tangents.stax returns."
        )
    _checks.choice(get, "get", ("ntk", "nngp"))
    if not 1e-12 <= _checks.number(tol, "tol") < 1:
        raise ValueError(f"tol must be in [1e-12, 1), got {tol!r}.")
    if norm is not None:
        _checks.number(norm, "norm", positive=True)
    if dim is not None:
        dim = _checks.integer(dim, "dim", 2, "Pass the number of features of inputs.")
    if norm is not None and dim is None:
        raise ValueError(
            "norm needs dim, since the kernel depends on |x|²/d. Pass dim=, the number of features "
            "that inputs will have."
        )
    sampler = _Sampler(kernel_fn, get, norm, dim or 2)
    degree, scale = sampler.degree_and_scale()
    fit = _shortest_fit(lambda theta: sampler(theta) / scale, tol)
    kernel = HomogeneousKernel(fit, degree, scale, norm, dim)
    _check_on_random_inputs(kernel, _Sampler(kernel_fn, get, norm, dim or 5))
    return kernel


class _Sampler:
    """The kernel of inputs of |x|² = d, or of the given norm, as a function of their angle."""

    def __init__(self, kernel_fn: KernelFn, get: str, norm: float | None, dim: int):
        self.dim, self.norm, self.get = dim, norm or math.sqrt(dim), get
        self.any_norm = norm is None
        self._compiled = jax.jit(lambda x1, x2: kernel_fn(x1, x2, get))

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        flat = theta.ravel()
        chunks = np.pad(flat, (0, -len(flat) % _CHUNK)).reshape(-1, _CHUNK)
        values = [self.between(self._inputs(np.zeros(1)), self._inputs(c))[0] for c in chunks]
        return np.concatenate(values)[: len(flat)].reshape(theta.shape)

    def degree_and_scale(self) -> tuple[float, float]:
        """Return p with k(ax, bx') = (ab)^p k(x, x'), or 0 for a fixed norm; and k(x, x)."""
        x = self._inputs(np.zeros(1))
        scale = float(self.between(x, x)[0, 0])
        if scale <= 0:
            raise ValueError(
                f"kernel_fn must be positive between an input and itself, got {scale:.4g}. Check "
                "that its layers have random weights, and that some layer is trained."
            )
        if not self.any_norm:
            return 0.0, scale
        return round(float(np.log2(self.between(2 * x, 2 * x)[0, 0] / scale) / 2), 6), scale

    def between(self, x1: np.ndarray, x2: np.ndarray) -> np.ndarray:
        """Return the kernel between two batches, float64."""
        with enable_x64():
            try:
                values = np.asarray(self._compiled(jnp.asarray(x1), jnp.asarray(x2)))
            except Exception as error:
                raise ValueError(
                    f"kernel_fn cannot be called as kernel_fn(x1, x2, {self.get!r}) with inputs of "
                    f"shapes {x1.shape} and {x2.shape}: {error} Pass the kernel_fn of a "
                    "fully-connected network."
                ) from error
        if values.shape != (len(x1), len(x2)) or values.dtype.kind != "f":
            raise ValueError(
                f"kernel_fn must return real floats of shape {(len(x1), len(x2))} for "
                f"{len(x1)} and {len(x2)} inputs, got {values.dtype} of shape {values.shape}. "
                "(If no layer is trained, the NTK is a scalar.)"
            )
        if not np.all(np.isfinite(values)):
            raise ValueError(
                f"kernel_fn must be finite, got NaN or infinity for inputs of shape {x2.shape}. "
                "Normalize deep residual networks, since their variances overflow. Some "
                "activations, like RectifiedMonomial, have no kernel between an input and itself."
            )
        return values

    def _inputs(self, theta: np.ndarray) -> np.ndarray:
        x = np.zeros((len(theta), self.dim))
        x[:, 0], x[:, 1] = np.cos(theta), np.sin(theta)
        return self.norm * x


def _shortest_fit(f: Callable[[np.ndarray], np.ndarray], tol: float) -> chebyshev.Fit:
    for most in (128, 1024):
        fits = [chebyshev.fit(f, variable, tol=tol / 4, most=most) for variable in _VARIABLES]
        good = [fit for fit in fits if fit.error <= tol]
        if good:
            return min(good, key=lambda fit: len(fit.coefficients))
    raise ValueError(
        f"no series of up to 1024 coefficients reaches tol={tol:g}: the best is within "
        f"{min(fit.error for fit in fits):.1e}. Pass a larger tol. (neural_tangents.stax.Relu "
        "limits the accuracy in deep networks; nt_residual.stax.Relu does not.)"
    )


def _check_on_random_inputs(kernel: HomogeneousKernel, sampler: _Sampler) -> None:
    """Raise `ValueError` unless a kernel is a power of the norms times a function of the angle."""
    unit = np.random.default_rng(0).standard_normal((8, sampler.dim))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    lengths = np.array([0.5, 2.0, 1.0, 3.0, 0.1, 10.0, 7.0, 0.3])[:, None]
    lengths = lengths if sampler.any_norm else np.ones_like(lengths)
    actual = sampler.between(sampler.norm * lengths * unit, sampler.norm * unit)
    r = kernel.at_angle(np.arccos(np.clip(unit @ unit.T, -1, 1)))
    error = np.abs(actual / (kernel.scale * lengths**kernel.degree) - r)
    # Skip pairs of an input and its multiple: in deep networks, rounding of cos θ shows there.
    np.fill_diagonal(error, 0)
    if not np.max(error) <= 10 * kernel.fit.error + 1e-6:
        raise ValueError(
            f"kernel_fn is not (|x| |x'|)^{kernel.degree:g} times a function of the angle: between "
            f"random inputs of {sampler.dim} features it is off by {np.max(error):.1e} of the "
            "diagonal. Biases (b_std) and activations such as Erf, Gelu or Sin cause this: if all "
            "inputs have one norm, pass norm= and dim=. parameterization='standard' causes it too, "
            "since kernels then depend on the number of features: pass dim=. Networks with layers "
            "that treat features differently cannot be compiled."
        )


@functools.lru_cache(maxsize=256)
def _profile(fit: chebyshev.Fit, dtype: str, scale: float, degree: float) -> Profile:
    return profile_of(fit, dtype, scale=scale, degree=degree)
