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
      reason: why this one; a sentence or two.
    """

    schedule: schedules.PowerLaw
    alpha: float
    reason: str


def suitable_schedule(
    depth: int | float,
    *,
    trained: Literal["blocks", "all"] = "blocks",
    odd_harmonics: bool = False,
) -> Choice:
    """The residual scale with which a network of a given depth generalises.

        α = 1/L     in general
        α = 1/√L    if all layers are trained, or odd harmonics matter

    Args:
      depth: the number of blocks L ≥ 1, or `math.inf`.
      trained: 'blocks' if only the blocks are trained, 'all' if the first and the last
        layer are too.
      odd_harmonics: whether odd harmonics of degree 3 and more must be learned. It
        matters for inputs that come with their negatives, as points spread over a whole
        sphere do; not for inputs with a constant feature or none but positive ones.

    Returns:
      The schedule, α at this depth, and the reason.

    Raises:
      TypeError: if `depth` is not a number or `odd_harmonics` not a bool.
      ValueError: if `depth` < 1 or `trained` is unknown.

    Example:
      >>> suitable_schedule(100).alpha
      0.01
      >>> suitable_schedule(100, odd_harmonics=True).alpha
      0.1

    Reference: arXiv 2403.04545.
    """
    depth = schedules.check_depth(depth)
    _checks.choice(trained, "trained", ("blocks", "all"))
    if not isinstance(odd_harmonics, bool):
        raise TypeError(
            f"odd_harmonics must be True or False, got {odd_harmonics!r}. Pass True if odd "
            "functions of the input beyond linear ones must be learned."
        )
    gamma = 0.5 if trained == "all" or odd_harmonics else 1.0
    schedule = schedules.PowerLaw(gamma)
    alpha = 0.0 if depth == math.inf else float(schedule(int(depth))[0])
    return Choice(schedule, alpha, _reason(trained, odd_harmonics))


def _reason(trained: str, odd_harmonics: bool) -> str:
    if trained == "all":
        reason = (
            "With all layers trained, α that fall faster than L^(-1/2) leave the linear kernel, "
            "and α that fall more slowly a constant: gamma = 1/2 is the only one that does neither."
        )
        return reason + (" It keeps odd harmonics too." if odd_harmonics else "")
    if odd_harmonics:
        return (
            "For gamma > 1/2 the kernel of a deep network has no odd harmonics beyond degree 1, "
            "for gamma < 1/2 none at all: gamma = 1/2 keeps them all, and the same decay of "
            "eigenvalues."
        )
    return (
        "For gamma > 1/2 early-stopped regression is minimax optimal however deep the network, and "
        "with gamma = 1 the kernel is within 0.01 of its limit from 9 blocks on."
    )
