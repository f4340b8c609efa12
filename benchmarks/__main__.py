"""Measure kernels, Gram matrices, solvers and empirical NTKs on this machine's devices.

    python -m benchmarks [--cases fc_kernel …] [--sizes quick] [--out FILE]

Every result is checked before it is timed. Times are medians of several calls after the first,
with quartiles; compile time is separate. Rates count the least work that a result needs, and are
fractions of the rates that the device reaches in a copy and in a float32 product with precision
'highest' in the same run. FILE is rewritten after each case. `python -m benchmarks.report` writes
README.md from the files in `benchmarks/results`.

On a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=8 simulates devices for `scaling`.

`--compile-for h200` runs nothing. It compiles the cases for a chip that this machine need not have,
and reports what the compiled programs do.
"""

import argparse
import functools
import json
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
from tqdm import tqdm

from benchmarks import figures, targets
from benchmarks.suite import (
    conv_kernel,
    empirical_ntk,
    estimators,
    fc_kernel,
    gram,
    layers,
    low_rank,
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
    "low_rank": low_rank,
    "regression": regression,
    "estimators": estimators,
    "empirical_ntk": empirical_ntk,
    "scaling": scaling,
}


def cases(names: Iterable[str], size: str, float64: bool, devices: int) -> list[Case]:
    """Return all cases of some families; with `float64`, also the kernels in float64."""
    result = []
    for name in names:
        options = (size, devices) if name == "scaling" else (size,)
        result += FAMILIES[name].cases(*options)
        if float64 and name == "fc_kernel":
            result += fc_kernel.cases(size, "float64")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Print a table, and write the numbers as JSON if asked to.

    Returns:
      0 if all cases passed their check and were timed, or all were compiled; else 1.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.compile_for:
        # JAX takes seconds to find that other platforms have no devices.
        jax.config.update("jax_platforms", "cpu")
        try:
            targets.devices(options.compile_for)
        except ModuleNotFoundError as error:
            parser.error(str(error))
    with warnings.catch_warnings(), jax.default_matmul_precision("highest"):
        # neural-tangents warns of this at every sum of branches.
        warnings.filterwarnings("ignore", message=".FanIn. layers assume independent")
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    result, some, make_row = (_compilation if options.compile_for else _measurement)(options)
    result |= {"sizes": options.sizes, "cases": []}
    bar = tqdm(some, unit="case")
    for case in bar:
        bar.set_description(case.family)
        row = make_row(case)
        result["cases"].append(row)
        tqdm.write(_line(case, row), file=sys.stdout)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            _files.replace(options.out, json.dumps(result, indent=1) + "\n")
    return int(any("failed" in row for row in result["cases"]))


def _measurement(options: argparse.Namespace) -> tuple[dict[str, Any], list[Case], Callable]:
    """Return the head of the results, the cases, and the function that measures one."""
    result = runner.described()
    print(result["device"], f"({result['devices']} × {result['platform']})", result["versions"])
    dtypes = ("float32", "float64") if options.float64 else ("float32",)
    result["peaks"] = runner.peaks(options.sizes, dtypes)
    some = cases(options.cases, options.sizes, options.float64, jax.device_count())
    limits = {"repeats": options.repeats, "seconds": runner.SIZES[options.sizes][-1]}
    return result, some, functools.partial(runner.row, peaks=result["peaks"], **limits)


def _compilation(options: argparse.Namespace) -> tuple[dict[str, Any], list[Case], Callable]:
    """Return the same for four connected chips that this machine need not have."""
    result = targets.described(options.compile_for)
    print(result["device"], "(nothing is run)", result["versions"])
    some = cases(options.cases, options.sizes, float64=False, devices=4)
    programs = [case for case in some if case.jit or case.program]
    return result, programs, functools.partial(targets.row, target=options.compile_for)


def _line(case: Case, row: Mapping[str, Any]) -> str:
    if "failed" in row:
        return f"{case.name}: {row['failed']}"
    if "bound_s" in row:
        return (
            f"{case.name:86} at least {1e3 * row['bound_s']:9.4f} ms, {row['passes']} passes, "
            f"{row['temporary_bytes'] / 1e6:.1f} MB, compile {row['compile_s']:5.2f} s"
        )
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
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=FAMILIES,
        default=list(FAMILIES),
        metavar="CASE",
        help=f"{', '.join(FAMILIES)} (default: all)",
    )
    parser.add_argument(
        "--sizes",
        choices=runner.SIZES,
        default="standard",
        help="quick: a minute on two cores; standard: minutes; large: for an accelerator",
    )
    parser.add_argument("--compile-for", choices=targets.CHIPS, help="compile, and run nothing")
    parser.add_argument("--repeats", type=int, default=25, help="timed calls, at most")
    parser.add_argument("--float64", action="store_true", help="also the kernels in float64")
    parser.add_argument("--out", type=pathlib.Path, help="write the numbers there, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
