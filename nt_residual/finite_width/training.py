"""Training of networks of finite width: by all inputs at once or in batches, with any optimizer."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.typing import ArrayLike
from tqdm import tqdm

from nt_residual import _checks
from nt_residual.finite_width import losses
from nt_residual.finite_width.checkpoint import Folder, digest, evaluations_of
from nt_residual.finite_width.descent import Program, State, hashable
from nt_residual.finite_width.learning_rate import check_learning_rate
from nt_residual.finite_width.losses import Loss
from nt_residual.finite_width.networks import Network, as_network
from nt_residual.gram import sharded

# Evaluations that `evaluate_every=None` makes at most, but for the first.
_EVALUATIONS = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A network after `train`.

    Attributes:
      network: of the kind that was passed: an `nnx.Module`, or a pair `(apply_fn, params)`. Its
        parameters are those of `best_step`.
      history: columns of a table with a row for each evaluation, arrays of one length: 'step',
        'loss' of all training inputs, 'validation_loss', and 'validation_error', the fraction of
        wrong classes, where targets are classes.
      steps: the number of steps taken.
      best_step: where the validation loss was least; without validation, the last step.
      stopped: why there are no more steps: 'steps', 'patience', or 'diverged'.
    """

    network: Any
    history: dict[str, np.ndarray]
    steps: int
    best_step: int
    stopped: str

    def __repr__(self) -> str:
        there = self.history["step"] == self.best_step if self.history else []
        losses = {k: float(v[there][0]) for k, v in self.history.items() if k != "step"}
        shown = "".join(f", {name}={value:.3g}" for name, value in losses.items())
        return (
            f"Trained(steps={self.steps}, best_step={self.best_step}{shown}, "
            f"stopped={self.stopped!r})"
        )


class TrainingDiverged(ArithmeticError):
    """A loss was NaN or infinite.

    Attributes:
      step: the number of steps before it.
      result: what the last evaluation before left, a `Trained`.
    """

    def __init__(self, step: int, result: Trained):
        remedy = (
            f"Use a lower learning rate; result has the network of step {result.best_step}."
            if step
            else "Look at the inputs, the targets and the outputs of the network before training."
        )
        super().__init__(f"the loss is not finite at step {step}. {remedy}")
        self.step = step
        self.result = result


