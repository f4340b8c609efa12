"""How depth and α decide what finite networks learn, the experiment of arXiv 2403.04545."""

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

from nt_residual import _checks, data, memory, schedules
from nt_residual._files import digest
from nt_residual.experiments.depth_table import DepthRun, DepthSweep, Folder
from nt_residual.experiments.trained_network import gradient_norms, mean_ntk
from nt_residual.finite_width import ConvResNet, ResNet
from nt_residual.finite_width.learning_rate import largest_learning_rate
from nt_residual.finite_width.networks import Network, as_network, outputs
from nt_residual.finite_width.training import TrainingDiverged, train

GAMMAS = (0.0, 0.25, 0.5, 0.75, 1.0)
DEPTHS = (4, 8, 16, 32, 64, 128, 256, 512)
# Arguments of a sweep that takes a few minutes on two cores.
QUICK = {"depths": (4, 16, 64, 256), "width": 32, "seeds": 2, "steps": 600, "batch_size": 64}

# Inputs that the learning rate and the gradients are measured on, and those of the NTK.
_SOME = 256
_FEW = 8
_EVALUATIONS = 40
_BATCH = 1000

# At once there are the first, the present and the best parameters, momentum, and what a step of
# training or an NTK needs.
_COPIES = 8
# Blocks of which all is kept while gradients are computed that recompute blocks.
_RECOMPUTED = 8


