"""With a constant α the kernel of a deep network tends to 1/4, and learns only the mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nt_residual.experiments import degeneration
from nt_residual.experiments.claim import Finding, Result, slope, upper_half
from nt_residual.experiments.degeneration import plot as plot

TITLE = "A constant α degenerates"
STATEMENT = (
    "If α stays the same as the depth L grows, the kernel of any two different inputs tends to the "
    "constant 1/4, at the rate log(L)/L. Infinitely deep networks learn only the mean of the "
    "targets."
)
QUICK: dict[str, Any] = {"depths": (10, 30, 100, 300, 1000, 3000, 10_000, 30_000), "n_seeds": 2}
FULL = {"depths": (*QUICK["depths"], 100_000), "n_seeds": 10}


def run(depths: Sequence[int] = QUICK["depths"], *, n_seeds: int = 3, n_train: int = 100) -> Result:
    """Compute kernels with α = 1 up to great depth, and with α = 1/L for comparison.

    Args, results and errors are those of `degeneration.run`.
    """
    return degeneration.run([0.0], depths, control=1.0, n_train=n_train, n_seeds=n_seeds)


def findings(result: Result) -> list[Finding]:
    """Return the predictions of the paper beside measurements."""
    rows = result.of(gamma=0.0)
    last = rows[-1]
    deep = upper_half(rows)
    measured = slope(deep.depth, deep.distance)
    logarithm = slope(deep.depth, np.log(deep.depth) / deep.depth).value
    return [
        Finding(
            claim="The kernel between different inputs tends to 1/4 (criterion: within 0.01 at the "
            "greatest depth).",
            measured=f"At depth {last.depth} it is within {last.distance:.2g} of 1/4.",
            agrees=bool(last.distance < 0.01),
        ),
        Finding(
            claim="The distance falls like log(L)/L. At these depths a constant added to the "
            f"logarithm still matters: the slope lies between −1 and {logarithm:.2f} (criterion: "
            f"within 0.02 of that interval, over depths {deep[0].depth} to {deep[-1].depth}).",
            measured=f"The slope is {measured.value:.3f}.",
            agrees=-1.02 < measured.value < logarithm + 0.02,
        ),
        Finding(
            claim="Regression does no better than the mean of the targets, at any stopping time "
            "(criterion: relative test error above 0.9 at the greatest depth, and rising).",
            measured=f"The relative test error is {rows[0].error:.2g} at depth {rows[0].depth}, "
            f"and {last.error:.3g} at depth {last.depth}.",
            agrees=bool(last.error > 0.9 and all(np.diff(rows.error) > -0.01)),
        ),
        degeneration.control_finding(result),
    ]
