"""`nt-residual bench`: the benchmarks of a clone of the repository."""

import argparse
import importlib
import pathlib
import sys
from typing import Any

from nt_residual.cli import options

# That of the repository, if this is a clone.
ROOT = pathlib.Path(__file__).resolve().parents[2]
INTERRUPTED = "what was finished is kept"


def add(commands: Any) -> options.Parser:
    """Adds the command."""
    parser = commands.add_parser(
        "bench",
        help="run the benchmarks that come with a clone of the repository",
        description="Runs the benchmarks that come with a clone of the repository, as "
        "python -m benchmarks does there. All that follows is handed on to them, --help too.",
        epilog="example: nt-residual bench --sizes quick",
        add_help=False,
        # No word begins with it, so none is taken for an option of this parser.
        prefix_chars="\0",
    )
    parser.add_argument("words", metavar="…", nargs="*", help="options of the benchmarks")
    parser.set_defaults(own_help=parser.format_help)
    return parser


def run(chosen: argparse.Namespace) -> int:
    """Runs the command."""
    asked = {"-h", "--help"} & set(chosen.words)
    if asked:
        print(chosen.own_help())
    if not (ROOT / "benchmarks" / "__main__.py").is_file():
        if asked:
            return 0
        raise FileNotFoundError(
            "benchmarks come with a clone of the repository, which this installation is not: "
            "run `python -m benchmarks` in one"
        )
    sys.path.insert(0, str(ROOT))
    return importlib.import_module("benchmarks.__main__").main(chosen.words) or 0
