"""neural-tangents 0.6.5 on today's JAX, without TensorFlow.

neural-tangents was last released for the JAX of late 2023. It asks for names
that JAX has since moved or removed, calls JAX's internals in ways that have
changed, and imports TensorFlow for one experimental function. `install` puts
a finder in front of Python's import system that acts on `neural_tangents` and
on nothing else:

* `finder` gives each of its modules an import statement of its own, one that
  sees JAX through the overlay built in `jax_names`;
* `jax_names` lists what neural-tangents expects and where it is now;
* `experimental` stands in for the module that needs TensorFlow;
* `replacements` lists the functions of neural-tangents that are replaced: in
  `empirical` and `rules` for structured derivatives, which work on the
  `linear_program` that JAX's public functions give, in `parallel` for
  `batch` on several devices, and in `layers` for masks and inputs of two sizes.

Neither JAX nor SciPy is ever written to, not even while neural-tangents is
being imported, so other packages and other threads see them as they are.

This is the only package of ours that touches JAX internals.
"""

import contextlib

from nt_residual.compat.finder import KNOWN_JAX as KNOWN_JAX
from nt_residual.compat.finder import NEURAL_TANGENTS_VERSION as NEURAL_TANGENTS_VERSION
from nt_residual.compat.finder import install as install


def enable_x64(enabled: bool = True) -> contextlib.AbstractContextManager:
    """Set double precision in this thread, as long as the context lasts: `jax.enable_x64`.

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
