"""Test the claims of the paper (arXiv 2403.04545), and write a report.

CLAIM is constant_alpha, slow_decay, convergence, minimax, parity, landmarks, classification,
convolution or finite_networks. The output folder gets numbers, figures and report.html. If the
command is interrupted, run it again: it resumes.

    nt-residual reproduce minimax parity --quick --out report
"""

import argparse
import pathlib


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("claims", metavar="CLAIM", nargs="*", help="claims to test; none for all")
    setting = parser.add_mutually_exclusive_group()
    setting.add_argument("--quick", action="store_true", help="minutes on two cores, the default")
    setting.add_argument("--full", action="store_true", help="for an accelerator, or a day")
    parser.add_argument(
        "--dataset",
        default="digits",
        help="images: digits, mnist, fashion_mnist, cifar10 or cifar100 (default: digits)",
    )
    parser.add_argument(
        "--root", type=pathlib.Path, help="folder with the files of the data set, for no download"
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("nt-residual-report"),
        help="output folder (default: %(default)s)",
    )


def run(chosen: argparse.Namespace) -> int:
    """Run the command."""
    from nt_residual.experiments import reproduce
    from nt_residual.experiments.claim import VERDICTS

    outcomes = reproduce.run(
        list(dict.fromkeys(chosen.claims)) or None,
        setting="full" if chosen.full else "quick",
        dataset=chosen.dataset,
        root=chosen.root,
        out=chosen.out,
        progress=True,
    )
    for outcome in outcomes:
        agreed = sum(finding.agrees is True for finding in outcome.findings)
        count = f"{agreed} of {len(outcome.findings)} findings agree"
        print(f"{outcome.claim:<18}{VERDICTS[outcome.agrees]}: {count}")
    print(f"\nWrote {(chosen.out / 'report.html').resolve()}")
    return 0
