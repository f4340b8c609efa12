"""The checks that targets, times, options and kernel matrices in memory must pass."""

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from numpy.typing import ArrayLike

from nt_residual import _checks
from nt_residual._checks import native

# Targets of which the mean is not looked at.
_FEW = 10


def real_array(values: ArrayLike, name: str) -> np.ndarray:
    """Returns `values` in float64, refused if they are not finite real numbers."""
    array = numbers(values, name)
    check_finite(array, name)
    return array


def numbers(values: ArrayLike, name: str) -> np.ndarray:
    """Returns `values` in float64, refused if they are not real numbers."""
    return np.asarray(as_array(values, name)).astype(np.float64)


def as_array(values: Any, name: str) -> np.ndarray | jax.Array:
    """Returns `values` as an array that JAX can take, one of JAX as it is.

    Raises:
      TypeError: if they are not real numbers.
    """
    if isinstance(values, jax.Array):
        array = values
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise TypeError(f"{name} must be an array of real numbers: {error}") from None
    check_real(array.dtype, name)
    return array if isinstance(array, jax.Array) else native(array)


def check_real(dtype: np.dtype, name: str) -> None:
    """Refuses a dtype that is not one of real numbers.

    Raises:
      TypeError: if it is not.
    """
    complex_ = jnp.issubdtype(dtype, np.complexfloating)
    if complex_ or not jnp.issubdtype(dtype, np.number):
        raise TypeError(f"{name} must hold real numbers, got dtype {dtype}.")


def float_dtype(k: Any) -> np.dtype:
    """The dtype of `k` if it is a float dtype; integers and lists count as float64."""
    dtype = np.dtype(getattr(k, "dtype", np.float64)).newbyteorder("=")
    return dtype if jnp.issubdtype(dtype, np.floating) else np.dtype(np.float64)


def check_finite(array: np.ndarray | jax.Array, name: str) -> None:
    """Refuses values that are NaN or infinite, and says where the first one is.

    Nothing of the size of the array is allocated, and one that is sharded is not gathered.

    Raises:
      ValueError: if there is such a value.
    """
    counts = _not_finite(array)
    if not counts.any():
        return
    where, row = "", int(np.argmax(counts > 0))
    if array.ndim:
        where = f", the first in row {row}"
    # Another process may hold that row.
    if array.ndim == 2 and not (isinstance(array, jax.Array) and not array.is_fully_addressable):
        where += f", column {np.argmax(~np.isfinite(np.asarray(array[row], np.float64)))}"
    raise ValueError(
        f"{name} must be finite, got {counts.sum()} values that are NaN or infinite{where}. "
        "Check the data it was computed from."
    )


