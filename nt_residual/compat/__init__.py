"""neural-tangents 0.6.5 on today's JAX, without TensorFlow.

neural-tangents was last released for the JAX of late 2023, and imports TensorFlow for one
experimental function. `install` puts a finder in front of Python's import system that acts on
`neural_tangents` alone: its modules see JAX through the overlays of `jax_names`, and some of its
functions are replaced, as `replacements` lists. Neither JAX nor SciPy is ever written to, so other
packages and threads see them as they are.

This is the only package of ours that touches JAX internals.
"""

import contextlib

from nt_residual.compat.finder import KNOWN_JAX as KNOWN_JAX
from nt_residual.compat.finder import NEURAL_TANGENTS_VERSION as NEURAL_TANGENTS_VERSION
from nt_residual.compat.finder import install as install


def enable_x64(enabled: bool = True) -> contextlib.AbstractContextManager:
    """Return a context in which this thread computes in float64, as `jax.enable_x64`.

    Example:
      >>> import jax.numpy as jnp
      >>> with enable_x64():
      ...     print(jnp.zeros(()).dtype)
      float64
    """
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(enabled)
    from jax.experimental import enable_x64 as experimental  # pyright: ignore

    return experimental(enabled)
