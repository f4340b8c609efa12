"""What `depth_sweep` found: as a table, as figures, and in a folder."""

import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nt_residual import _files
from nt_residual._files import claimed
from nt_residual.theory import plots

_RUNS, _TABLE = "runs.jsonl", "table.csv"
_TRAINED = "Networks of which the blocks are trained, the first and the last layer are not."


@dataclasses.dataclass(frozen=True)
class DepthRun:
    """One network of a sweep.

    Attributes:
      gamma: γ in α = L^(−γ).
      depth: the number of blocks L.
      seed: of its weights, of the split into training and validation set and of minibatches.
      test_error: the fraction of test inputs it gets wrong, at the best step.
      train_loss: mean of ½|f − y|² over the training set, there.
      validation_loss: likewise, the least there was.
      best_step: that of the least validation loss.
      steps: those it was trained for.
      learning_rate: η.
      ntk_drift: |Θ − Θ_0| / |Θ_0| in the Frobenius norm, of the NTK of a few inputs at the best
        step and at the first.
      gradient_norms: the norm of the gradient in each block at initialization, divided by their
        root mean square.
      diverged: whether a loss was NaN or infinite; then all of the above but the first three
        are NaN or empty.
    """

    gamma: float
    depth: int
    seed: int
    test_error: float = math.nan
    train_loss: float = math.nan
    validation_loss: float = math.nan
    best_step: float = math.nan
    steps: float = math.nan
    learning_rate: float = math.nan
    ntk_drift: float = math.nan
    gradient_norms: tuple[float, ...] = dataclasses.field(default=(), repr=False)
    diverged: bool = False


@dataclasses.dataclass(frozen=True)
class DepthRow:
    """Networks of one γ and depth: means over seeds, of runs that did not diverge.

    Attributes:
      gamma: γ in α = L^(−γ).
      depth: the number of blocks L.
      test_error: the fraction of test inputs that are wrong, at the best step.
      test_error_se: the standard error of that mean; NaN for one run.
      ntk_drift: relative change of the empirical NTK from initialization to the best step.
      ntk_drift_se: the standard error of that mean.
      train_loss: at the best step.
      best_step: where the validation loss is least.
      gradient_norms: by block, at initialization, relative to their root mean square.
      runs: the number of runs.
      diverged: how many of them diverged.
    """

    gamma: float
    depth: int
    test_error: float
    test_error_se: float
    ntk_drift: float
    ntk_drift_se: float
    train_loss: float
    best_step: float
    gradient_norms: tuple[float, ...] = dataclasses.field(repr=False)
    runs: int
    diverged: int

    @property
    def gradient_ratio(self) -> float:
        """The norm of the gradient in the first block, divided by that in the last."""
        norms = self.gradient_norms
        return norms[0] / norms[-1] if norms and norms[-1] else math.nan


@dataclasses.dataclass(frozen=True)
class DepthSweep:
    """What `depth_sweep` returns.

    Attributes:
      runs: one for each γ, depth and seed.

    Example:
      >>> runs = [DepthRun(0.5, 4, seed, test_error=0.1 + 0.02 * seed) for seed in range(2)]
      >>> (row,) = DepthSweep(runs).rows
      >>> round(row.test_error, 2), round(row.test_error_se, 2)
      (0.11, 0.01)
    """

    runs: list[DepthRun]

    def __repr__(self) -> str:
        rows = [row for row in self.rows if not math.isnan(row.test_error)]
        found = (
            f"DepthSweep({len(self.runs)} runs, {sum(run.diverged for run in self.runs)} diverged"
        )
        if rows:
            best = min(rows, key=lambda row: row.test_error)
            found += (
                f", least test error {_percent(best)} with γ = {best.gamma:g}, L = {best.depth}"
            )
        return found + ")"

    @property
    def rows(self) -> list[DepthRow]:
        """One for each γ and depth, in the order of `runs`."""
        groups: dict[tuple[float, int], list[DepthRun]] = {}
        for run in self.runs:
            groups.setdefault((run.gamma, run.depth), []).append(run)
        return [_row(group) for group in groups.values()]

    def table(self) -> str:
        """The rows as text: percents, and means ± standard errors."""
        header = (
            f"{'γ':>6} {'depth L':>8} {'test error':>15} {'NTK drift':>15} "
            f"{'first/last gradient':>20} {'train loss':>11} {'best step':>10} {'diverged':>9}"
        )
        lines = [_TRAINED, header, "─" * len(header)]
        for row in self.rows:
            drift = f"{row.ntk_drift:.3f} ± {row.ntk_drift_se:.3f}"
            lines.append(
                f"{row.gamma:>6g} {row.depth:>8} {_percent(row):>15} {drift:>15} "
                f"{row.gradient_ratio:>20.2f} {row.train_loss:>11.2g} {row.best_step:>10.0f} "
                f"{f'{row.diverged} of {row.runs}':>9}"
            )
        return "\n".join(lines)

    def plot(self) -> Any:
        """Draws test error and NTK drift against depth, and gradients against blocks.

        Bars are standard errors. Gradients are those of the deepest networks.

        Returns:
          A `matplotlib.figure.Figure`.

        Raises:
          ImportError: if matplotlib is missing.
        """
        rows = self.rows
        figure = plots.new_figure(13, 4)
        figure.suptitle(_TRAINED, fontsize="medium")
        errors, drifts, gradients = figure.subplots(1, 3)
        for i, gamma in enumerate(dict.fromkeys(row.gamma for row in rows)):
            mine = sorted((row for row in rows if row.gamma == gamma), key=lambda row: row.depth)
            style = {"color": f"C{i}", "marker": "os^Dv"[i % 5], "ms": 5, "label": f"γ = {gamma:g}"}
            depths = [row.depth for row in mine]
            for axes, scale, name in ((errors, 100, "test_error"), (drifts, 1, "ntk_drift")):
                heights = scale * np.array([getattr(row, name) for row in mine])
                bars = scale * np.array([getattr(row, f"{name}_se") for row in mine])
                axes.errorbar(depths, heights, np.nan_to_num(bars), capsize=3, **style)
            norms = mine[-1].gradient_norms
            places = (np.arange(len(norms)) + 1) / max(len(norms), 1)
            gradients.plot(places, norms, color=f"C{i}", label=f"γ = {gamma:g}, L = {depths[-1]}")
        for axes in (errors, drifts):
            axes.set_xscale("log", base=2)
            axes.set_xlabel("depth L")
        errors.set_ylabel("test error (%), stopped in time")
        drifts.set(ylabel="change of the NTK in training, relative", yscale="log")
        gradients.set(xlabel="block ℓ/L", ylabel="norm of the gradient at first, relative")
        gradients.set_yscale("log")
        for axes in (errors, drifts, gradients):
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
        return figure


