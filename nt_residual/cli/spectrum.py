"""List the eigenvalues of a kernel on the sphere.

The kernel is that of a residual network, for uniform points of the sphere S^(d−1) in d dimensions.
The table has each eigenvalue, its multiplicity, and its share of the kernel.

    nt-residual spectrum --dim 3 --depth inf --out spectrum.png
"""

import argparse
import csv
import math
import pathlib
import textwrap
from typing import Any

from nt_residual.cli import options

_COLUMNS = ("degree", "eigenvalue", "log_eigenvalue", "multiplicity", "mass", "mass_error")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_network(parser)
    parser.add_argument(
        "--kind",
        choices=["ntk", "nngp"],
        default="ntk",
        help="kernel: ntk, or nngp for training of the output layer alone (default: ntk)",
    )
    parser.add_argument(
        "--dim", type=int, default=3, help="dimension d ≥ 2 of the inputs (default: 3)"
    )
    parser.add_argument(
        "--max-degree", type=int, default=20, help="the largest degree (default: 20)"
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        help="file for the numbers (.csv) or for a figure (.png, .svg, .pdf)",
    )


def run(chosen: argparse.Namespace) -> int:
    """Run the command."""
    from nt_residual import rntk, schedules, theory

    schedule = schedules.PowerLaw(chosen.gamma, chosen.c)
    kernel = rntk.ResidualKernel(chosen.depth, schedule, chosen.kind, chosen.trained)
    found = theory.spectrum(kernel, chosen.dim, chosen.max_degree)
    options.print_table(
        ["degree", "eigenvalue", "multiplicity", "share"],
        [
            [
                str(k),
                _eigenvalue(found, k),
                options.number(float(found.multiplicity[k]), 6),
                f"{found.mass[k] / found.diagonal:.4%}" if found.resolved[k] else "0",
            ]
            for k in found.degree
        ],
    )
    print(f"\nAll degrees above {chosen.max_degree} together: {found.tail / found.diagonal:.4%}.")
    if not found.resolved.all():
        print("0: zero, or too small to distinguish from zero.")
    print(textwrap.fill(_decay(found, kernel), 88))
    if chosen.out:
        _write(found, chosen.out)
        print(f"Wrote {chosen.out.resolve()}")
    return 0


def _eigenvalue(found: Any, k: int) -> str:
    """Return an eigenvalue as text; below the range of floats, from its logarithm."""
    if not found.resolved[k]:
        return "0"
    if found.eigenvalue[k] > 0:
        return f"{found.eigenvalue[k]:.6g}"
    return f"10^{found.log_eigenvalue[k] / math.log(10):.4f}"


def _decay(found: Any, kernel: Any) -> str:
    """Return the power laws of the eigenvalues, as fitted and in theory."""
    # A law of large degrees begins beyond d^(3/2), see `Spectrum.decay`.
    onset = found.dim**1.5
    try:
        law = found.decay()
    except ValueError:  # Even and odd degrees follow two laws, or there are too few of them.
        try:
            even, odd = (_law(f"{p} degrees", found.decay(p)) for p in ("even", "odd"))
        except ValueError:
            return "There are too few eigenvalues to fit their decay: pass a larger --max-degree."
        text, subject = f"{even.capitalize()}, {odd}.", "both tend"
    else:
        if law.degrees[0] < onset:
            return f"Their decay is no power law before degrees of d^(3/2) = {onset:.0f}."
        exponent = f"{law.sorted_exponent:.3g}"
        text = f"{_law('Degrees', law)}, sorted with multiplicity like i^(−{exponent})."
        subject = "they tend"
    time = kernel.effective_time
    if time == math.inf:
        return text
    power = found.dim + (2 if kernel.kind == "nngp" else 0)
    least = max(onset, time, time**-0.5 if time > 0 else 0.0)
    return f"{text} In theory {subject} to k^(−{power}) at degrees well above {least:.0f}."


def _law(name: str, law: Any) -> str:
    digits = 2 if law.uncertainty < 0.1 else 1
    value = f"{law.exponent:.{digits}f} ± {law.uncertainty:.{digits}f}"
    return f"{name} {law.degrees[0]} to {law.degrees[-1]} decay like k^(−{value})"


def _write(found: Any, path: pathlib.Path) -> None:
    if path.suffix.lower() != ".csv":
        from nt_residual import theory

        theory.plots.spectrum(found).figure.savefig(path, dpi=150)
        return
    columns = [getattr(found, name).tolist() for name in _COLUMNS]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows(zip(*columns, strict=True))