def run(
    dataset: data.Dataset,
    *,
    gammas: Sequence[float] = GAMMAS,
    depths: Sequence[int] = DEPTHS,
    architecture: Literal["fc", "conv"] = "fc",
    width: int = 256,
    seeds: int = 5,
    steps: int = 5000,
    batch_size: int = 128,
    rate: float = 0.1,
    momentum: float = 0.9,
    patience: int = 10,
    validation_fraction: float = 0.2,
    pooling: Literal["flatten", "gap"] = "gap",
    normalize_blocks: bool = True,
    mirrored: bool = True,
    remat: bool = False,
    out: str | os.PathLike | None = None,
    progress: bool = False,
) -> DepthSweep:
    """Train the blocks of networks of many depths with α = L^(−γ); report what each has learned.

    Each network is a `ResNet` or `ConvResNet`. Its blocks are trained, its first and last layers
    are not. `theory.suitable_schedule(trained='blocks')` has the α that theory advises for
    such networks. Networks of which all layers are trained are another question: start with
    α = 1/√L there, as `theory.suitable_schedule()` says.

    The loss is the squared one of one-hot labels, with minibatches and momentum. Training stops
    where the loss on validation inputs is least. Images are centered by the mean of the training
    images, and scaled to mean square 1.

    Which learning rate is right depends on γ and depth: the NTK of the blocks has the scale
    Σ α²/(1 + α²), which falls like L^(1−2γ). So that all are trained for the same time relative
    to what they learn first, each has η = `rate` · 2n/λ_max, with λ_max that of its own NTK at
    initialization (`largest_learning_rate`, on 256 training inputs).

    With `**QUICK` it takes a few minutes on two cores; the defaults are for an accelerator.

    Args:
      dataset: images of shape (n, height, width), (n, height, width, channels) or, for 'fc', of
        any shape, with integer labels from 0.
      gammas: the exponents γ.
      depths: the numbers of blocks L.
      architecture: 'fc' for fully-connected networks, 'conv' for convolutional ones.
      width: of hidden layers, the number of channels for 'conv'.
      seeds: how many networks to train for each γ and depth. A seed decides the weights, the split
        into training and validation set and the minibatches, all of which are then the same for
        each γ; means have standard errors from two seeds on.
      steps: the most steps of a network.
      batch_size: inputs per step.
      rate: the learning rate as a fraction of 2n/λ_max, in (0, 1). Momentum makes steps
        1/(1 − `momentum`) times as long, and the NTK of narrow networks grows in training, so
        that larger fractions may diverge.
      momentum: in [0, 1).
      patience: how many times a network is evaluated, `steps`/40 steps apart, without a better
        validation loss before it is stopped.
      validation_fraction: the part of `dataset`'s training set that is for validation.
      pooling: of convolutional networks, 'flatten', or 'gap' for global average pooling.
      normalize_blocks: whether blocks are divided by √(1 + α²), as the kernels of the paper are.
        Without it outputs grow like Π √(1 + α²), which for γ = 0 leaves float32 at 256 blocks.
      mirrored: whether networks start at zero, as the theory of their training asks for, for
        twice the time.
      remat: whether blocks are recomputed for gradients, which take a third of the memory then.
      out: a folder, made if need be. A run is written there as soon as it has ended, to
        `runs.jsonl` and into the means of `table.csv`, and is not done again: a sweep that was
        interrupted goes on where it was, and one with more γ, depths or seeds takes what is there.
      progress: whether to show a progress bar.

    Raises:
      BlockingIOError: if another process is writing `out`.
      FileExistsError: if `out` is a folder with something else.
      MemoryError: if the deepest networks do not fit. Nothing is trained then.
      TypeError: if an argument is of the wrong type, labels that are not integers included.
      ValueError: if one is out of range, images have the wrong shape, or `out` has a sweep of
        another configuration.

    Example:
      >>> found = run(data.load("digits", 500), **QUICK)  # doctest: +SKIP
      >>> print(found.table())  # doctest: +SKIP
    """
    gammas = [schedules.PowerLaw(gamma).gamma for gamma in dict.fromkeys(gammas)]
    remedy = "Pass the number of residual blocks."
    depths = [_checks.integer(depth, "depths", 1, remedy) for depth in dict.fromkeys(depths)]
    if not gammas or not depths:
        raise ValueError(f"gammas and depths must not be empty, got {gammas} and {depths}.")
    seeds = _checks.integer(seeds, "seeds", 1, "Pass how many networks to train.")
    settings = _Settings(
        architecture=architecture,
        width=width,
        steps=steps,
        batch_size=batch_size,
        rate=rate,
        momentum=momentum,
        patience=patience,
        validation_fraction=validation_fraction,
        pooling=pooling,
        normalize_blocks=_checks.boolean(normalize_blocks, "normalize_blocks"),
        mirrored=_checks.boolean(mirrored, "mirrored"),
        remat=_checks.boolean(remat, "remat"),
    )
    dataset = _prepared(dataset, architecture)
    settings.check_sizes(dataset)
    _check_memory(settings, dataset, max(depths))
    wanted = [(g, d, s) for d in depths for g in gammas for s in range(seeds)]
    with contextlib.ExitStack() as stack:
        folder, done = None, {}
        if out is not None:
            config = dataclasses.asdict(settings) | {"dataset": digest(*dataset)}
            folder = stack.enter_context(Folder.open(out, config))
            done = dict(folder.runs)
        for key in tqdm(wanted, desc="networks", disable=not progress):
            if key not in done:
                done[key] = _run(dataset, settings, *key)
                if folder is not None:
                    folder.add(done[key])
    # Depth by depth is how programs are shared, γ by γ how the table reads.
    return DepthSweep([done[g, d, s] for g in gammas for d in depths for s in range(seeds)])


