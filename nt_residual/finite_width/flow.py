"""Trained networks beside the gradient flow of their kernel."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
from jax.typing import ArrayLike

from nt_residual import _checks
from nt_residual.finite_width import losses
from nt_residual.finite_width.descent import hashable
from nt_residual.finite_width.learning_rate import check_learning_rate, largest_learning_rate
from nt_residual.finite_width.networks import Network, as_network, outputs
from nt_residual.finite_width.training import gradient_descent, train
from nt_residual.regression import GradientFlow
from nt_residual.regression.inputs import check_times
from nt_residual.theory import plots

# Steps follow the flow to about a quarter of this fraction of the target, where they are worst.
_SHARE_OF_THE_BOUND = 1 / 20
# Of the derivatives of a tile of inputs.
_TILE_BYTES = 2**29
# Outputs at the start that are larger, relative to the targets, are not rounding.
_ZERO = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)
class FlowMatch:
    """A network in training beside gradient flow.

    Attributes:
      times: t = η · steps, shape (T,), which are those asked for up to a step.
      steps: the number of steps at each, shape (T,).
      learning_rate: η.
      network: outputs of the network at the test inputs, shape (T, n_test, n_outputs).
      flow: predictions of `regression.GradientFlow` there.
      distance: the root mean square of their difference, relative to that of the targets, (T,).
    """

    times: np.ndarray
    steps: np.ndarray
    learning_rate: float
    network: np.ndarray
    flow: np.ndarray
    distance: np.ndarray

    def __repr__(self) -> str:
        worst = int(np.argmax(self.distance))
        return (
            f"FlowMatch(distance={self.distance[-1]:.2g} at t={self.times[-1]:.3g}, at most "
            f"{self.distance[worst]:.2g} at t={self.times[worst]:.3g}, {self.steps[-1]} steps, "
            f"learning_rate={self.learning_rate:.3g})"
        )

    def plot(self, ax: Any = None, *, label: str | None = None) -> Any:
        """Draws the distance against time.

        Args:
          ax: a matplotlib `Axes` to draw into; `None` for a new figure.
          label: of the line.

        Returns:
          The `Axes`.

        Raises:
          ImportError: if matplotlib is missing.
        """
        if ax is None:
            ax = plots.new_figure(5, 4).subplots()
        ax.plot(self.times, self.distance, marker="o", label=label)
        ax.set(xscale="log", yscale="log", xlabel="time t = η · steps")
        ax.set_ylabel("distance of network and flow / target")
        ax.grid(alpha=0.3)
        return ax


def training_matches_flow(
    network: Any,
    x: ArrayLike,
    y: ArrayLike,
    x_test: ArrayLike,
    times: ArrayLike,
    *,
    kernel: Callable | None = None,
    learning_rate: float | None = None,
    progress: bool = False,
) -> FlowMatch:
    """Trains a network by gradient descent, and compares it with the gradient flow of a kernel.

    With the kernel in closed form the distance falls with the width, down to that between steps and
    flow: make the learning rate smaller to lower it.

    Args:
      network: as for `train`, with outputs that are zero at first: `mirrored=True`.
      x: training inputs, shape (n, …).
      y: targets, shape (n, n_outputs), or (n,) for one output.
      x_test: where both are compared, shape (n_test, …).
      times: t ≥ 0, not decreasing, shape (T,), in the units of `GradientFlow`: those of the
        network's own kernel, n/λ is the time in which an eigenvector is learned.
      kernel: `kernel(x1, x2=None)`, shape (n1, n2), the NTK of the infinitely wide network, for
        each output. It must not be normalized: the `kernel_fn` of a `stax` network with the same
        arguments has the right scale. `None` for the empirical NTK of the network before
        training, of all its outputs; the difference is then that of training alone.
      learning_rate: η; `None` for a twentieth of `largest_learning_rate`.
      progress: whether to show progress bars.

    Raises:
      TrainingDiverged: if a loss is NaN or infinite.
      TypeError: if an argument is of the wrong type.
      ValueError: if the network does not start at zero, the learning rate is not positive or past
        the bound, times are infinite, or something else is no good for `train` or `GradientFlow`.

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
    x, x_test = _checks.finite_batch(x, "x"), _checks.finite_batch(x_test, "x_test")
    net = as_network(network, x)
    like = jax.eval_shape(net.apply, net.params, net.rest, x)
    y = losses.check_targets(y, "half_norm", like, "y")
    moments = check_times(cast(Any, times))
    if moments.ndim != 1 or not np.all(np.isfinite(moments)) or not moments.any():
        raise ValueError(f"times must be finite, shape (T,), and not all zero, got {times}.")
    with jax.default_matmul_precision("highest"):
        size = _root_mean_square(y)
        _check_zero(net, {"x": x, "x_test": x_test}, size)
        if learning_rate is None:
            bound = largest_learning_rate(net, x)
            rate = min(_SHARE_OF_THE_BOUND * bound, float(moments[moments > 0][0]))
        else:
            rate = check_learning_rate(learning_rate, net, x)
        steps = np.rint(moments / rate).astype(int)
        flow = _flow(net, x, y, x_test, steps * rate, kernel)
        found = []
        for more in np.diff(steps, prepend=0):
            if more:
                net = train(
                    net,
                    x,
                    y,
                    optimizer=gradient_descent(rate),
                    steps=int(more),
                    evaluate_every=int(more),
                    progress=progress,
                ).network
            found.append(np.asarray(outputs(net, x_test)))
    distance = np.array([_root_mean_square(a - b) / size for a, b in zip(found, flow, strict=True)])
    return FlowMatch(steps * rate, steps, rate, np.stack(found), flow, distance)


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.asarray(values, np.float64) ** 2)))


