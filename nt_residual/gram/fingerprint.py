"""What a Gram matrix is computed from, in a few short texts that can be compared."""

import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

_BLOCK_BYTES = 2**26
_NAMES = {
    "kernel": "the kernel",
    "tile_size": "the tile size",
    "symmetric": "whether it is symmetric",
    "jax": "the version of jax",
    "jaxlib": "the version of jaxlib",
    "nt_residual": "the version of nt_residual",
}
# What is compared by digests, which say nothing to a reader.
_DIGESTS = ("kernel", "x1", "x2")
# The program that a kernel is lowered to depends on these.
_COMPILER = ("jax", "jaxlib", "platform", "tile_size", "shape")


def of(
    kernel: Any,
    x1: jax.Array | np.ndarray,
    x2: jax.Array | np.ndarray | None,
    *,
    tile_size: int | tuple[int, int],
    dtype: Any,
) -> dict[str, Any]:
    """What k(x1, x2) is computed from: two equal ones give the same matrix, bit for bit.

    The kernel is known by the program it is lowered to, with all numbers in it. What a
    function called back on the host (`jax.pure_callback`) does is not seen.

    Args:
      kernel: a JAX function of two batches.
      x1: shape (n1, …). A memory-mapped array is read in blocks.
      x2: shape (n2, …), or `None` for `x1`.
      tile_size: rows and columns of a tile: one number, or two.
      dtype: of the matrix.

    Returns:
      Digests of the kernel and the data, the shape, dtype and tile size, and the versions
      that rounding may depend on. It can be written as JSON.

    Raises:
      ValueError: if the data is spread over several processes.

    Example:
      >>> import numpy as np
      >>> x = np.eye(3, dtype=np.float32)
      >>> now = of(lambda a, b: a @ b.T, x, None, tile_size=2, dtype=np.float32)
      >>> difference(of(lambda a, b: 2 * a @ b.T, x, None, tile_size=2, dtype=np.float32), now)
      'the kernel'
    """
    import nt_residual

    other = x1 if x2 is None else x2
    rows, columns = map(int, np.broadcast_to(tile_size, 2))
    return {
        "kernel": _of_kernel(kernel, _tile_of(x1, rows), _tile_of(other, columns)),
        "x1": _of_array(x1, "x1"),
        "x2": "x1" if x2 is None else _of_array(x2, "x2"),
        "shape": [len(x1), len(other)],
        "dtype": np.dtype(dtype).name,
        "tile_size": [rows, columns],
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "nt_residual": nt_residual.__version__,
        "platform": f"{jax.devices()[0].device_kind} on {platform.machine()}",
    }


def difference(stored: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Says in what two fingerprints differ, or gives `None` where they do not.

    Args:
      stored: that of the matrix there is.
      now: that of the matrix that is asked for.

    Example:
      >>> difference({"jax": "0.10.2", "dtype": "float32"}, {"jax": "0.12", "dtype": "float32"})
      'the version of jax (0.10.2, now 0.12)'
    """
    differs = [key for key in {**stored, **now} if stored.get(key) != now.get(key)]
    if any(key in _COMPILER for key in differs):
        differs = [key for key in differs if key != "kernel"]
    return ", ".join(_described(key, stored.get(key), now.get(key)) for key in differs) or None


def _described(key: str, stored: Any, now: Any) -> str:
    name = _NAMES.get(key, key if key in _DIGESTS else f"the {key}")
    return name if key in _DIGESTS else f"{name} ({stored}, now {now})"


def _tile_of(x: jax.Array | np.ndarray, size: int) -> jax.ShapeDtypeStruct:
    shape = (min(size, len(x)), *x.shape[1:])
    return jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(x.dtype))


def _of_kernel(kernel: Any, *shapes: jax.ShapeDtypeStruct) -> str:
    def named(a, b):  # The name of the kernel would be part of the program.
        return kernel(a, b)

    if getattr(jax.config, "jax_use_simplified_jaxpr_constants", False):
        # Arrays that the kernel closes over are then arguments, of which the text has no values.
        from jax import export

        text = export.export(jax.jit(named))(*shapes).mlir_module()
        # Here the text says in which lines of which files it was written.
        text = re.sub(r" loc\([^()]*\)|^#loc.*$", "", text, flags=re.MULTILINE)
    else:
        text = jax.jit(named).lower(*shapes).as_text()
    return hashlib.sha256(_without_names(text).encode()).hexdigest()


def _without_names(text: str) -> str:
    """A program whose functions are numbered: their names say nothing of what they compute."""
    numbers: dict[str, str] = {}
    return re.sub(r"@[\w.$-]+", lambda m: numbers.setdefault(m[0], f"@{len(numbers)}"), text)


def _of_array(x: jax.Array | np.ndarray, name: str) -> str:
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        raise ValueError(
            f"{name} must be on this process when the matrix is stored, got an array that is "
            "spread over several. Pass it as a NumPy array."
        )
    x = np.asarray(x)
    digest = hashlib.sha256(json.dumps([x.dtype.name, x.shape]).encode())
    rows = max(1, _BLOCK_BYTES // max(1, x.nbytes // len(x)))
    for start in range(0, len(x), rows):
        digest.update(x[start : start + rows].tobytes())
    return digest.hexdigest()
