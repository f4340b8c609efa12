"""With an α that falls more slowly than L^(−1/2) the kernel tends to 1/4, too, but slowly."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nt_residual.experiments import constant_alpha, degeneration
from nt_residual.experiments.claim import Finding, Result, slope
from nt_residual.experiments.degeneration import plot as plot

TITLE = "An α that falls too slowly degenerates too"
STATEMENT = (
    "If α = L^(−γ) with 0 < γ < 1/2, α falls to zero as the depth L grows, but the kernel still "
    "tends to the constant 1/4, at the slower rate L^(−(1−2γ)). Infinitely deep networks learn "
    "only the mean of the targets."
)
QUICK: dict[str, Any] = {"gammas": (0.1, 0.25, 0.4)} | constant_alpha.QUICK
FULL = {"gammas": (0.1, 0.2, 0.25, 0.3, 0.4)} | constant_alpha.FULL
_CONTROL = 0.5
# The rate holds where T exceeds this (`theory.rate`).
_ASYMPTOTIC = 30.0


def run(
    gammas: Sequence[float] = QUICK["gammas"],
    depths: Sequence[int] = QUICK["depths"],
    *,
    n_seeds: int = 3,
    n_train: int = 100,
) -> Result:
    """Compute kernels with 0 < γ < 1/2 up to great depth, and with γ = 1/2 for comparison.

    Args, results and errors are those of `degeneration.run`.
    """
    if not all(0 < gamma < 0.5 for gamma in gammas):
        raise ValueError(
            f"gammas must be between 0 and 1/2, got {gammas}. See convergence for larger ones."
        )
    return degeneration.run(gammas, depths, control=_CONTROL, n_train=n_train, n_seeds=n_seeds)


def findings(result: Result) -> list[Finding]:
    """Return the predictions of the paper beside measurements."""
    found = []
    for gamma in dict.fromkeys(result.rows.gamma[result.rows.gamma != _CONTROL].tolist()):
        rows = result.of(gamma=gamma)
        deep = rows[rows.effective_time > _ASYMPTOTIC]
        found.append(_rate(gamma, deep) if len(deep) > 1 else _on_its_way(gamma, rows))
        found.append(_regression(gamma, rows, result.of(gamma=_CONTROL)[-1].error))
    return [*found, degeneration.control_finding(result)]


def _rate(gamma: float, rows: Any) -> Finding:
    measured = slope(rows.depth, rows.distance).value
    predicted = 2 * gamma - 1
    return Finding(
        claim=f"γ = {gamma:g}: the distance of the kernel to 1/4 falls like L^({predicted:.2g}) "
        f"where T > {_ASYMPTOTIC:g} (criterion: the slope is within 10%).",
        measured=f"The slope is {measured:.2f} over depths {rows[0].depth} to {rows[-1].depth}; "
        f"the distance is {rows[-1].distance:.2g} at the last.",
        agrees=abs(measured / predicted - 1) < 0.1,
    )


def _on_its_way(gamma: float, rows: Any) -> Finding:
    """Return what can be seen where no depth within reach is near the limit."""
    slopes = np.diff(np.log(rows.distance)) / np.diff(np.log(rows.depth))
    predicted, last = 2 * gamma - 1, rows[-1]
    steeper = predicted - 0.1 < slopes[-1] < slopes[0] < 0 and np.all(np.diff(slopes) < 0)
    return Finding(
        claim=f"γ = {gamma:g}: the distance of the kernel to 1/4 falls like L^({predicted:.2g}) "
        f"beyond the depths computed, where T is at most {last.effective_time:.2g} (criterion: the "
        "slope becomes steeper with depth. This can refute the limit, but cannot confirm it).",
        measured=f"The slope goes from {slopes[0]:.2f} to {slopes[-1]:.2f}; at depth {last.depth} "
        f"the distance is still {last.distance:.2g}.",
        agrees=None if steeper else False,
    )


def _regression(gamma: float, rows: np.recarray, control: float) -> Finding:
    errors = rows.error
    return Finding(
        claim=f"γ = {gamma:g}: regression gets worse with depth, at any stopping time (criterion: "
        "the test error rises, to over 3 times that of the comparison).",
        measured=f"The relative test error goes from {errors[0]:.2g} at depth {rows[0].depth} to "
        f"{errors[-1]:.2g} at depth {rows[-1].depth}, where that of γ = {_CONTROL:g} is "
        f"{control:.2g}.",
        agrees=bool(errors[-1] > 3 * control and np.all(np.diff(errors) > -0.01 * errors[-1])),
    )