@dataclasses.dataclass(frozen=True)
class _Settings:
    """All that a run depends on but the data, γ, depth and seed."""

    architecture: str
    width: int
    steps: int
    batch_size: int
    rate: float
    momentum: float
    patience: int
    validation_fraction: float
    pooling: str
    normalize_blocks: bool
    mirrored: bool
    remat: bool

    def __post_init__(self):
        _checks.choice(self.architecture, "architecture", ("fc", "conv"))
        _checks.choice(self.pooling, "pooling", ("flatten", "gap"))
        for name in ("width", "steps", "batch_size", "patience"):
            value = _checks.integer(getattr(self, name), name, 1, "")
            object.__setattr__(self, name, value)
        for name, positive in (("rate", True), ("momentum", False), ("validation_fraction", True)):
            value = _checks.number(getattr(self, name), name, positive=positive)
            if value >= 1:
                raise ValueError(f"{name} must be less than 1, got {value}.")
            object.__setattr__(self, name, value)

    def check_sizes(self, dataset: data.Dataset) -> None:
        """Refuses a split, or batches, that the training set is too small for."""
        n = len(dataset.x_train)
        n_val = self.n_validation(n)
        if not 1 <= n_val < n:
            raise ValueError(
                f"validation_fraction must leave something to train and to validate on, got "
                f"{n_val} of {n} inputs to validate on."
            )
        if self.batch_size > n - n_val:
            raise ValueError(
                f"batch_size must be at most the number of inputs to train on, {n - n_val}, got "
                f"{self.batch_size}. Pass a smaller one, or more data."
            )

    def n_validation(self, n: int) -> int:
        """How many of the training set are for validation."""
        return round(self.validation_fraction * n)


def _prepared(dataset: data.Dataset, architecture: str) -> data.Dataset:
    """The same, centered and of mean square 1 per pixel, in the shape that networks take."""
    images, labels = {}, {}
    for part in ("train", "test"):
        x, y = np.asarray(getattr(dataset, f"x_{part}")), np.asarray(getattr(dataset, f"y_{part}"))
        if y.dtype.kind not in "iu" or y.ndim != 1 or len(y) != len(x):
            raise TypeError(
                f"dataset must have one integer label for each input, got y_{part} of dtype "
                f"{y.dtype} and shape {y.shape} for {len(x)} inputs."
            )
        if architecture == "conv":
            x = x[..., None] if x.ndim == 3 else x
            if x.ndim != 4:
                raise ValueError(
                    "dataset must have images of shape (n, height, width) or (n, height, width, "
                    f"channels) for architecture='conv', got x_{part} of shape {x.shape}."
                )
        images[part], labels[part] = x, y
    center = images["train"].mean(axis=0)
    shape = (-1, center.size) if architecture == "fc" else (-1, *center.shape)

    def scaled(x):
        return (math.sqrt(center.size) * data.unit_norm(x - center)).reshape(shape)

    x_train, x_test = (scaled(images[part]).astype(np.float32) for part in ("train", "test"))
    if min(y.min() for y in labels.values()) < 0 or len(np.unique(labels["train"])) < 2:
        raise ValueError(
            "dataset must have labels from 0, of at least two classes, got "
            f"{np.unique(labels['train'])}."
        )
    return data.Dataset(x_train, labels["train"], x_test, labels["test"])


def _classes_of(dataset: data.Dataset) -> int:
    return 1 + int(max(dataset.y_train.max(), dataset.y_test.max()))


def _check_memory(settings: _Settings, dataset: data.Dataset, depth: int) -> None:
    """Refuses networks that do not fit, before any is made."""
    shape = dataset.x_train.shape[1:]
    model = nnx.eval_shape(lambda: _network(settings, 1.0, depth, 0, shape, _classes_of(dataset)))
    parameters = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(nnx.state(model)))
    # What gradients keep of each block: all three layers of it, or its input.
    kept = depth + _RECOMPUTED if settings.remat else 3 * depth
    units = settings.width * (math.prod(shape[:2]) if settings.architecture == "conv" else 1)
    inputs = max(settings.batch_size, min(_SOME, len(dataset.x_train)))
    remedies = "Choose a smaller width or batch_size, smaller depths"
    remedies += "." if settings.remat else ", or remat=True."
    memory.check(
        {
            f"{_COPIES} copies of the parameters of a network of {depth} blocks": _COPIES
            * parameters,
            f"what it computes for {inputs} inputs": 4
            * (1 + settings.mirrored)
            * inputs
            * units
            * kept,
            "the dataset": 2 * dataset.x_train.nbytes,
        },
        *memory.share(jax.devices()[:1]),
        remedies,
    )