def _not_finite(array: np.ndarray | jax.Array) -> np.ndarray:
    """How many values of each row are NaN or infinite."""
    if array.size == 0:
        return np.zeros(1, int)
    if isinstance(array, jax.Array):
        # Counting is several times slower, and seldom needed.
        fine = np.isfinite(_sum(array))
        return np.zeros(1, int) if fine else np.asarray(_count_not_finite(array))
    if array.ndim == 0:
        return np.asarray(~np.isfinite(array))
    parts = np.array_split(array, min(len(array), 1 + array.nbytes // 2**26))
    return np.concatenate(
        [np.sum(~np.isfinite(part), axis=tuple(range(1, part.ndim))) for part in parts]
    )


@jax.jit
def _sum(array: jax.Array) -> jax.Array:
    """Not finite if a value is not. XLA's maximum may leave NaN out."""
    return jnp.sum(array)


def _count_not_finite(array: jax.Array) -> jax.Array:
    """The counts of `_not_finite`, in every process if the array is sharded over several."""
    sharding = array.sharding
    if isinstance(sharding, NamedSharding):
        sharding = NamedSharding(sharding.mesh, PartitionSpec())
        return jax.jit(_count, out_shardings=sharding)(array)
    return jax.jit(_count)(array)


def _count(array: jax.Array) -> jax.Array:
    return jnp.sum(~jnp.isfinite(array), axis=tuple(range(1, array.ndim)))


def check_times(t: ArrayLike) -> np.ndarray:
    """Returns times in float64, refused unless they are ≥ 0 and do not decrease.

    Raises:
      TypeError: if they are not real numbers.
      ValueError: if a time is negative, NaN, or less than the one before it, or they are not
        a scalar or a vector.
    """
    times = numbers(t, "t")
    if times.ndim > 1 or times.size == 0:
        raise ValueError(f"t must be a scalar or have shape (T,), T ≥ 1, got shape {times.shape}.")
    if not np.all(times >= 0):
        raise ValueError(f"t must be ≥ 0 and not NaN, got {t!r}. math.inf is the interpolant.")
    falls = np.flatnonzero(times[1:] < times[:-1]) if times.ndim else np.array([])
    if falls.size:
        i = int(falls[0])
        raise ValueError(
            f"t must not decrease, got t[{i}] = {times[i]:g} and t[{i + 1}] = {times[i + 1]:g}. "
            "Pass np.sort(t): one time after the other is one training run."
        )
    return times


def check_targets(y: ArrayLike, n: int) -> np.ndarray:
    """Returns targets in float64, shape (n,) or (n, n_outputs).

    Raises:
      TypeError: if they are not real numbers.
      ValueError: if the shape is wrong or a value is NaN or infinite.
    """
    outputs = numbers(y, "y")
    if outputs.ndim not in (1, 2) or outputs.shape[0] != n or outputs.size == 0:
        raise ValueError(
            f"y must have shape (n,) or (n, n_outputs) with n = {n}, the size of k_train, "
            f"got shape {outputs.shape}. Pass one target per training input."
        )
    check_finite(outputs, "y")
    return outputs


def check_centering(y: np.ndarray, center_targets: bool | None, stacklevel: int) -> bool:
    """Return whether to center targets of shape (n, …), and warn where `None` is a bad choice.

    Raises:
      TypeError: if `center_targets` is neither a bool nor `None`.
    """
    if center_targets is not None:
        return _checks.boolean(center_targets, "center_targets")
    values = scaled(y, -exponent(y))
    mean, spread = np.linalg.norm(values.mean(axis=0)), np.linalg.norm(values.std(axis=0))
    two = np.all((values == values.min()) | (values == values.max()))
    # The mean of a few targets says little.
    if len(y) >= _FEW and mean > spread and not two:
        warnings.warn(
            f"the mean of y is {mean / spread:.3g} times its standard deviation, and gradient flow "
            "starts from f_0 = 0: most of the time goes to the mean. Pass center_targets=True to "
            "start from the mean, or False if 0 is meant.",
            UserWarning,
            stacklevel=stacklevel,
        )
    return False


def holds(dtype: np.dtype, unit: int) -> bool:
    """Return whether a dtype holds normal numbers of about 2^unit."""
    limits = jnp.finfo(dtype)
    return limits.minexp < unit <= limits.maxexp


def exponent(values: np.ndarray) -> int:
    """Return e such that the largest |value| is 2^e, or less and more than half of it.

    It is 0 where no value is larger than zero, or one is infinite or NaN.
    """
    largest = float(np.max(np.abs(values), initial=0))
    return math.frexp(largest)[1] if math.isfinite(largest) else 0


def scaled(values: ArrayLike, exponents: ArrayLike) -> np.ndarray:
    """Return values · 2^exponents in float64: exact in its range, else infinity or zero."""
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(np.asarray(values, np.float64), exponents)


def loses_digits(unit: int, dtype: np.dtype) -> bool:
    """Return whether entries just above the rounding of 2^unit are below the normal numbers.

    XLA takes those to be zero on most devices.
    """
    limits = jnp.finfo(dtype)
    return math.ldexp(float(limits.eps), unit) < float(limits.tiny)


def rounding(dtype: np.dtype, diagonal: np.ndarray) -> float:
    """ε √n max_i K_ii: eigenvalues that rounding of the entries of K can produce."""
    return float(jnp.finfo(dtype).eps) * math.sqrt(len(diagonal)) * float(np.max(diagonal))


def check_definite(smallest: float, largest: float, dtype: np.dtype, exponent: int) -> None:
    """Refuses eigenvalues of a matrix that is not positive semi-definite up to rounding.

    Args:
      smallest: eigenvalue, in units of 2^exponent.
      largest: likewise.
      dtype: of the entries.
      exponent: of the unit.

    Raises:
      ValueError: if it is not, or is zero.
    """
    # In half precision the root would allow several per cent.
    allowed = min(math.sqrt(float(jnp.finfo(dtype).eps)), 0.01)
    if smallest < -allowed * largest or largest <= 0:
        found = scaled([smallest, largest], exponent)
        zero = " Inputs so small that their kernel is below its dtype's range need scaling."
        raise ValueError(
            f"k_train must be positive semi-definite, got eigenvalues from {found[0]:.3g} to "
            f"{found[1]:.3g}. Check that it is kernel(x_train).{zero if largest == 0 else ''}"
        )


def check_symmetric(asymmetry: float, dtype: np.dtype, diagonal: np.ndarray, exponent: int) -> None:
    """Refuses a largest |K − Kᵀ| that is beyond rounding.

    Args:
      asymmetry: the largest |K − Kᵀ|, in units of 2^exponent.
      dtype: of the entries.
      diagonal: of K, in the same units.
      exponent: of the unit.

    Raises:
      ValueError: if it is.
    """
    # Entries computed in another order differ in the last bits: 100 √n of them are allowed, but
    # fewer in half precision, where so many would be all.
    most = max(8 * float(jnp.finfo(dtype).eps), 0.01) * float(np.max(diagonal))
    if asymmetry > min(100 * rounding(dtype, diagonal), most):
        found = scaled(asymmetry, exponent)
        raise ValueError(
            f"k_train must be symmetric, got |K − Kᵀ| up to {found:.3g}. Pass kernel(x_train); "
            "a kernel between different inputs belongs in predict."
        )
