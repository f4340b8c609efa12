"""Training of networks of finite width."""

import contextlib
import dataclasses
import math
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.typing import ArrayLike
from tqdm import tqdm

from nt_residual import _checks
from nt_residual.finite_width import losses, saved_training
from nt_residual.finite_width.losses import Loss
from nt_residual.finite_width.networks import Network, as_network, hashable
from nt_residual.finite_width.training_programs import Program, State, batches
from nt_residual.gram import sharded


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """The result of `train`.

    Attributes:
      network: the network, in the form passed, with the parameters of `best_step`.
      history: arrays with an entry for each evaluation: 'step'; 'loss' of all training inputs; with
        `validation`, 'validation_loss', and for loss='cross_entropy' 'validation_error', the
        fraction of wrong classes.
      steps: the number of steps taken.
      best_step: the step of the least validation loss; without validation, the last step.
      stopped: 'steps', 'patience' or 'diverged', the reason why training stopped.
    """

    network: Any
    history: dict[str, np.ndarray]
    steps: int
    best_step: int
    stopped: str

    def __repr__(self) -> str:
        return f"Trained(steps={self.steps}, best_step={self.best_step}, stopped={self.stopped!r})"


class TrainingDiverged(ArithmeticError):
    """The error raised when a loss is NaN or infinite.

    Attributes:
      step: the number of steps before it.
      result: the `Trained` of the last evaluation before.
    """

    def __init__(self, step: int, result: Trained):
        super().__init__(
            f"the loss is not finite at step {step}. Use a lower learning rate, or look at the "
            f"inputs and targets; result has the network of step {result.best_step}."
        )
        self.step = step
        self.result = result


