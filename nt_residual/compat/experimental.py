"""Stands in for `neural_tangents.experimental`, which imports TensorFlow at once."""

from typing import Any, NoReturn

_NEEDS = (
    "neural_tangents.experimental.{} needs TensorFlow, jax2tf and tf2jax, which nt_residual never "
    "imports. {}"
)


def empirical_ntk_fn_tf(*args: Any, **kwargs: Any) -> NoReturn:
    """Raise `NotImplementedError`: the empirical NTK of a TensorFlow model is not available."""
    del args, kwargs
    remedy = "Write the model in JAX or Flax and use neural_tangents.empirical_ntk_fn."
    raise NotImplementedError(_NEEDS.format("empirical_ntk_fn_tf", remedy))


def get_apply_fn_and_params(*args: Any, **kwargs: Any) -> NoReturn:
    """Raise `NotImplementedError`: the JAX form of a TensorFlow model is not available."""
    del args, kwargs
    remedy = "Convert the model with tf2jax in a process of its own and save its parameters."
    raise NotImplementedError(_NEEDS.format("get_apply_fn_and_params", remedy))
