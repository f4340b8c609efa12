"""Options and tables that several commands share."""

import argparse
import math
from collections.abc import Iterable, Sequence


def depth(text: str) -> int | float:
    """Return a depth: an integer, or infinity for 'inf'.

    Example:
      >>> depth("10"), depth("inf")
      (10, inf)
    """
    return math.inf if text == "inf" else int(text)


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add what describes a network: its depth, α = c·L^(−γ), and which layers are trained."""
    parser.add_argument(
        "--depth", type=depth, default=1000, help="number of blocks L, or inf (default: 1000)"
    )
    parser.add_argument(
        "--gamma", type=float, default=0.5, help="γ ≥ 0 in α = c·L^(−γ) (default: 0.5)"
    )
    parser.add_argument("--c", type=float, default=1.0, help="c > 0 in α (default: 1)")
    parser.add_argument(
        "--trained",
        choices=["blocks", "all"],
        default="blocks",
        help="trained layers: blocks, or all (default: blocks)",
    )


def number(value: float, digits: int = 4) -> str:
    """Return a number as tables show it.

    Example:
      >>> number(math.inf), number(31.128), number(1000.0)
      ('∞', '31.13', '1000')
    """
    return "∞" if value == math.inf else f"{value:.{digits}g}"


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns of texts, aligned to the right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for i, line in enumerate(lines):
        text = "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print(text)
        if i == 0:
            print("─" * len(text))
