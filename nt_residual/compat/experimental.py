"""Stands in for `neural_tangents.experimental`, which imports TensorFlow at once."""

from typing import Any, NoReturn


def empirical_ntk_fn_tf(*args: Any, **kwargs: Any) -> NoReturn:
    """Raise `NotImplementedError`: TensorFlow, jax2tf and tf2jax are never imported."""
    del args, kwargs
    raise NotImplementedError(
        "neural_tangents.experimental needs TensorFlow, which nt_residual never imports. Write the "
        "model in JAX or Flax and use neural_tangents.empirical_ntk_fn."
    )


get_apply_fn_and_params = empirical_ntk_fn_tf
