"""Show the limit of the kernel for α = c·L^(−γ) as the depth L grows, and give advice.

It prints the limit, the kernel at one depth beside it, and which α to start with.

    nt-residual regime --gamma 0.25 --depth 100
"""

import argparse
import math
import textwrap

from nt_residual.cli import options

add_options = options.add_network

_DEGREES = (10, 30, 60, 90, 120, 150, 180)
_LIMITS = {
    "degenerate": "the constant 1/4 between any two different inputs",
    "critical": "a kernel that depends on c",
    "learnable": "the kernel of one hidden layer",
    "linear": "the linear kernel, cos θ",
}


def run(chosen: argparse.Namespace) -> int:
    """Run the command."""
    import numpy as np

    from nt_residual import rntk, schedules, theory

    schedule = schedules.PowerLaw(chosen.gamma, chosen.c)
    found = theory.regime(schedule, trained=chosen.trained)
    kernels = [found.limit]
    if chosen.depth != math.inf:
        kernels.insert(0, rntk.ResidualKernel(chosen.depth, schedule, trained=chosen.trained))
    times = [_of_depth(options.number(kernel.effective_time), kernel.depth) for kernel in kernels]
    facts = {
        "schedule": f"α = {chosen.c:g}·L^(−{chosen.gamma:g})",
        "regime": found.name,
        "T": ", ".join(times),
        "limit": _LIMITS[found.name],
        "rate": "not known" if found.rate is None else found.rate.text,
    }
    for name, fact in facts.items():
        print(f"{name:<12}{fact}")
    print("\nThe kernel r(θ) of two inputs at the angle θ, with r(0) = 1:\n")
    values = [kernel.at_angle(np.radians(_DEGREES)) for kernel in kernels]
    options.print_table(
        ["θ", *(f"L = {_depth(kernel.depth)}" for kernel in kernels)],
        [
            [f"{angle}°", *(f"{value:.4f}" for value in row)]
            for angle, *row in zip(_DEGREES, *values, strict=True)
        ],
    )
    print(f"\n{textwrap.fill(found.advice, 88)}\n")
    starts = {
        "All layers trained": theory.suitable_schedule(),
        "Only blocks trained": theory.suitable_schedule(trained="blocks"),
    }
    for name, start in starts.items():
        alpha = 0.0 if chosen.depth == math.inf else start(chosen.depth)[0]
        law = _of_depth(f"α = L^(−{start.gamma:g}) = {alpha:.4g}", chosen.depth)
        print(f"{name}: start with {law}")
    return 0


def _depth(depth: int | float) -> str:
    return "∞" if depth == math.inf else str(depth)


def _of_depth(text: str, depth: int | float) -> str:
    return f"{text} {'as L → ∞' if depth == math.inf else f'at L = {depth}'}"
