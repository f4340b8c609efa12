"""The meaning of each regime for learning, in words."""

import math

from nt_residual import schedules

# The effective time at which the kernel is 0.01 from its limit, at the angle between π/8 and
# 3π/4 where it is furthest: as T → ∞ the distance is 5.6/T (5.8/T with all layers trained), as
# T → 0 it is 0.083·T (1.4·T).
_NEAR_INFINITY = {"blocks": 560, "all": 580}
_NEAR_ZERO = {"blocks": 0.12, "all": 0.007}
# Beyond so many blocks a limit says little about networks that can be built.
_TOO_DEEP = 1e4


def advice(name: str, schedule: schedules.Schedule, trained: str) -> str:
    """Return a paragraph on what a regime means for learning, and what to do.

    Args:
      name: of the regime.
      schedule: the schedule that leads to it; for a `schedules.PowerLaw` depths are given.
      trained: 'blocks' or 'all'.

    Example:
      >>> advice("critical", schedules.PowerLaw(0.5), "blocks")[:31]
      'The kernel has a limit that dep'
    """
    if name == "degenerate":
        return (
            "The kernel tends to the constant 1/4 between any two different inputs, so infinitely "
            "deep networks learn nothing but the mean. Networks are within 0.01 of it, at angles "
            f"from 22 to 135 degrees, where T > {_NEAR_INFINITY[trained]}. Let α fall at least as "
            "fast as L^(-1/2): start with gamma = 1/2."
        )
    if name == "critical":
        near = 10 if trained == "blocks" else 20
        text = (
            "The kernel has a limit that depends on c and learns targets of either parity, "
            "whatever layers are trained: start with this gamma. Networks are within 0.01 of it "
            f"from about {near} blocks on for c = 1, from about 160 for c = 3. Keep c about 1: "
            "with a large c the limit is itself close to a constant."
        )
        linear = " Training the first and the last layer too adds much of the linear kernel to it."
        return text + (linear if trained == "all" else "")
    if name == "learnable":
        return (
            "The kernel tends to that of one hidden layer, with which early-stopped regression is "
            f"minimax optimal. {_near_limit(schedule, trained)} Without biases it has no odd "
            "harmonics beyond degree 1, so on inputs that come with their negatives it cannot "
            "learn them at all: append a constant feature (bias= of the estimators does), or use "
            "gamma = 1/2, which keeps them. All this is for the kernel regime with the blocks "
            "trained alone. Training every layer (trained='all') leads to the linear kernel "
            "cos θ: start such networks with gamma = 1/2."
        )
    return (
        "With all layers trained the share of the blocks vanishes, and the kernel tends to the "
        "linear one, cos θ: infinitely deep networks learn linear functions only. "
        f"{_near_limit(schedule, trained)} Start with gamma = 1/2. In the kernel regime you may "
        "train the blocks alone (trained='blocks') in its place."
    )


def _near_limit(schedule: schedules.Schedule, trained: str) -> str:
    """From which depth on a limit with T = 0 describes a network."""
    near = _NEAR_ZERO[trained]
    if not isinstance(schedule, schedules.PowerLaw):
        return f"Networks are within 0.01 of it where T < {near:.2g}."
    # The depth at which T = c² L^(1−2γ) falls to `near`.
    log_depth = (math.log(near) - 2 * math.log(schedule.c)) / (1 - 2 * schedule.gamma)
    depth = math.exp(min(max(log_depth, 0), 700))
    if depth <= _TOO_DEEP:
        return f"Networks are within 0.01 of it from {_blocks(depth)} on."
    time = schedule.c**2 * 1000 ** (1 - 2 * schedule.gamma)
    return (
        f"It is approached slowly: networks are within 0.01 of it only from {_blocks(depth)} on, "
        "and until then their kernel is that of gamma = 1/2 with c² = T, which is "
        f"{time:.2g} for 1000 blocks."
    )


def _blocks(depth: float) -> str:
    if depth > 1e15:
        return "more than 1e+15 blocks"
    if depth <= 1:
        return "the first block"
    digits = max(0, math.floor(math.log10(depth)) - 1)
    rounded = round(math.ceil(depth), -digits)
    return f"about {rounded} blocks" if depth < 1e5 else f"about {depth:.0e} blocks"
