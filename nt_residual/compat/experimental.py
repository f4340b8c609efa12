"""Stands in for `neural_tangents.experimental`, which imports TensorFlow at once."""

from typing import Any, NoReturn


def _needs_tensorflow(name: str, remedy: str) -> NoReturn:
    raise NotImplementedError(
        f"neural_tangents.experimental.{name} needs TensorFlow, jax2tf and tf2jax, which "
        f"nt_residual never imports. {remedy}"
    )


def empirical_ntk_fn_tf(*args: Any, **kwargs: Any) -> NoReturn:
    """Not available: the empirical NTK of a TensorFlow model.

    Raises:
      NotImplementedError: always.
    """
    del args, kwargs
    _needs_tensorflow(
        "empirical_ntk_fn_tf",
        "Write the model in JAX or Flax and use neural_tangents.empirical_ntk_fn.",
    )


def get_apply_fn_and_params(*args: Any, **kwargs: Any) -> NoReturn:
    """Not available: the JAX form of a TensorFlow model.

    Raises:
      NotImplementedError: always.
    """
    del args, kwargs
    _needs_tensorflow(
        "get_apply_fn_and_params",
        "Convert the model with tf2jax in a process of its own and save its parameters.",
    )
