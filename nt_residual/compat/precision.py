"""Double precision for a while, under the name that the installed JAX has for it."""

import contextlib


def enable_x64(enabled: bool = True) -> contextlib.AbstractContextManager:
    """`jax.enable_x64`: double precision in this thread, as long as the context lasts.

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