def _percent(row: DepthRow) -> str:
    return f"{100 * row.test_error:.1f} ± {100 * row.test_error_se:.1f}%"


def _row(runs: list[DepthRun]) -> DepthRow:
    good = [run for run in runs if not run.diverged]

    def mean(name):
        return float(np.mean([getattr(run, name) for run in good])) if good else math.nan

    def standard_error(name):
        values = [getattr(run, name) for run in good]
        spread = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return float(spread)

    norms = np.mean([run.gradient_norms for run in good], axis=0) if good else np.array([])
    return DepthRow(
        gamma=runs[0].gamma,
        depth=runs[0].depth,
        test_error=mean("test_error"),
        test_error_se=standard_error("test_error"),
        ntk_drift=mean("ntk_drift"),
        ntk_drift_se=standard_error("ntk_drift"),
        train_loss=mean("train_loss"),
        best_step=mean("best_step"),
        gradient_norms=tuple(norms.tolist()),
        runs=len(runs),
        diverged=len(runs) - len(good),
    )


class Folder:
    """The folder of a sweep: `runs.jsonl`, and `table.csv` for readers."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self.runs = self._read()

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: str | os.PathLike, config: Mapping[str, Any]) -> Iterator["Folder"]:
        """Opens the folder of a sweep, or makes it, and keeps others from writing it.

        Args:
          path: of the folder.
          config: what the result of a run depends on, numbers and texts by name.

        Raises:
          BlockingIOError: if another process is writing it.
          FileExistsError: if there is something else.
          ValueError: if it holds a sweep of another configuration.
        """
        with claimed(path, config, "out") as found:
            yield cls(found)

    def add(self, run: DepthRun) -> None:
        """Writes a run: once this returns it is on the disk."""
        values = dataclasses.asdict(run)
        known = {k: None if v != v else v for k, v in values.items()}
        _files.append(self._path / _RUNS, json.dumps(known, allow_nan=False) + "\n")
        self.runs[run.gamma, run.depth, run.seed] = run
        text = io.StringIO()
        names = [f.name for f in dataclasses.fields(DepthRow) if f.name != "gradient_norms"]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*names, "gradient_ratio"])
        for row in DepthSweep(list(self.runs.values())).rows:
            writer.writerow([getattr(row, name) for name in (*names, "gradient_ratio")])
        _files.replace(self._path / _TABLE, text.getvalue())

    def _read(self) -> dict[tuple[float, int, int], DepthRun]:
        path = self._path / _RUNS
        text = path.read_text("utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            # The process was killed while it wrote the last line, which is done again.
            _files.replace(path, whole)
        found = {}
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                values: dict[str, Any] = json.loads(line)
            except ValueError as error:
                raise ValueError(
                    f"line {number} of {path} must be a run as JSON, but cannot be read: {error}. "
                    "Repair or remove the line; its run is done again then."
                ) from None
            values = {k: math.nan if v is None else v for k, v in values.items()}
            values["gradient_norms"] = tuple(values["gradient_norms"])
            run = DepthRun(**values)
            found[run.gamma, run.depth, run.seed] = run
        return found