def _run(
    dataset: data.Dataset, settings: _Settings, gamma: float, depth: int, seed: int
) -> DepthRun:
    """Trains and measures one network."""
    classes = _classes_of(dataset)
    n_val = settings.n_validation(len(dataset.x_train))
    order = np.random.default_rng(seed).permutation(len(dataset.x_train))
    x_val, x = np.split(dataset.x_train[order], [n_val])
    y_val, y = np.split(data.centered_one_hot(dataset.y_train[order], classes), [n_val])
    model = _network(settings, gamma, depth, seed, x.shape[1:], classes)
    network = as_network(model, jnp.asarray(x[:2]))
    learning_rate = settings.rate * largest_learning_rate(network, x[:_SOME])
    failed = DepthRun(gamma, depth, seed, diverged=True)
    # Zero or infinite where the NTK has left float32.
    if not 0 < learning_rate < math.inf:
        return failed
    network = _in_units(network, math.sqrt(learning_rate))
    norms = gradient_norms(network, x[:_SOME], y[:_SOME], axis=int(settings.mirrored))
    before = mean_ntk(network, x[:_FEW])
    try:
        trained = train(
            network,
            x,
            y,
            optimizer=_optimizer(settings.momentum),
            steps=settings.steps,
            batch_size=settings.batch_size,
            validation=(x_val, y_val),
            evaluate_every=-(-settings.steps // _EVALUATIONS),
            patience=settings.patience,
            seed=seed,
        )
    except TrainingDiverged:
        return failed
    after = mean_ntk(trained.network, x[:_FEW])
    best = int(np.flatnonzero(trained.history["step"] == trained.best_step)[0])
    return DepthRun(
        gamma=gamma,
        depth=depth,
        seed=seed,
        test_error=float(np.mean(_classes(trained.network, dataset.x_test) != dataset.y_test)),
        train_loss=float(trained.history["loss"][best]),
        validation_loss=float(trained.history["validation_loss"][best]),
        best_step=trained.best_step,
        steps=trained.steps,
        learning_rate=learning_rate,
        ntk_drift=float(np.linalg.norm(after - before) / np.linalg.norm(before)),
        gradient_norms=tuple(norms.tolist()),
    )


def _network(settings, gamma, depth, seed, shape, classes) -> ResNet | ConvResNet:
    options = {
        "schedule": schedules.PowerLaw(gamma),
        "normalize_blocks": settings.normalize_blocks,
        "mirrored": settings.mirrored,
        "remat": settings.remat,
        "rngs": nnx.Rngs(seed),
    }
    if settings.architecture == "fc":
        return ResNet(depth, settings.width, classes, in_dim=shape[0], **options)
    options |= {"pooling": settings.pooling, "image_shape": shape[:2], "in_channels": shape[2]}
    return ConvResNet(depth, settings.width, classes, **options)


@dataclasses.dataclass(frozen=True)
class _InUnits:
    """A network of which parameters are multiplied by a number first."""

    apply: Callable

    def __call__(self, params, rest, x):
        unit, rest = rest
        return self.apply(jax.tree.map(lambda p: unit * p, params), rest, x)


def _in_units(network: Network, unit: float) -> Network:
    """The same network, which a step of gradient descent moves `unit`² times as far.

    That way the learning rate is a number that programs are given, not a constant in them, and
    networks of all γ and seeds share one.
    """
    unit_array = jnp.float32(unit)
    params = jax.tree.map(lambda p: p / unit_array, network.params)
    return Network(_InUnits(network.apply), params, (unit_array, network.rest))


@functools.cache
def _optimizer(momentum: float) -> optax.GradientTransformation:
    """One object for each momentum, as programs are shared by identity."""
    return optax.sgd(1.0, momentum or None)


def _classes(network: Network, x: np.ndarray) -> np.ndarray:
    """The class that each input is given."""
    batches = [x[i : i + _BATCH] for i in range(0, len(x), _BATCH)]
    return np.concatenate(
        [np.asarray(outputs(network, batch)).argmax(axis=-1) for batch in batches]
    )