def train(
    network: Any,
    x: ArrayLike,
    y: ArrayLike,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch_size: int | None = None,
    loss: Loss = "half_norm",
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    evaluate_every: int = 100,
    patience: int | None = None,
    out: str | os.PathLike | None = None,
    mesh: Mesh | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Trained:
    """Train a network with an optimizer of optax.

    The loss is a mean over inputs. 'half_norm' is ½|f(x) − y|², summed over outputs, the loss of
    `regression.GradientFlow`: gradient descent with learning rate η follows it for the time
    t = η · steps. `regression.time_of_steps` has the formulas and times of all squared losses.
    Inputs are shuffled in each epoch; the last ones are left out if they do not fill a batch.

    Networks of the same form share compiled programs if you pass the same `optimizer` object.

    Args:
      network: an `nnx.Module`, whose `nnx.Param` are trained, or a pair `(apply_fn, params)` with
        `apply_fn(params, x)`. It does not change.
      x: inputs, shape (n, …), floats.
      y: targets. For squared losses shape (n, n_outputs), or (n,) for one output; for
        'cross_entropy' integer labels, shape (n,); for a function, what it takes.
      optimizer: such as `optax.adam(1e-3)`. Gradient descent on all inputs, `optax.sgd(η)`,
        converges for η below `largest_learning_rate`.
      steps: the largest number of steps.
      batch_size: inputs per step; `None` for all.
      loss: 'half_norm', 'half_mse', 'mse', 'cross_entropy', or a function of outputs, shape
        (n, n_outputs), and targets that returns shape (n,).
      validation: inputs and targets. The result has the parameters with the least loss on them.
      evaluate_every: steps between evaluations, on all training and validation inputs.
      patience: stop after this many evaluations without a better validation loss; `None` for never.
      out: a folder to save the run in at each evaluation. If the process ends early, run the same
        call again: it resumes, with the same result, bit for bit; on another number of devices, up
        to rounding. A run that ended continues with more `steps` or `patience`.
      mesh: devices that share each batch: `jax.make_mesh((8,), ('data',))`. Their number must
        divide that of the inputs of a batch.
      seed: of the order of the batches.
      progress: whether to show a progress bar.

    Raises:
      BlockingIOError: if another process is training into `out`.
      FileExistsError: if `out` holds something else.
      TrainingDiverged: if a loss is NaN or infinite.
      TypeError: if an argument has the wrong type.
      ValueError: if an argument is invalid, or `out` holds a run of another configuration.

    Example:
      >>> import numpy as np
      >>> from nt_residual.finite_width import ResNet
      >>> x = np.eye(3, dtype="float32")
      >>> model = ResNet(2, 64, in_dim=3, mirrored=True, rngs=nnx.Rngs(0))
      >>> y = np.array([1.0, -1.0, 0.0])
      >>> trained = train(model, x, y, optimizer=optax.sgd(0.2), steps=200)
      >>> bool(trained.history["loss"][-1] < 1e-3 * trained.history["loss"][0])
      True
    """
    steps = _checks.integer(steps, "steps", 1)
    seed = _checks.integer(seed, "seed", 0)
    every = _checks.integer(evaluate_every, "evaluate_every", 1)
    batch_size = _checks.optional_integer(batch_size, "batch_size", "None takes all inputs.")
    patience = _checks.optional_integer(patience, "patience", "None never stops early.")
    if patience is not None and validation is None:
        raise TypeError("patience needs validation=(x, y), whose loss it watches, got None.")
    _checks.boolean(progress, "progress")
    x = _checks.finite_batch(x, "x")
    net = as_network(network, x)
    if not hasattr(optimizer, "update"):
        raise TypeError(
            f"optimizer must be an optax optimizer, got {optimizer!r}. Pass optax.adam(1e-3)."
        )
    if mesh is not None:
        mesh = sharded.automatic_mesh(sharded.mesh_of(mesh))
    _check_batch_size(batch_size, len(x), mesh)
    per_input = hashable(losses.per_input(loss))
    program = Program(net.apply, per_input, optimizer, batch_size, mesh)
    sets = {"": (x, losses.check_targets(y, loss, net, x, "y"))}
    if validation is not None:
        sets["validation_"] = _checked_validation(net, x, validation, loss)
    run = _Run(program, network, net, sets, seed, every)
    with contextlib.ExitStack() as stack:
        config = {}
        if out is not None:
            config = saved_training.configuration(program, run.first.state, net.rest, sets)
            config |= {"evaluate_every": every, "seed": seed}
        manager = stack.enter_context(saved_training.opened(out, config))
        bar = stack.enter_context(tqdm(total=steps, desc="training", disable=not progress))
        return run.train(steps, patience, manager, bar)


class _Point(NamedTuple):
    """A run at an evaluation."""

    state: State
    best: Any  # The parameters with the least validation loss.
    history: list[dict[str, float]]  # The losses at each evaluation.

    @property
    def since_best(self) -> int:
        """The number of evaluations after the best one."""
        watched = [row["validation_loss"] for row in self.history if "validation_loss" in row]
        return len(watched) - 1 - int(np.argmin(watched)) if watched else 0


class _Run:
    """One call of `train`, after its checks."""

    def __init__(
        self, program: Program, given: Any, net: Network, sets: dict, seed: int, every: int
    ):
        self.program, self.given, self.seed, self.every = program, given, seed, every
        params, self.rest = program.place((net.params, net.rest))
        # `advance` uses up its state, which must not share arrays with the network.
        state = _copy(program.start(params))
        self.first = _Point(state, params, [])
        # With minibatches each device has all inputs, to take its part of any batch.
        whole = program.batch_size is None
        self.sets = {
            name: program.place(data, spread=whole and name == "") for name, data in sets.items()
        }

    def train(self, steps: int, patience: int | None, manager: Any, bar: Any) -> Trained:
        """Train from the start, or from the last saved point, to the end."""
        saved = saved_training.restore(manager, self.first[:2]) if manager else None
        if saved is None:
            point = self.evaluated(self.first.state, self.first)
        else:
            (state, best), history = saved
            point = _Point(state, best, history)
        bar.update(int(point.state.step))
        while (step := int(point.state.step)) < steps:
            if patience is not None and point.since_best >= patience:
                return self.result(point, "patience")
            point = self.advanced(point, min(steps, (step // self.every + 1) * self.every))
            if manager:
                saved_training.save(manager, int(point.state.step), point[:2], point.history)
            bar.set_postfix(loss=f"{point.history[-1]['loss']:.3g}", refresh=False)
            bar.update(int(point.state.step) - step)
        return self.result(point, "steps")

    def advanced(self, point: _Point, until: int) -> _Point:
        """Return the point at step `until`."""
        size, data, rows = self.program.batch_size, self.sets[""], None
        if size is not None:
            rows = batches(len(data[0]), size, self.seed, int(point.state.step), self.every)
            rows = self.program.place(rows)
        state = self.program.advance(point.state, self.rest, data, rows, np.int32(until))
        if not math.isfinite(state.loss):
            raise TrainingDiverged(int(state.step) - 1, self.result(point, "diverged"))
        return self.evaluated(state, point)

    def evaluated(self, state: State, before: _Point) -> _Point:
        """Return the point of a state: its losses, and the best parameters so far."""
        row: dict[str, float] = {"step": int(state.step)}
        for prefix, data in self.sets.items():
            found = self.program.evaluate(state.params, self.rest, data)
            names = found if prefix else ("loss",)
            row |= {prefix + name: float(found[name]) for name in names}
        if not all(map(math.isfinite, row.values())):
            raise TrainingDiverged(int(state.step), self.result(before, "diverged"))
        point = _Point(state, before.best, [*before.history, row])
        return point if point.since_best else point._replace(best=_copy(state.params))

    def result(self, point: _Point, stopped: str) -> Trained:
        # The arrays of the state may be used up.
        network, rows = self.given, point.history
        steps = int(rows[-1]["step"]) if rows else 0
        if isinstance(network, nnx.Module):
            network = nnx.clone(network)
            nnx.update(network, point.best)
        elif isinstance(network, Network):
            network = network._replace(params=point.best)
        else:
            network = network[0], point.best
        history = {
            name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())
        }
        best = int(rows[-1 - point.since_best]["step"]) if rows else steps
        return Trained(network, history, steps, best, stopped)


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _checked_validation(net: Network, x: Any, validation: Any, loss: Loss) -> tuple[Any, Any]:
    if not isinstance(validation, tuple | list):
        kind = type(validation).__name__
        raise TypeError(f"validation must be a pair (x, y), got {kind}. Pass inputs and targets.")
    if len(validation) != 2:
        raise ValueError(f"validation must be a pair (x, y), got {len(validation)} entries.")
    inputs = _checks.finite_batch(validation[0], "validation[0]")
    if inputs.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"validation[0] must hold inputs of shape {x.shape[1:]}, as x, got {inputs.shape[1:]}."
        )
    return inputs, losses.check_targets(validation[1], loss, net, inputs, "validation[1]")


def _check_batch_size(batch_size: int | None, n: int, mesh: Mesh | None) -> None:
    if batch_size is not None and batch_size > n:
        raise ValueError(
            f"batch_size must be at most the number of inputs, {n}, got {batch_size}. None is all."
        )
    size, name = (n, "inputs") if batch_size is None else (batch_size, "inputs of a batch")
    if mesh is not None and size % mesh.size:
        raise ValueError(
            f"mesh must have a number of devices that divides the {size} {name}, got {mesh.size}. "
            f"Take {size - size % mesh.size or mesh.size} {name}, or fewer devices."
        )
