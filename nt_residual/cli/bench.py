"""Run the benchmarks that come with a clone of the repository.

It runs `python -m benchmarks`, and passes all options on to it, --help included.

    nt-residual bench --sizes quick
"""

import argparse
import importlib
import pathlib
import sys

# The root of the repository, if this is a clone.
ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(chosen: argparse.Namespace) -> int:
    """Run the command."""
    if not (ROOT / "benchmarks" / "__main__.py").is_file():
        raise FileNotFoundError(
            "the benchmarks come with a clone of the repository, and this installation is not one. "
            "Run `python -m benchmarks` in a clone."
        )
    sys.path.insert(0, str(ROOT))
    return importlib.import_module("benchmarks.__main__").main(chosen.rest)
