"""Measure kernels, Gram matrices, solvers and empirical NTKs on this machine's devices.

    python -m benchmarks [--cases fc_kernel …] [--sizes quick] [--out FILE]

Every result is checked before it is timed. Times are medians of several calls after the first,
with quartiles; compile time stands apart. Rates are those of the least work that a result takes,
as fractions of what the device reaches in a copy and in a float32 product of precision
'highest', measured in the same run. The file is written anew after each case. `python -m
benchmarks.report` makes README.md of the files in `benchmarks/results`.

On a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=8 simulates devices for `scaling`.
"""

import argparse
import json
import pathlib
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from tqdm import tqdm

from benchmarks import figures
from benchmarks.suite import (
    conv_kernel,
    empirical_ntk,
    estimators,
    fc_kernel,
    gram,
    layers,
    regression,
    runner,
    scaling,
)
from benchmarks.suite.case import Case
from nt_residual import _files

FAMILIES = {
    "fc_kernel": fc_kernel,
    "conv_kernel": conv_kernel,
    "layers": layers,
    "gram": gram,
    "regression": regression,
    "estimators": estimators,
    "empirical_ntk": empirical_ntk,
    "scaling": scaling,
}


def cases(names: Iterable[str], size: str, float64: bool) -> list[Case]:
    """Return all cases of some families; with `float64`, kernels in that, too."""
    result = []
    for name in names:
        result += FAMILIES[name].cases(size)
        if float64 and name == "fc_kernel":
            result += fc_kernel.cases(size, "float64")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Print a table, and write the numbers as JSON if asked to.

    Returns:
      0 if all cases were right and timed, else 1.
    """
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings(), jax.default_matmul_precision("highest"):
        # neural-tangents says so of every sum of branches.
        warnings.filterwarnings("ignore", message=".FanIn. layers assume independent")
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    result = {**runner.described(), "sizes": options.sizes}
    print(result["device"], f"({result['devices']} × {result['platform']})", result["versions"])
    dtypes = ("float32", "float64") if options.float64 else ("float32",)
    result["peaks"] = runner.peaks(options.sizes, dtypes)
    result["cases"] = []
    seconds = runner.SIZES[options.sizes][-1]
    bar = tqdm(cases(options.cases, options.sizes, options.float64), unit="case")
    for case in bar:
        bar.set_description(case.family)
        row = runner.row(case, result["peaks"], options.repeats, seconds)
        result["cases"].append(row)
        tqdm.write(_line(case, row), file=sys.stdout)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            _files.replace(options.out, json.dumps(result, indent=1) + "\n")
    return int(any("failed" in row for row in result["cases"]))


def _line(case: Case, row: Mapping[str, Any]) -> str:
    if "failed" in row:
        return f"{case.name}: {row['failed']}"
    fractions = [
        f"{row[key]:6.1%}" if row[key] is not None else f"{'':6}"
        for key in ("bytes_per_s_of_peak", "flops_per_s_of_peak")
    ]
    return (
        f"{case.name:86} {1e3 * row['median_s']:9.2f} ms ± {figures.spread(row):3.0%} "
        f"compile {row['compile_s']:5.2f} s  {row['entries_per_s']:8.1e} entries/s  "
        f"{fractions[0]} of copy {fractions[1]} of product  error {row['error']:.0e}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument(
        "--sizes",
        choices=runner.SIZES,
        default="standard",
        help="quick: a minute on two cores; standard: minutes; large: for an accelerator",
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed calls, at most")
    parser.add_argument("--float64", action="store_true", help="also the kernels in float64")
    parser.add_argument("--out", type=pathlib.Path, help="write the numbers there, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