def train(
    network: Any,
    x: ArrayLike,
    y: ArrayLike,
    *,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | None = None,
    steps: int,
    batch_size: int | None = None,
    loss: Loss = "half_norm",
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    evaluate_every: int | None = None,
    patience: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    mesh: Mesh | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Trained:
    """Trains a network.

    The loss is a mean over inputs. 'half_norm' is ½|f(x) − y|², summed over outputs, as that of
    `regression.GradientFlow`: gradient descent with learning rate η follows it for the time
    t = η · steps. 'mse' and 'half_mse' are means over outputs too; `regression.time_of_steps` has
    the table of all three, and their times. Minibatches are all inputs in an order that is drawn
    anew for each epoch; those that remain when `batch_size` does not divide n wait for the next.

    Compile time does not depend on the number of steps, and networks that differ only in
    their numbers share one program as long as `optimizer` is the same object.

    Args:
      network: an `nnx.Module`, of which `nnx.Param` are trained, or a pair `(apply_fn, params)`
        with `apply_fn(params, x)`. It stays as it is.
      x: inputs, shape (n, …), floats.
      y: targets: shape (n, n_outputs), or (n,) for one output, for a squared loss; integer
        labels, shape (n,), for 'cross_entropy'; what a function takes.
      optimizer: of optax, such as `optax.adam(1e-3)`.
      learning_rate: instead of it, for gradient descent on all inputs with 'half_norm'. It is
        checked against `largest_learning_rate`.
      steps: the most steps to take, those of a checkpoint among them; one that has more stays as it
        is.
      batch_size: inputs per step; `None` for all.
      loss: 'half_norm', 'half_mse', 'mse', 'cross_entropy', or a function of outputs, shape
        (n, n_outputs), and targets that returns shape (n,).
      validation: inputs and targets. Parameters with the least loss on them are returned.
      evaluate_every: steps from one row of the history to the next, each of which takes a look at
        all inputs; `None` for that of the checkpoint, or a hundredth of all.
      patience: evaluations without a better validation loss after which to stop; `None` for no end.
      checkpoint: a folder. Every evaluation is saved there, with the state of the optimizer, and
        the history as `metrics.csv`. A run that was interrupted goes on from the last one, to the
        same end, bit for bit; on another number of devices, to the same end up to rounding. With
        more `steps` or `patience` one that has ended goes on too. A state that cannot be read is
        passed over with a warning, and kept.
      mesh: devices to spread batches over, with copies of all else on each:
        `jax.make_mesh((8,), ('data',))`. Their number must divide that of the inputs of a batch.
      seed: of the order of minibatches.
      progress: whether to show a progress bar.

    Raises:
      BlockingIOError: if another process is training into `checkpoint`.
      FileExistsError: if `checkpoint` is a folder with something else.
      OSError: if `checkpoint` has states, but none can be read.
      TrainingDiverged: if a loss is NaN or infinite. What was saved before stays.
      TypeError: if an argument is of the wrong type, or not one of `optimizer` and `learning_rate`
        is passed.
      ValueError: if a shape, a size, a label, the learning rate or the network is no good, or
        `checkpoint` has another run.

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
    batch_size = _checks.optional_integer(batch_size, "batch_size", "None takes all inputs.")
    patience = _checks.optional_integer(patience, "patience", "None never stops early.")
    evaluate_every = _checks.optional_integer(
        evaluate_every, "evaluate_every", "None picks a number."
    )
    x = _checks.finite_batch(x, "x")
    net = as_network(network, x)
    if (optimizer is None) == (learning_rate is None):
        raise TypeError("train needs either optimizer, such as optax.adam(1e-3), or learning_rate.")
    if learning_rate is not None:
        if batch_size is not None or loss != "half_norm":
            raise TypeError(
                "learning_rate is for all inputs at once and loss='half_norm', where its bound is "
                "known, got batch_size or another loss. Pass optimizer=optax.sgd(learning_rate)."
            )
        optimizer = gradient_descent(check_learning_rate(learning_rate, net, x))
    if optimizer is None or not hasattr(optimizer, "update"):
        raise TypeError(f"optimizer must be one of optax, got {optimizer!r}.")
    if patience is not None and validation is None:
        raise TypeError("patience needs validation=(x, y), of which the loss is watched.")
    every = evaluate_every or evaluations_of(checkpoint) or -(-steps // _EVALUATIONS)
    if mesh is not None:
        mesh = sharded.automatic_mesh(sharded.check_mesh(mesh))
    _check_batch_size(batch_size, len(x), mesh)
    program = Program(
        hashable(net.apply),
        hashable(losses.per_input(loss)),
        optimizer,
        batch_size,
        mesh,
    )
    sets = {"": _data(net, x, y, loss, "")}
    if validation is not None:
        sets["validation_"] = _data(net, *validation, loss, "validation ")
    run = _Run(program, net, sets, seed)
    with contextlib.ExitStack() as stack:
        folder = None
        if checkpoint is not None:
            folder = stack.enter_context(Folder.open(checkpoint, run.config(every, loss)))
        bar = stack.enter_context(tqdm(total=steps, desc="training", disable=not progress))
        run.go(steps, every, patience, folder, bar)
    result = run.result(network)
    if run.diverged is not None:
        raise TrainingDiverged(run.diverged, result)
    return result


class _Run:
    """The training of one network, between evaluations."""

    def __init__(self, program: Program, net: Network, sets: dict[str, Any], seed: int):
        self.program = program
        self.sets = sets
        self.seed = seed
        self.key = jax.random.key(seed)
        self.params, self.rest = net.params, net.rest
        self.history: dict[str, list] = {}
        self.diverged: int | None = None
        self.stopped = "steps"

    def config(self, every: int, loss: Loss) -> dict[str, Any]:
        """What the result depends on, by a name for errors."""
        program, some = self.program, self.sets[""]["x"][:1]
        begun = program.begin(self.params)

        def text(function, *args):
            # Of shapes alone, as the devices that arrays lie on are no part of the run.
            shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
            return digest(jax.jit(function).lower(*shapes).as_text())

        outputs = jax.eval_shape(program.apply, self.params, self.rest, some)
        like = jax.eval_shape(lambda p: p, self.params)

        def update(gradient, state, params, value):
            return program.update(gradient, state, params, value, lambda _: value)

        return {
            "the network": text(program.apply, self.params, self.rest, some),
            "the initial parameters": digest(self.params, self.rest),
            "x": digest(self.sets[""]["x"]),
            "y": digest(self.sets[""]["y"]),
            "validation": digest(self.sets.get("validation_")),
            "the loss": loss
            if isinstance(loss, str)
            else text(program.loss, outputs, self.sets[""]["y"][:1]),
            "the optimizer": text(update, like, begun.optimizer, like, begun.loss)
            + digest(begun.optimizer),
            "batch_size": program.batch_size,
            "evaluate_every": every,
            "seed": self.seed,
            "the version of jax": jax.__version__,
            "the version of optax": importlib.metadata.version("optax"),
        }

    def go(self, steps: int, every: int, patience: int | None, folder: Folder | None, bar) -> None:
        """Trains to the end."""
        program = self.program
        sets = {name: self._place(data, name) for name, data in self.sets.items()}
        self.rest, params = self._place((self.rest, self.params))
        self.state = self.best = program.begin(params)
        restored = folder.restore((self.state, self.best.params)) if folder else None
        if restored is None:
            self._evaluate(self.state, sets, folder)
        else:
            found, self.history = restored
            self.state, best = self._place(found)
            self.best = self.state._replace(params=best)
        bar.update(int(self.state.step))
        while self.diverged is None and (step := int(self.state.step)) < steps:
            if patience is not None and self._since_best() >= patience:
                self.stopped = "patience"
                return
            until = min(steps, (step // every + 1) * every)
            training = sets[""]["x"], sets[""]["y"]
            state = program.advance(self.state, self.rest, training, self.key, np.int32(until))
            if not math.isfinite(state.loss):
                self.diverged = int(state.step) - 1
            else:
                self._evaluate(state, sets, folder)
                bar.set_postfix(loss=f"{self.history['loss'][-1]:.3g}", refresh=False)
                bar.update(until - step)

    def _evaluate(self, state: State, sets: dict[str, Any], folder: Folder | None) -> None:
        """Adds a row to the history, and keeps the state, unless a loss is not finite."""
        row: dict[str, Any] = {"step": int(state.step)}
        for prefix, data in sets.items():
            found = self.program.evaluate(state.params, self.rest, **data)
            row |= {prefix + name: float(value) for name, value in sorted(found.items())[::-1]}
        row.pop("error", None)
        if not all(map(math.isfinite, row.values())):
            self.diverged = int(state.step)
            return
        for name, value in row.items():
            self.history.setdefault(name, []).append(value)
        self.state = state
        if self._since_best() == 0:
            self.best = state
        if folder is not None:
            folder.save(row["step"], (state, self.best.params), self.history)

    def _since_best(self) -> int:
        """Evaluations after the best one."""
        watched = self.history.get("validation_loss")
        return 0 if watched is None else len(watched) - 1 - int(np.argmin(watched))

    def result(self, network: Any) -> Trained:
        """What there is so far."""
        params = self.best.params
        if isinstance(network, nnx.Module):
            network = nnx.clone(network)
            nnx.update(network, params)
        elif isinstance(network, Network):
            network = network._replace(params=params)
        else:
            network = network[0], params
        steps = int(self.state.step)
        history = {name: np.array(values) for name, values in self.history.items()}
        best = steps if not self.history else self.history["step"][-1 - self._since_best()]
        stopped = self.stopped if self.diverged is None else "diverged"
        return Trained(network, history, steps, best, stopped)

    def _place(self, tree: Any, name: str | None = None) -> Any:
        """Arrays on the devices: all inputs are spread over them if each step takes all."""
        spread = name == "" and self.program.batch_size is None
        sharding = self.program.sharding(spread=spread)
        if sharding is None:
            return jax.tree.map(jnp.asarray, tree)
        return jax.device_put(tree, sharding)


@functools.cache
def gradient_descent(learning_rate: float) -> optax.GradientTransformation:
    """One object for each learning rate, so that programs are compiled once."""
    return optax.sgd(learning_rate)


def _data(net: Network, x: Any, y: Any, loss: Loss, prefix: str) -> dict[str, Any]:
    x = _checks.finite_batch(x, prefix + "x")
    outputs = jax.eval_shape(net.apply, net.params, net.rest, x)
    y = losses.check_targets(y, loss, outputs, prefix + "y")
    losses.check_per_input(loss, outputs, y)
    return {"x": x, "y": y, "labels": losses.labels(y, loss)}


def _check_batch_size(batch_size: int | None, n: int, mesh: Mesh | None) -> None:
    if batch_size is not None and batch_size > n:
        raise ValueError(
            f"batch_size must be at most the number of inputs, {n}, got {batch_size}. Pass None "
            "for all of them."
        )
    size, name = (n, "inputs") if batch_size is None else (batch_size, "inputs of a batch")
    if mesh is not None and size % mesh.size:
        raise ValueError(
            f"mesh must have a number of devices that divides the {size} {name}, got {mesh.size}. "
            f"Take {size - size % mesh.size or mesh.size} {name}, or fewer devices."
        )
