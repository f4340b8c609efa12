"""Infinitely wide residual networks of any depth, in JAX.

Importing this package makes neural-tangents work on today's JAX, without TensorFlow:
`from nt_residual import neural_tangents as nt`. Its parts are imported when they are first used:

* `neural_tangents`: neural-tangents itself; from then on `import neural_tangents` works, too;
* `schedules`: the residual scale α as a function of depth;
* `stax`: residual layers for neural-tangents;
* `rntk`: the kernel of fully-connected residual networks in closed form;
* `conv`: the kernel of convolutional residual networks;
* `theory`: limits of deep kernels, rates, eigenvalues and predicted test errors;
* `gram`: matrices of any kernel: in memory, over devices, on disk, or not stored;
* `regression`: kernel regression with early stopping;
* `finite_width`: Flax networks of finite width, to check kernels and to train;
* `data`: data sets and preparation of inputs;
* `experiments`: the claims of arXiv 2403.04545, one function each.

Example:
  >>> import nt_residual
  >>> from nt_residual import rntk, schedules
  >>> import jax.numpy as jnp
  >>> kernel = rntk.ResidualKernel(depth=1000, schedule=schedules.PowerLaw(gamma=0.5))
  >>> kernel(jnp.eye(2)).round(4)
  Array([[1.    , 0.1928],
         [0.1928, 1.    ]], dtype=float32)
"""

import importlib
import typing

from nt_residual import compat

if typing.TYPE_CHECKING:
    import neural_tangents as neural_tangents

    from nt_residual import (
        conv,
        data,
        experiments,
        finite_width,
        gram,
        regression,
        rntk,
        schedules,
        stax,
        theory,
    )

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "compat",
    "conv",
    "data",
    "experiments",
    "finite_width",
    "gram",
    "neural_tangents",
    "regression",
    "rntk",
    "schedules",
    "stax",
    "theory",
]

compat.install()


def __getattr__(name: str):
    if name == "neural_tangents":
        return importlib.import_module(name)
    if name in __all__:
        return importlib.import_module(f"nt_residual.{name}")
    raise AttributeError(f"module 'nt_residual' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
