"""`nt-residual spectrum`: the eigenvalues of a kernel on the sphere."""

import argparse
import csv
import math
import pathlib
from typing import Any

from nt_residual.cli import options

_COLUMNS = ("degree", "eigenvalue", "log_eigenvalue", "multiplicity", "mass", "mass_error")


def add(commands: Any) -> options.Parser:
    """Adds the command."""
    parser = commands.add_parser(
        "spectrum",
        help="list the eigenvalues of a kernel on the sphere",
        description="Lists the eigenvalues of the kernel of a residual network over uniform "
        "points of the sphere S^(d−1), how often each occurs, and its share in the kernel.",
        epilog="example: nt-residual spectrum --dim 3 --depth inf --out spectrum.png",
    )
    options.add_network(parser)
    options.add_kind(parser)
    parser.add_argument("--dim", type=options.at_least(2), default=3, help="features d")
    parser.add_argument(
        "--max-degree", type=options.at_least(0), default=20, help="the largest degree"
    )
    parser.add_argument(
        "--out",
        type=options.path_ending(".csv", ".png", ".svg", ".pdf"),
        help="file for the numbers (.csv) or a figure (.png, .svg or .pdf)",
    )
    return parser


def run(chosen: argparse.Namespace) -> int:
    """Runs the command."""
    from nt_residual import rntk, schedules, theory

    options.check_output(chosen.out)
    if chosen.out and not _is_csv(chosen.out):
        options.check_packages("a figure", {"matplotlib": "matplotlib"})
    schedule = schedules.PowerLaw(chosen.gamma, chosen.c)
    with options.wrong_input():
        kernel = rntk.ResidualKernel(chosen.depth, schedule, chosen.kind, chosen.trained)
        found = theory.spectrum(kernel, chosen.dim, chosen.max_degree)
    options.print_table(
        ["degree", "eigenvalue", "multiplicity", "share"],
        [
            [
                str(k),
                _eigenvalue(found, k),
                options.number(float(found.multiplicity[k]), 6),
                _share(found, k),
            ]
            for k in found.degree
        ],
    )
    print(f"\nDegrees beyond {chosen.max_degree} have {found.tail / found.diagonal:.4%} together.")
    if not found.resolved.all():
        print("0: zero, or too small to be told from it.")
    print(_decay(found))
    if chosen.out:
        _write(found, chosen.out)
        print(f"Wrote {chosen.out.resolve()}")
    return 0


def _eigenvalue(found: Any, k: int) -> str:
    """One that is below the range of floats is told by its logarithm."""
    if not found.resolved[k]:
        return "0"
    if found.eigenvalue[k] > 0:
        return f"{found.eigenvalue[k]:.6g}"
    return f"10^{found.log_eigenvalue[k] / math.log(10):.4f}"


def _share(found: Any, k: int) -> str:
    return f"{found.mass[k] / found.diagonal:.4%}" if found.resolved[k] else "0"


def _decay(found: Any) -> str:
    try:
        law = found.decay()
    except ValueError:
        return "There are too few eigenvalues to fit their decay: pass a larger --max-degree."
    if law.degrees[0] < found.dim**1.5:
        return f"Their decay is no power law before degrees of d^(3/2) = {found.dim**1.5:.0f}."
    degrees = f"degrees {law.degrees[0]} to {law.degrees[-1]}"
    return (
        f"At {degrees} they decay like k^(−{law.exponent:.3g}) (±{law.uncertainty:.2g}), each "
        f"counted as often as it occurs like i^(−{law.sorted_exponent:.3g})."
    )


def _is_csv(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".csv"


def _write(found: Any, path: pathlib.Path) -> None:
    if not _is_csv(path):
        from nt_residual import theory

        theory.plots.spectrum(found).figure.savefig(path, dpi=150)
        return
    columns = [getattr(found, name) for name in _COLUMNS]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
