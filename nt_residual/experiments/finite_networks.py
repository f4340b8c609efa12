"""Whether networks of finite width, trained in Flax, do by α and depth what their kernels do."""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any, Literal

from nt_residual import data
from nt_residual.experiments import depth_sweep
from nt_residual.experiments.claim import Finding
from nt_residual.experiments.depth_table import DepthSweep

TITLE = "Networks of finite width"
STATEMENT = (
    "Networks that are trained with early stopping, for as many steps each, show it too: with "
    "α = L^(−γ) and γ ≥ 1/2 they generalize however deep they are, with a constant α they get "
    "worse with depth, and learn less of the training set, too."
)
QUICK = {
    "gammas": (0.0, 0.5, 1.0),
    "depths": (4, 16, 64),
    "n_train": 500,
    "width": 32,
    "seeds": 2,
    "steps": 800,
    "batch_size": 64,
}
FULL = {
    "gammas": (0.0, 0.25, 0.5, 0.75, 1.0),
    "depths": (4, 8, 16, 32, 64, 128, 256),
    "n_train": None,
    "width": 256,
    "seeds": 5,
    "steps": 5000,
    "batch_size": 128,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """Networks of one γ and depth: means over seeds, of those that did not diverge.

    Attributes:
      gamma: γ in α = L^(−γ).
      depth: the number of blocks L.
      test_error: the fraction of test images that are wrong, at the best step.
      test_error_se: its standard error, NaN for one network.
      ntk_drift: the relative change of the empirical NTK in training.
      gradient_ratio: the norm of the gradient in the first block at initialization, divided by
        that in the last.
      train_loss: at the best step.
      best_step: where the validation loss is least.
      networks: how many were trained.
      diverged: how many of them diverged.
    """

    gamma: float
    depth: int
    test_error: float
    test_error_se: float
    ntk_drift: float
    gradient_ratio: float
    train_loss: float
    best_step: float
    networks: int
    diverged: int


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of `run`.

    Attributes:
      rows: one per γ and depth.
      sweep: what `depth_sweep.run` returned.
    """

    rows: list[Row]
    sweep: DepthSweep

    def of(self, gamma: float) -> list[Row]:
        """The rows of one γ, by depth."""
        return sorted((row for row in self.rows if row.gamma == gamma), key=lambda row: row.depth)


def run(
    dataset: str = "digits",
    *,
    gammas: Sequence[float] = QUICK["gammas"],
    depths: Sequence[int] = QUICK["depths"],
    architecture: Literal["fc", "conv"] = "fc",
    n_train: int | None = 500,
    n_test: int | None = None,
    width: int = 32,
    seeds: int = 2,
    steps: int = 800,
    batch_size: int = 64,
    root: str | os.PathLike | None = None,
    out: str | os.PathLike | None = None,
    progress: bool = False,
) -> Result:
    """Trains residual networks of several γ and depths on images.

    Args:
      dataset: a name that `data.load` knows.
      gammas: the exponents γ.
      depths: the numbers of blocks.
      architecture: 'fc' or 'conv'.
      n_train: images to train and validate on, `None` for all.
      n_test: images to test on, `None` for all.
      width: of hidden layers, or the number of channels.
      seeds: networks per γ and depth.
      steps: the most steps of each.
      batch_size: images per step.
      root: where the files of the data set are, as for `data.load`.
      out: a folder to keep what has been trained in, so that an interrupted run goes on.
      progress: whether to show a progress bar.

    Returns:
      A row per γ and depth.

    Raises:
      TypeError, ValueError: if an argument is out of range, or `out` has another configuration.
      ImportError: if scikit-learn is missing.
      OSError: if the data set cannot be had, or `out` not be written.

    Example:
      >>> found = run(gammas=[1.0], depths=[4], seeds=1)  # doctest: +SKIP
      >>> found.rows[0].test_error < 0.1  # doctest: +SKIP
      True
    """
    sweep = depth_sweep.run(
        data.load(dataset, n_train, n_test, root=root),
        gammas=gammas,
        depths=depths,
        architecture=architecture,
        width=width,
        seeds=seeds,
        steps=steps,
        batch_size=batch_size,
        out=out,
        progress=progress,
    )
    rows = [
        Row(
            gamma=row.gamma,
            depth=row.depth,
            test_error=row.test_error,
            test_error_se=row.test_error_se,
            ntk_drift=row.ntk_drift,
            gradient_ratio=row.gradient_ratio,
            train_loss=row.train_loss,
            best_step=row.best_step,
            networks=row.runs,
            diverged=row.diverged,
        )
        for row in sweep.rows
    ]
    return Result(rows, sweep)


def findings(result: Result) -> list[Finding]:
    """What was measured, beside what the paper says.

    Args:
      result: what `run` returned.

    Example:
      >>> rows = [Row(1.0, depth, 0.05, 0.01, 0.1, 1.0, 0.1, 500, 2, 0) for depth in (4, 64)]
      >>> [f.agrees for f in findings(Result(rows, DepthSweep([])))]
      [True]
    """
    return [
        (_kept if gamma >= 0.5 else _lost)(gamma, result.of(gamma))
        for gamma in dict.fromkeys(row.gamma for row in result.rows)
    ]


def _errors(rows: list[Row]) -> str:
    steps = []
    for row in rows:
        lost = f" ({row.diverged} of {row.networks} diverged)" if row.diverged else ""
        value = "unknown" if math.isnan(row.test_error) else f"{row.test_error:.1%}"
        steps.append(f"{value} at {row.depth}{lost}")
    losses = ", ".join(f"{row.train_loss:.2g}" for row in rows)
    return f"The test error by depth is {', '.join(steps)}; the training loss {losses}."


def _kept(gamma: float, rows: list[Row]) -> Finding:
    first, last = rows[0], rows[-1]
    # A quarter in relative terms is about what seeds make.
    allowed = 1.25 * first.test_error + 0.01
    return Finding(
        claim=f"γ = {gamma:g}: depth does not harm (criterion: at most a quarter and one point "
        "more errors with the deepest network than with the shallowest, under 20%, and none "
        "diverges).",
        measured=_errors(rows),
        agrees=last.test_error < min(allowed, 0.2) and not any(row.diverged for row in rows),
    )


def _lost(gamma: float, rows: list[Row]) -> Finding:
    first, last = rows[0], rows[-1]
    return Finding(
        claim=f"γ = {gamma:g}: the test error grows with depth (criterion: to over 1.5 times that "
        "of the shallowest network; those that diverged do not count).",
        measured=_errors(rows),
        agrees=last.test_error > 1.5 * first.test_error,
    )


def plot(result: Result) -> Any:
    """Draws test error and drift of the NTK against depth, and gradients against blocks.

    Args:
      result: what `run` returned.

    Returns:
      A `matplotlib.figure.Figure`.

    Raises:
      ImportError: if matplotlib is missing.
    """
    return result.sweep.plot()
