"""Comparison of trained networks with the gradient flow of their kernel."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np
import optax
from jax.typing import ArrayLike

from nt_residual import _checks
from nt_residual.finite_width import losses
from nt_residual.finite_width.learning_rate import largest_learning_rate
from nt_residual.finite_width.networks import Network, as_network, outputs
from nt_residual.finite_width.training import train
from nt_residual.regression import GradientFlow
from nt_residual.regression.arguments import check_times

# At this fraction of the largest learning rate, the largest distance between gradient descent and
# the flow is about 1% of the targets.
_FRACTION_OF_THE_BOUND = 1 / 20
_ROUNDING = 1e-4  # Of initial outputs, relative to the targets.


@dataclasses.dataclass(frozen=True, eq=False)
class FlowMatch:
    """The comparison of a network in training with a gradient flow.

    Attributes:
      times: t = η · steps, shape (T,), the times asked for rounded to whole steps.
      steps: the number of steps at each time, shape (T,).
      learning_rate: η.
      network: outputs of the network at the test inputs, shape (T, n_test, n_outputs).
      flow: predictions of `regression.GradientFlow`, same shape.
      distance: their root mean square difference over that of the targets, shape (T,).
    """

    times: np.ndarray
    steps: np.ndarray
    learning_rate: float
    network: np.ndarray
    flow: np.ndarray
    distance: np.ndarray

    def __repr__(self) -> str:
        return (
            f"FlowMatch(distance={self.distance[-1]:.2g} at t={self.times[-1]:.3g}, at most "
            f"{self.distance.max():.2g}, learning_rate={self.learning_rate:.3g})"
        )


def training_matches_flow(
    network: Any,
    x: ArrayLike,
    y: ArrayLike,
    x_test: ArrayLike,
    times: ArrayLike,
    *,
    kernel: Callable,
    learning_rate: float | None = None,
    progress: bool = False,
) -> FlowMatch:
    """Train a network by gradient descent and compare it with the gradient flow of a kernel.

    With the kernel of infinite width the distance decreases with the width of the network, down to
    the difference between gradient descent and flow, which falls with the learning rate.

    Args:
      network: as for `train`, with outputs that are zero initially: `mirrored=True`.
      x: training inputs, shape (n, …).
      y: targets, shape (n, n_outputs), or (n,) for one output.
      x_test: inputs to compare both at, shape (n_test, …).
      times: t ≥ 0, not decreasing, shape (T,), in the units of `GradientFlow`: an eigenvector of
        the network's own kernel with eigenvalue λ is learned in the time n/λ.
      kernel: `kernel(x1, x2=None)`, shape (n1, n2), the NTK of the infinitely wide network for
        each output, in the units of the `kernel_fn` of the same `stax` network.
      learning_rate: η; `None` for a twentieth of `largest_learning_rate`.
      progress: whether to show progress bars.

    Raises:
      TrainingDiverged: if a loss is NaN or infinite.
      TypeError: if an argument has the wrong type.
      ValueError: if the network does not start at zero, the learning rate or the times are out of
        range, or an argument is invalid for `train` or `GradientFlow`.

    Example:
      >>> import functools
      >>> from flax import nnx
      >>> from nt_residual import finite_width, stax
      >>> x, y = np.eye(3, dtype="float32"), np.array([1.0, -1.0, 0.5])
      >>> model = finite_width.ResNet(1, 512, in_dim=3, mirrored=True, rngs=nnx.Rngs(0))
      >>> _, _, kernel_fn = stax.FullyConnectedResNet(1, 512)
      >>> kernel = jax.jit(functools.partial(kernel_fn, get="ntk"))
      >>> match = training_matches_flow(model, x, y, x, [1.0, 5.0], kernel=kernel)
      >>> bool(max(match.distance) < 0.1)
      True
    """
    _checks.boolean(progress, "progress")
    x, x_test = _checks.finite_batch(x, "x"), _checks.finite_batch(x_test, "x_test")
    net = as_network(network, x)
    y = losses.check_targets(y, "half_norm", net, x, "y")
    asked = check_times(cast(Any, times))
    if asked.ndim != 1 or not np.all(np.isfinite(asked)) or not asked.any():
        raise ValueError(f"times must be finite, shape (T,), and not all zero, got {times}.")
    with jax.default_matmul_precision("highest"):
        _check_zero(net, y, x=x, x_test=x_test)
        bound = largest_learning_rate(net, x)
        rate = min(_FRACTION_OF_THE_BOUND * bound, float(asked[asked > 0][0]))
        if learning_rate is not None:
            rate = _checks.number(learning_rate, "learning_rate", positive=True)
            if rate >= bound:
                raise ValueError(
                    f"learning_rate must be below 2n/λ_max = {bound:.4g}, or gradient descent "
                    f"diverges, got {rate:.4g}."
                )
        steps = np.rint(asked / rate).astype(int)
        flow = GradientFlow.fit(np.asarray(kernel(x)), y, center_targets=False)
        expected = flow.predict(np.asarray(kernel(x_test, x)), steps * rate)
        found = _trained_outputs(net, x, y, x_test, steps, rate, progress)
    distance = np.array([_rms(a - b) / _rms(y) for a, b in zip(found, expected, strict=True)])
    return FlowMatch(steps * rate, steps, rate, found, expected, distance)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.asarray(values, np.float64) ** 2)))


def _check_zero(net: Network, y: np.ndarray, **inputs: Any) -> None:
    if not y.any():
        raise ValueError("y must not be zero everywhere: distances are relative to its norm.")
    for name, x in inputs.items():
        largest = np.max(np.abs(outputs(net, x)))
        if not largest <= _ROUNDING * _rms(y):
            raise ValueError(
                "network must start at zero, as gradient flow does, got outputs of up to "
                f"{largest:.3g} for {name}. Make it with mirrored=True."
            )


def _trained_outputs(
    net: Network, x: Any, y: Any, x_test: Any, steps: np.ndarray, rate: float, progress: bool
) -> np.ndarray:
    """Outputs after each number of steps, shape (T, n_test, n_outputs)."""
    optimizer, found = optax.sgd(rate), []
    for more in np.diff(steps, prepend=0).tolist():
        if more:
            options = {"optimizer": optimizer, "evaluate_every": more, "progress": progress}
            net = train(net, x, y, steps=more, **options).network
        found.append(np.asarray(outputs(net, x_test)))
    return np.stack(found)
