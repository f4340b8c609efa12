"""Which residual scale to use."""

import dataclasses
import math
from typing import Literal

from nt_residual import _checks, schedules


@dataclasses.dataclass(frozen=True)
class Choice:
    """A residual scale, and why.

    Attributes:
      schedule: α as a function of depth.
      alpha: α at the depth asked for, 0 at infinite depth.
      reason: why this one; a few sentences.
    """

    schedule: schedules.PowerLaw
    alpha: float
    reason: str


def suitable_schedule(
    depth: int | float,
    *,
    trained: Literal["all", "blocks"] = "all",
    odd_harmonics: bool = False,
) -> Choice:
    """Return the residual scale to start with at a given depth.

        α = 1/√L    if all layers are trained, with normalization layers and Adam too
        α = 1/L     in the kernel regime with the blocks trained alone; 1/√L for odd harmonics

    With all layers trained 1/√L is the only power for which the kernel of a deep network is
    neither a constant nor linear. For feature learning at infinite depth it is singled out too,
    for blocks of one layer (Yang et al.); with deeper blocks, in μP, it transfers learning rates
    from one depth to another (Bordelon et al.). None of this tells the constant c of c/√L: tune
    it, from 1 on. The theory of this package is that of infinite width without normalization
    layers, trained by gradient flow.

    Args:
      depth: the number of blocks L ≥ 1, or `math.inf`.
      trained: 'all' for a network of which all layers are trained; 'blocks' for the kernel regime
        with the first and the last layer fixed, as in arXiv 2403.04545.
      odd_harmonics: whether odd harmonics of degree 3 and more must be learned, for
        `trained='blocks'`. It matters for inputs that come with their negatives, as points spread
        over a whole sphere do; not for inputs with a constant feature (`bias=` of the estimators)
        or none but positive ones.

    Returns:
      The schedule, α at this depth, and the reason.

    Raises:
      TypeError: if `depth` is not an integer or `math.inf`, or another argument has another type.
      ValueError: if `depth` < 1 or `trained` is unknown.

    Example:
      >>> suitable_schedule(100).alpha
      0.1
      >>> suitable_schedule(100, trained="blocks").alpha
      0.01

    Reference: arXiv 2403.04545 (kernels); Yang et al. 2023, arXiv 2310.02244; Bordelon et al.
      2023, arXiv 2309.16620.
    """
    depth = schedules.check_depth(depth)
    _checks.choice(trained, "trained", ("blocks", "all"))
    odd_harmonics = _checks.boolean(odd_harmonics, "odd_harmonics")
    gamma = 0.5 if trained == "all" or odd_harmonics else 1.0
    schedule = schedules.PowerLaw(gamma)
    alpha = 0.0 if depth == math.inf else float(schedule(int(depth))[0])
    return Choice(schedule, alpha, _reason(trained, odd_harmonics))


def _reason(trained: str, odd_harmonics: bool) -> str:
    if trained == "all":
        return (
            "With all layers trained, alpha that falls faster than 1/sqrt(L) leaves the linear "
            "kernel, and alpha that falls more slowly a constant: gamma = 1/2 is the only one that "
            "does neither. For feature learning at infinite depth it is singled out too, for "
            "blocks of one layer (arXiv 2310.02244), and with deeper blocks and muP it transfers "
            "learning rates between depths (arXiv 2309.16620). Normalization layers are beyond "
            "the theory of these kernels, and so is the constant c: start with 1 and tune it."
        )
    if odd_harmonics:
        return (
            "For gamma > 1/2 the kernel of a deep network has no odd harmonics beyond degree 1, "
            "for gamma < 1/2 none at all: gamma = 1/2 keeps them all, and the same decay of "
            "eigenvalues."
        )
    return (
        "In the kernel regime with the blocks trained alone, early-stopped regression is minimax "
        "optimal for every gamma > 1/2 however deep the network, and with gamma = 1 the kernel is "
        "within 0.01 of its limit from 9 blocks on."
    )
