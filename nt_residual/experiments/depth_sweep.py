"""Test errors of finite networks by depth and α, the experiment of arXiv 2403.04545."""

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from flax import nnx
from tqdm import tqdm

from nt_residual import _checks, _files, data, schedules
from nt_residual.experiments import record, trained_network
from nt_residual.experiments.depth_table import DepthRun, DepthSweep
from nt_residual.finite_width import ConvResNet, ResNet

GAMMAS = (0.0, 0.25, 0.5, 0.75, 1.0)
DEPTHS = (4, 8, 16, 32, 64, 128, 256, 512)
# Arguments of a sweep that takes a few minutes on two cores.
QUICK = {"depths": (4, 16, 64, 256), "width": 32, "n_seeds": 2, "steps": 600, "batch_size": 64}


def run(
    dataset: data.Dataset,
    *,
    gammas: Sequence[float] = GAMMAS,
    depths: Sequence[int] = DEPTHS,
    architecture: Literal["fc", "conv"] = "fc",
    width: int = 256,
    n_seeds: int = 5,
    steps: int = 5000,
    batch_size: int = 128,
    rate: float = 0.1,
    momentum: float = 0.9,
    out: str | os.PathLike | None = None,
    progress: bool = False,
    **network: Any,
) -> DepthSweep:
    """Train the blocks of networks of many depths with α = L^(−γ), and measure each network.

    First and last layers are not trained, as in the paper; for such networks theory advises
    `theory.suitable_schedule(trained='blocks')`. The loss is the squared loss of centered one-hot
    labels, with minibatches and momentum. A fifth of the training set is for validation: the
    network with the least validation loss is kept, and training ends after a quarter of `steps`
    without a better one. Images are centered by the mean of the training images, and scaled to
    mean square 1.

    The scale of the NTK depends on γ and depth. Each network has the learning rate
    `rate` · 2n/λ_max, with λ_max of its own NTK at initialization (`largest_learning_rate`, on 256
    training inputs), so that all train for the same time relative to what they learn first.

    With `**QUICK` it takes a few minutes on two cores. The defaults are for an accelerator.

    Args:
      dataset: images (n, height, width, channels) or, for 'fc', inputs of any shape (n, …), with
        integer labels from 0.
      gammas: the exponents γ.
      depths: the numbers of blocks L.
      architecture: 'fc' for fully-connected networks, 'conv' for convolutional ones.
      width: of hidden layers, the number of channels for 'conv'.
      n_seeds: the number of networks for each γ and depth; standard errors need two. A seed
        decides the weights, the validation set and the minibatches.
      steps: the most steps of a network.
      batch_size: inputs per step.
      rate: the learning rate as a fraction of 2n/λ_max, in (0, 1). Large fractions may diverge:
        momentum makes steps longer, and the NTK of narrow networks grows in training.
      momentum: in [0, 1).
      out: a new folder, or that of an earlier sweep of the same configuration, whose networks are
        not trained again: run the same call to resume, or add γ, depths or seeds. Each network
        gets a JSON file in `runs`, and `table.csv` has the means.
      progress: whether to show a progress bar.
      **network: further options of `ResNet` or `ConvResNet`, such as `remat`. The defaults here
        are `normalize_blocks=True`, `mirrored=True` and, for 'conv', `pooling='gap'`.

    Raises:
      BlockingIOError: if another process is writing `out`.
      FileExistsError: if `out` is a folder with something else.
      TypeError: if an argument or the labels are of the wrong type.
      ValueError: if an argument is out of range, or `out` has a sweep of another configuration, or
        a damaged file.

    Example:
      >>> found = run(data.load("digits", 500), **QUICK)  # doctest: +SKIP
      >>> print(found.table())  # doctest: +SKIP
    """
    gammas = [schedules.PowerLaw(gamma).gamma for gamma in dict.fromkeys(gammas)]
    remedy = "Pass the number of residual blocks."
    depths = [_checks.integer(depth, "depths", 1, remedy) for depth in dict.fromkeys(depths)]
    if not gammas or not depths:
        raise ValueError(f"gammas and depths must not be empty, got {gammas} and {depths}.")
    n_seeds = _checks.integer(n_seeds, "n_seeds", 1, "Pass the number of networks to train.")
    progress = _checks.boolean(progress, "progress")
    training = {
        "batch_size": _checks.integer(batch_size, "batch_size", 1),
        "steps": _checks.integer(steps, "steps", 1),
        "momentum": _checks.number(momentum, "momentum"),
        "rate": _checks.number(rate, "rate", positive=True),
    }
    for name in ("momentum", "rate"):
        if training[name] >= 1:
            raise ValueError(f"{name} must be less than 1, got {training[name]}.")
    width = _checks.integer(width, "width", 1)
    dataset = _prepared(dataset, _checks.choice(architecture, "architecture", ("fc", "conv")))
    n_validation = -(-len(dataset.x_train) // 5)
    if batch_size > (n := len(dataset.x_train) - n_validation):
        raise ValueError(
            f"batch_size must be at most the number of inputs to train on, {n}, got {batch_size}. "
            "Pass a smaller one, or more data."
        )
    network = {"normalize_blocks": True, "mirrored": True, **network}
    make = _maker(dataset, architecture, width, network)
    config = {
        "architecture": architecture,
        "width": width,
        **training,
        **{name: str(value) for name, value in network.items()},
        "dataset": _files.digest(*dataset),
    }
    wanted = [(g, d, s) for d in depths for g in gammas for s in range(n_seeds)]
    runs = {}
    with record.kept(out, config) as (done, keep):
        for key in tqdm(wanted, desc="networks", disable=not progress):
            name = "gamma {!r}, depth {}, seed {}".format(*key)
            if name not in done:
                keep(
                    name, dataclasses.asdict(_trained(make, dataset, n_validation, training, *key))
                )
            runs[key] = _read(done[name])
    # Depth by depth programs are shared, γ by γ the table reads well.
    found = DepthSweep([runs[g, d, s] for g in gammas for d in depths for s in range(n_seeds)])
    if out is not None:
        _files.replace(pathlib.Path(out) / "table.csv", record.csv_text(found.rows))
    return found


def _prepared(dataset: data.Dataset, architecture: str) -> data.Dataset:
    """Return centered images of mean square 1 per pixel, flat for 'fc', and one-hot targets."""
    x_train, y_train, x_test, y_test = map(np.asarray, dataset)
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
            raise TypeError(
                f"dataset must have one integer label for each input, got y_{part} of dtype "
                f"{y.dtype} and shape {y.shape} for {len(x)} inputs."
            )
        if architecture == "conv" and x.ndim != 4:
            raise ValueError(
                "dataset must have images of shape (n, height, width, channels) for "
                f"architecture='conv', got x_{part} of shape {x.shape}."
            )
    if min(y_train.min(), y_test.min()) < 0 or len(np.unique(y_train)) < 2:
        raise ValueError(
            f"dataset must have labels from 0, of at least two classes, got {np.unique(y_train)}."
        )
    center = x_train.mean(axis=0)
    shape = (-1, center.size) if architecture == "fc" else (-1, *center.shape)

    def scaled(x: np.ndarray) -> np.ndarray:
        flat = math.sqrt(center.size) * data.unit_norm(x - center)
        return flat.reshape(shape).astype(np.float32)

    one_hot = data.centered_one_hot(y_train, 1 + int(max(y_train.max(), y_test.max())))
    targets = np.asarray(one_hot, np.float32)
    return data.Dataset(scaled(x_train), targets, scaled(x_test), y_test)


def _maker(
    dataset: data.Dataset, architecture: str, width: int, options: Mapping[str, Any]
) -> Callable[..., ResNet | ConvResNet]:
    """Return the constructor of a network, which needs depth, `schedule` and `rngs`."""
    *image_shape, channels = dataset.x_train.shape[1:]
    options = {"out_dim": dataset.y_train.shape[1], **options}
    if architecture == "fc":
        return functools.partial(ResNet, width=width, in_dim=channels, **options)
    options = {"image_shape": tuple(image_shape), "pooling": "gap", **options}
    return functools.partial(ConvResNet, channels=width, in_channels=channels, **options)


def _trained(
    make: Callable,
    dataset: data.Dataset,
    n_validation: int,
    training: Mapping[str, Any],
    gamma: float,
    depth: int,
    seed: int,
) -> DepthRun:
    """Train and measure one network."""
    order = np.random.default_rng(seed).permutation(len(dataset.x_train))
    x_val, x = np.split(dataset.x_train[order], [n_validation])
    y_val, y = np.split(dataset.y_train[order], [n_validation])
    model = make(depth, schedule=schedules.PowerLaw(gamma), rngs=nnx.Rngs(seed))
    test = dataset.x_test, dataset.y_test
    found = trained_network.measure(model, (x, y), (x_val, y_val), test, seed=seed, **training)
    return DepthRun(gamma, depth, seed, **found)


def _read(part: dict[str, Any]) -> DepthRun:
    norms = tuple(part["gradient_norms"])
    return dataclasses.replace(DepthRun(**part), gradient_norms=norms)