def _check_zero(net: Network, inputs: dict[str, Any], size: float) -> None:
    if size == 0:
        raise ValueError("y must not be zero everywhere: distances are relative to its norm.")
    for name, x in inputs.items():
        largest = np.max(np.abs(outputs(net, x)))
        if not largest <= _ZERO * size:
            raise ValueError(
                "network must start at zero, as gradient flow does, got outputs of up to "
                f"{largest:.3g} for {name}. Make it with mirrored=True."
            )


def _flow(net, x, y, x_test, times, kernel) -> np.ndarray:
    """Predictions at the test inputs, shape (T, n_test, n_outputs)."""
    if kernel is not None:
        flow = GradientFlow.fit(np.asarray(kernel(x)), y, center_targets=False)
        return flow.predict(np.asarray(kernel(x_test, x)), times)
    # Each output of each input counts as an input, of which there are more then: the loss of
    # `GradientFlow` is their mean, and all takes that much longer.
    n_outputs = y.shape[1]
    k = _empirical_ntk(net, x, x)
    flow = GradientFlow.fit((k + k.T) / 2, y.ravel(), center_targets=False)
    found = flow.predict(_empirical_ntk(net, x_test, x), times * n_outputs)
    return found.reshape(len(times), len(x_test), n_outputs)


def _empirical_ntk(net: Network, x1: Any, x2: Any) -> np.ndarray:
    """The NTK of all outputs, shape (n1 · n_outputs, n2 · n_outputs), in tiles of inputs."""
    n_outputs = jax.eval_shape(net.apply, net.params, net.rest, x1).shape[1]
    bytes_each = n_outputs * sum(leaf.nbytes for leaf in jax.tree.leaves(net.params))
    size = max(1, _TILE_BYTES // bytes_each)
    rows = []
    for i in range(0, len(x1), size):
        tiles = [
            _tile(hashable(net.apply), net.params, net.rest, x1[i : i + size], x2[j : j + size])
            for j in range(0, len(x2), size)
        ]
        rows.append(np.concatenate([np.asarray(tile) for tile in tiles], axis=1))
    k = np.concatenate(rows)
    return np.moveaxis(k, 2, 1).reshape(len(x1) * n_outputs, len(x2) * n_outputs)


@functools.partial(jax.jit, static_argnums=0)
def _tile(apply, params, rest, x1, x2):
    kernel_fn = nt.empirical_ntk_fn(
        cast(Any, lambda params, inputs: apply(params, rest, inputs)),
        trace_axes=(),
        vmap_axes=0,
        implementation=nt.NtkImplementation.JACOBIAN_CONTRACTION,
    )
    return jnp.asarray(kernel_fn(x1, x2, params))
