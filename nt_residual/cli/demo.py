"""`nt-residual demo`: the regimes of depth, on handwritten digits."""

import argparse
import csv
import dataclasses
import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from nt_residual.cli import options

_n_train = options.checked(
    int, lambda n: 20 <= n <= 1427 or n == 1437, "an integer from 20 to 1427, or 1437"
)


def add(commands: Any) -> options.Parser:
    """Adds the command."""
    parser = commands.add_parser(
        "demo",
        help="classify handwritten digits with the kernels of deep residual networks",
        description="Classifies the handwritten digits that come with scikit-learn with the "
        "kernels of residual networks, α = L^(−γ), at a finite and at infinite depth L.",
        epilog="example: nt-residual demo --label-noise 0.3",
    )
    parser.add_argument(
        "--depth", type=options.depth, default=1000, help="number of residual blocks L, or inf"
    )
    parser.add_argument(
        "--gamma", type=options.gamma, nargs="+", default=[0.0, 0.25, 0.5, 1.0], help="exponents γ"
    )
    parser.add_argument(
        "--n-train", type=_n_train, default=1437, help="digits to train and validate on"
    )
    parser.add_argument(
        "--label-noise",
        type=options.fraction,
        default=0.0,
        help="fraction of wrong training labels",
    )
    parser.add_argument("--seed", type=options.seed, default=0, help="of the split of the data")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("nt-residual-demo"), help="output folder"
    )
    return parser


def run(chosen: argparse.Namespace) -> int:
    """Runs the command."""
    from tqdm import tqdm

    from nt_residual.experiments import digits

    # Before the work, so that a missing package or folder costs nothing.
    modules = {"scikit-learn": "sklearn", "matplotlib": "matplotlib"}
    options.check_packages("the demonstration", modules)
    if chosen.out.exists() and not chosen.out.is_dir():
        raise ValueError(f"--out must be a folder, got the file {chosen.out}: pass another name")
    chosen.out.mkdir(parents=True, exist_ok=True)
    gammas = list(dict.fromkeys(chosen.gamma))
    result = digits.run(
        chosen.depth,
        gammas,
        n_train=chosen.n_train,
        label_noise=chosen.label_noise,
        seed=chosen.seed,
        progress=lambda kernels: tqdm(kernels, desc="kernels", unit="kernel", file=sys.stderr),
    )
    _write(chosen, gammas, result, digits.plot(result))
    print(_table(result.rows))
    if not chosen.label_noise:
        print("\nWith clean labels there is little to stop early for: try --label-noise 0.3")
    print(f"\nWrote results.csv, results.json and accuracy.png to {chosen.out.resolve()}")
    return 0


def _write(chosen: argparse.Namespace, gammas: list[float], result: Any, figure: Any) -> None:
    from nt_residual import machine

    config = {
        "depth": _json_number(chosen.depth),
        "gamma": gammas,
        "label_noise": chosen.label_noise,
        "seed": chosen.seed,
        "images": result.sizes,
    }
    rows = [{k: _json_number(v) for k, v in dataclasses.asdict(row).items()} for row in result.rows]
    with (chosen.out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    record = {"config": config, "versions": machine.versions(), "rows": rows}
    (chosen.out / "results.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    figure.savefig(chosen.out / "accuracy.png", dpi=120)


def _json_number(value: Any) -> Any:
    """Infinity as the word 'inf', which is what JSON has no number for."""
    return str(value) if value in (math.inf, -math.inf) else value


def _table(rows: Sequence[Any]) -> str:
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
