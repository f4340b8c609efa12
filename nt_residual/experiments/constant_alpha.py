"""With a constant α the kernel of a deep network tends to 1/4, and learns nothing but the mean."""

from collections.abc import Sequence

import numpy as np

from nt_residual.experiments import degeneration
from nt_residual.experiments.claim import Finding, slope, upper_half
from nt_residual.experiments.degeneration import Result as Result
from nt_residual.experiments.degeneration import plot as plot

TITLE = "A constant α degenerates"
STATEMENT = (
    "If α stays the same as depth grows, the kernel tends to the constant 1/4 between any two "
    "different inputs, like log(L)/L, and infinitely deep networks learn nothing but the mean of "
    "the targets."
)
QUICK = {"depths": (10, 30, 100, 300, 1000, 3000, 10_000, 30_000), "seeds": 2}
FULL = {"depths": (10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000), "seeds": 10}
_CONTROL = 1.0


def run(
    depths: Sequence[int] = QUICK["depths"],
    *,
    n_train: int = 100,
    n_test: int = 500,
    seeds: int = 3,
) -> Result:
    """Follows networks of α = 1 to great depth, beside ones of α = 1/L.

    Args:
      depths: the numbers of blocks, finite, at least two.
      n_train: training points on the sphere in three dimensions.
      n_test: test points.
      seeds: how many sets of points to average the error over.

    Returns:
      A row per γ and depth.

    Raises:
      TypeError, ValueError: if an argument is out of range.

    Example:
      >>> found = run([10, 100], n_train=20, n_test=20, seeds=1)
      >>> found.gammas, found.control
      ([0.0], 1.0)
    """
    return degeneration.run(
        [0.0], depths, control=_CONTROL, n_train=n_train, n_test=n_test, seeds=seeds
    )


def findings(result: Result) -> list[Finding]:
    """What was measured, beside what the paper says.

    Args:
      result: what `run` returned.

    Example:
      >>> found = run([10, 100], n_train=20, n_test=20, seeds=1)  # Not deep enough to see it.
      >>> [f.agrees for f in findings(found)]
      [False, False, False, True]
    """
    rows = result.of(0.0)
    last = rows[-1]
    deep = upper_half(rows)
    depths = np.array([row.depth for row in deep], float)
    measured = slope(depths, [row.distance for row in deep])
    logarithm = slope(depths, np.log(depths) / depths).value
    return [
        Finding(
            claim="The kernel between different inputs tends to 1/4 (criterion: within 0.01 at the "
            "greatest depth).",
            measured=f"At depth {last.depth} it is within {last.distance:.2g} of 1/4.",
            agrees=last.distance < 0.01,
        ),
        Finding(
            claim="It does so like log(L)/L. At these depths the constant beside the logarithm "
            "still counts, so the slope lies between that of 1/L and "
            f"{logarithm:.2f} (criterion: over depths {deep[0].depth} to {deep[-1].depth}, within "
            "0.02 of that interval).",
            measured=f"The slope is {measured.value:.3f}.",
            agrees=-1.02 < measured.value < logarithm + 0.02,
        ),
        Finding(
            claim="Regression does no better than the mean of the targets, at any stopping time "
            "(criterion: relative test error above 0.9 at the greatest depth, and rising).",
            measured=f"The relative test error is {rows[0].error:.2g} at depth {rows[0].depth}, "
            f"and {last.error:.3g} at depth {last.depth}.",
            agrees=last.error > 0.9 and all(np.diff([row.error for row in rows]) > -0.01),
        ),
        degeneration.control_finding(result),
    ]
