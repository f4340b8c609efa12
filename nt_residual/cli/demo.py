"""Classify handwritten digits with the kernels of deep residual networks.

The networks have α = L^(−γ), and a finite or an infinite depth L. Nothing is downloaded: the
digits come with scikit-learn. A table and a figure are written to the output folder.

    nt-residual demo --label-noise 0.3
"""

import argparse
import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any

from nt_residual.cli import options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--depth",
        type=options.depth,
        default=1000,
        help="number of blocks L, or inf (default: 1000)",
    )
    parser.add_argument(
        "--gamma",
        type=float,
        nargs="+",
        default=[0.0, 0.25, 0.5, 1.0],
        help="exponents γ ≥ 0 (default: 0 0.25 0.5 1)",
    )
    parser.add_argument(
        "--n-train", type=int, help="digits to train and validate on (default: all 1437)"
    )
    parser.add_argument(
        "--label-noise",
        type=float,
        default=0.0,
        help="fraction of wrong training labels (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("nt-residual-demo"),
        help="output folder (default: %(default)s)",
    )


def run(chosen: argparse.Namespace) -> int:
    """Run the command."""
    from nt_residual import machine
    from nt_residual.experiments import classification, record

    chosen.out.mkdir(parents=True, exist_ok=True)
    gammas = list(dict.fromkeys(chosen.gamma))
    result = classification.run(
        gammas=gammas,
        depths=list(dict.fromkeys([chosen.depth, math.inf])),
        sizes=[chosen.n_train],
        label_noise=[chosen.label_noise],
        seed=chosen.seed,
        progress=True,
    )
    print(_table(result.rows))
    config = {
        "depth": chosen.depth,
        "gamma": gammas,
        "label_noise": chosen.label_noise,
        "seed": chosen.seed,
    }
    found = {"config": config, "versions": machine.versions(), "rows": record.dicts(result.rows)}
    document = json.dumps(record.plain(found), indent=2) + "\n"
    (chosen.out / "results.json").write_text(document, "utf-8")
    (chosen.out / "results.csv").write_text(record.csv_text(result.rows), "utf-8")
    classification.plot_times(result).savefig(chosen.out / "accuracy.png", dpi=120)
    print(f"\nWrote results.csv, results.json and accuracy.png to {chosen.out.resolve()}")
    return 0


def _table(rows: Iterable[Any]) -> str:
    header = (
        f"{'depth L':>8} {'γ':>5} {'T':>9}  {'regime':<10} {'chosen t':>9} "
        f"{'validation':>10} {'test':>7} {'t = ∞':>7}"
    )
    lines = [header, "─" * len(header)]
    for row in rows:
        depth = "∞" if row.depth == math.inf else str(row.depth)
        lines.append(
            f"{depth:>8} {row.gamma:>5g} {options.number(row.effective_time):>9}  "
            f"{row.regime:<10} {options.number(row.stopping_time, 3):>9} "
            f"{row.validation_accuracy:>10.1%} {row.test_accuracy:>7.1%} "
            f"{row.test_accuracy_at_infinity:>7.1%}"
        )
    return "\n".join(lines)
