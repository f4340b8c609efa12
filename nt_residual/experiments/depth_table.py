"""The results of a depth sweep: single networks, a table of means, and a figure."""

import dataclasses
import math
from typing import Any

import numpy as np

from nt_residual.experiments import figures
from nt_residual.experiments.claim import mean_and_error, table

_TRAINED = "Only the blocks are trained; the first and the last layer are fixed."


@dataclasses.dataclass(frozen=True)
class DepthRun:
    """One network of a sweep, with the parameters of the least validation loss.

    Attributes:
      gamma: γ in α = L^(−γ).
      depth: the number of blocks L.
      seed: of the weights, the validation set and the minibatches.
      test_error: the fraction of wrong test inputs.
      train_loss: mean of ½|f − y|² over the training set.
      validation_loss: likewise, over the validation set.
      best_step: the step of the least validation loss.
      learning_rate: η.
      ntk_drift: |Θ − Θ_0| / |Θ_0| in the Frobenius norm, of the NTK of a few inputs now and at
        initialization.
      gradient_norms: the norm of the gradient in each block at initialization, divided by their
        root mean square.
      diverged: whether a loss was NaN or infinite; numbers that are missing then are NaN.
    """

    gamma: float
    depth: int
    seed: int
    test_error: float = math.nan
    train_loss: float = math.nan
    validation_loss: float = math.nan
    best_step: float = math.nan
    learning_rate: float = math.nan
    ntk_drift: float = math.nan
    gradient_norms: tuple[float, ...] = dataclasses.field(default=(), repr=False)
    diverged: bool = False


@dataclasses.dataclass(frozen=True)
class DepthSweep:
    """The outcome of `depth_sweep.run`.

    Attributes:
      runs: one for each γ, depth and seed.

    Example:
      >>> runs = [DepthRun(0.5, 4, seed, test_error=0.1 + 0.02 * seed) for seed in range(2)]
      >>> (row,) = DepthSweep(runs).rows
      >>> print(f"{row.test_error:.2f} ± {row.test_error_se:.2f}")
      0.11 ± 0.01
    """

    runs: list[DepthRun] = dataclasses.field(repr=False)

    @property
    def rows(self) -> np.recarray:
        """A record array: means over the networks of each γ and depth, in the order of `runs`.

        Networks that diverged do not count in means. The columns are

        * `gamma`, γ in α = L^(−γ), and `depth`, L;
        * `test_error`, `ntk_drift`, `train_loss` and `best_step`, as in `DepthRun`;
        * `test_error_se` and so on, their standard errors, NaN for one network;
        * `gradient_ratio`, the norm of the gradient in the first block at initialization, divided
          by that in the last;
        * `networks` and `diverged`, the numbers of networks and of those that diverged.
        """
        pairs = dict.fromkeys((run.gamma, run.depth) for run in self.runs)
        return table([_row(self.of(*pair)) for pair in pairs])

    def of(self, gamma: float, depth: int) -> list[DepthRun]:
        """Return the networks of one γ and depth."""
        return [run for run in self.runs if (run.gamma, run.depth) == (gamma, depth)]

    def table(self) -> str:
        """Return the rows as text: percents, and means ± standard errors."""
        header = (
            f"{'γ':>6} {'depth L':>8} {'test error':>15} {'NTK drift':>15} "
            f"{'first/last gradient':>20} {'train loss':>11} {'best step':>10} {'diverged':>9}"
        )
        lines = [_TRAINED, header, "─" * len(header)]
        for row in self.rows:
            error = f"{100 * row.test_error:.1f} ± {100 * row.test_error_se:.1f}%"
            drift = f"{row.ntk_drift:.3f} ± {row.ntk_drift_se:.3f}"
            lines.append(
                f"{row.gamma:>6g} {row.depth:>8} {error:>15} {drift:>15} "
                f"{row.gradient_ratio:>20.2f} {row.train_loss:>11.2g} {row.best_step:>10.0f} "
                f"{f'{row.diverged} of {row.networks}':>9}"
            )
        return "\n".join(lines)

    def plot(self) -> Any:
        """Draw test error and NTK drift against depth, and gradients of the deepest networks.

        Bars are standard errors. Returns a `matplotlib.figure.Figure`.
        """
        rows = self.rows
        figure, (errors, drifts, gradients) = figures.panels(3)
        figure.suptitle(_TRAINED, fontsize="medium")
        for i, gamma in enumerate(dict.fromkeys(rows.gamma.tolist())):
            mine = np.sort(rows[rows.gamma == gamma], order="depth")
            style = {**figures.style(i), "label": f"γ = {gamma:g}"}
            depths = mine["depth"]
            for axes, scale, name in ((errors, 100, "test_error"), (drifts, 1, "ntk_drift")):
                bars = scale * np.nan_to_num(mine[f"{name}_se"])
                axes.errorbar(depths, scale * mine[name], bars, capsize=3, **style)
            norms = _gradient_norms(self.of(gamma, depths[-1]))
            places = (np.arange(len(norms)) + 1) / max(len(norms), 1)
            gradients.plot(places, norms, color=f"C{i}", label=f"γ = {gamma:g}, L = {depths[-1]}")
        for axes in (errors, drifts):
            axes.set_xscale("log", base=2)
            axes.set_xlabel("depth L")
        errors.set_ylabel("test error (%), stopped early")
        drifts.set(ylabel="relative change of the NTK in training", yscale="log")
        gradients.set(xlabel="block ℓ/L", ylabel="relative norm of the first gradient")
        gradients.set_yscale("log")
        return figures.finish(figure)


def _gradient_norms(runs: list[DepthRun]) -> np.ndarray:
    """The mean over networks, by block."""
    norms = [run.gradient_norms for run in runs if run.gradient_norms]
    return np.mean(norms, axis=0) if norms else np.array([])


def _row(runs: list[DepthRun]) -> dict[str, Any]:
    good = [run for run in runs if not run.diverged]
    row: dict[str, Any] = {"gamma": runs[0].gamma, "depth": runs[0].depth}
    for name in ("test_error", "ntk_drift", "train_loss", "best_step"):
        row[name], row[f"{name}_se"] = mean_and_error([getattr(run, name) for run in good])
    norms = _gradient_norms(good)
    ratio = float(norms[0] / norms[-1]) if len(norms) and norms[-1] else math.nan
    counts = {"networks": len(runs), "diverged": len(runs) - len(good)}
    return row | {"gradient_ratio": ratio} | counts
