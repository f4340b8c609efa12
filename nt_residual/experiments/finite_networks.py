"""Networks of finite width, trained in Flax, by depth and α."""

import math
import os
from typing import Any

import numpy as np

from nt_residual import data
from nt_residual.experiments import depth_sweep
from nt_residual.experiments.claim import Finding
from nt_residual.experiments.depth_table import DepthSweep

TITLE = "Networks of finite width"
STATEMENT = (
    "Trained networks, stopped early and with the same number of steps, behave like their kernels. "
    "With α = L^(−γ) and γ ≥ 1/2 they generalize at every depth. With a constant α they get worse "
    "with depth, and fit less of the training set."
)
QUICK = depth_sweep.QUICK | {
    "gammas": (0.0, 0.5, 1.0),
    "depths": (4, 16, 64),
    "n_train": 500,
    "steps": 800,
}
FULL = {
    "gammas": depth_sweep.GAMMAS,
    "depths": depth_sweep.DEPTHS[:-1],
    "n_train": None,
    "width": 256,
    "n_seeds": 5,
    "steps": 5000,
    "batch_size": 128,
}
# For data sets of 10,000 test images.
LARGE = {"quick": {"n_test": 1000}, "full": {}}


def run(
    dataset: str = "digits",
    *,
    n_train: int | None = 500,
    n_test: int | None = None,
    root: str | os.PathLike | None = None,
    out: str | os.PathLike | None = None,
    progress: bool = False,
    **sweep: Any,
) -> DepthSweep:
    """Train residual networks of several γ and depths on images.

    Args and errors are those of `data.load`, for the images, and of `depth_sweep.run`; the defaults
    are those of `QUICK`.
    """
    images = data.load(dataset, n_train, n_test, root=root)
    given = {key: value for key, value in QUICK.items() if key != "n_train"} | sweep
    return depth_sweep.run(images, out=out, progress=progress, **given)


def findings(result: DepthSweep) -> list[Finding]:
    """Return the predictions of the paper beside measurements."""
    rows = result.rows[np.argsort(result.rows.depth, kind="stable")]
    return [
        (_kept if gamma >= 0.5 else _lost)(gamma, rows[rows["gamma"] == gamma])
        for gamma in dict.fromkeys(result.rows.gamma.tolist())
    ]


def _errors(rows: Any) -> str:
    steps = []
    for row in rows:
        lost = f" ({row.diverged} of {row.networks} diverged)" if row.diverged else ""
        value = "unknown" if math.isnan(row.test_error) else f"{row.test_error:.1%}"
        steps.append(f"{value} at {row.depth}{lost}")
    losses = ", ".join(f"{row.train_loss:.2g}" for row in rows)
    return f"The test error by depth is {', '.join(steps)}; the training loss {losses}."


def _kept(gamma: float, rows: Any) -> Finding:
    # Seeds differ by about a quarter in relative terms. Guessing gives 90% or more.
    allowed = min(1.25 * rows[0].test_error + 0.01, 0.6)
    return Finding(
        claim=f"γ = {gamma:g}: depth does no harm (criterion: the test error of the deepest "
        "network is under 60%, and at most 1.25 times that of the shallowest plus one point; no "
        "network diverges).",
        measured=_errors(rows),
        agrees=bool(rows[-1].test_error < allowed and not any(rows.diverged)),
    )


def _lost(gamma: float, rows: Any) -> Finding:
    return Finding(
        claim=f"γ = {gamma:g}: the test error grows with depth (criterion: to over 1.5 times that "
        "of the shallowest network; diverged networks do not count).",
        measured=_errors(rows),
        agrees=bool(rows[-1].test_error > 1.5 * rows[0].test_error),
    )


plot = DepthSweep.plot
