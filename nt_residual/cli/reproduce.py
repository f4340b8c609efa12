"""`nt-residual reproduce`: the claims of arXiv 2403.04545, one by one."""

import argparse
import pathlib
from typing import Any

from nt_residual.cli import options

INTERRUPTED = "what was finished is kept: go on with --resume"


def add(commands: Any) -> options.Parser:
    """Adds the command."""
    parser = commands.add_parser(
        "reproduce",
        help="check the claims of the paper, and write a report",
        description="Checks the claims of arXiv 2403.04545 by experiments, and writes their "
        "numbers, figures and a report.",
        epilog="example: nt-residual reproduce minimax parity --quick --out report",
    )
    parser.add_argument("claims", metavar="CLAIM", nargs="*", help="which, see below; none for all")
    setting = parser.add_mutually_exclusive_group()
    setting.add_argument("--quick", action="store_true", help="minutes on two cores, the default")
    setting.add_argument("--full", action="store_true", help="for an accelerator, or a day")
    parser.add_argument("--dataset", default="digits", help="data set of those that need one")
    options.add_root(parser)
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("nt-residual-report"), help="output folder"
    )
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run was")
    parser.more_help = _listed
    return parser


def run(chosen: argparse.Namespace) -> int:
    """Runs the command."""
    from nt_residual import data
    from nt_residual.experiments import reproduce
    from nt_residual.experiments.claim import VERDICTS

    claims = list(dict.fromkeys(chosen.claims)) or list(reproduce.CLAIMS)
    unknown = [claim for claim in claims if claim not in reproduce.CLAIMS]
    if unknown:
        raise options.InputError(
            f"CLAIM must be one of {', '.join(reproduce.CLAIMS)}, got {unknown[0]!r}"
        )
    if chosen.dataset not in data.NAMES:
        raise options.InputError(
            f"--dataset must be one of {', '.join(data.NAMES)}, got {chosen.dataset!r}"
        )
    with options.wrong_input():
        outcomes = reproduce.run(
            claims,
            setting="full" if chosen.full else "quick",
            dataset=chosen.dataset,
            root=chosen.root,
            out=chosen.out,
            resume=chosen.resume,
            progress=True,
        )
    for outcome in outcomes:
        agreed = sum(finding.agrees is True for finding in outcome.findings)
        count = f"{agreed} of {len(outcome.findings)} findings agree"
        print(f"{outcome.claim:<18}{VERDICTS[outcome.agrees]}: {count}")
    print(f"\nWrote {(chosen.out / 'report.html').resolve()}")
    return 0


def _listed() -> str:
    from nt_residual.experiments.reproduce import CLAIMS

    lines = [f"  {name:<18}{module.TITLE}" for name, module in CLAIMS.items()]
    return "\n".join(["", "claims:", *lines, ""])
