"""Write README.md and its figures from the results of the suite.

    python -m benchmarks.report [--results benchmarks/results] [--out benchmarks/README.md]

Every `suite_NAME.json` gets a section with tables and a figure, and every `compiled_CHIP.json` a
section with tables. The same files give the same text.
"""

import argparse
import inspect
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import EngFormatter

from benchmarks import figures
from benchmarks.__main__ import FAMILIES

HERE = pathlib.Path(__file__).parent
INTRODUCTION = """\
# Benchmarks

<!-- `python -m benchmarks.report` writes this file from `results`. Do not edit it by hand. -->

One suite runs on CPUs, GPUs and TPUs, from the root of a clone:

```sh
uv run python -m benchmarks --sizes quick                    # a minute on two cores
uv run python -m benchmarks --out benchmarks/results/suite_NAME.json
uv run --group accelerators python -m benchmarks --compile-for h200   # runs nothing, see below
uv run python -m benchmarks.report                           # this page, from all results
```

`--cases` chooses families, `--sizes` is `quick`, `standard` or `large` (for accelerators), \
`--float64` adds kernels in float64, `--repeats` sets how often a case is timed. If the error of a \
result is above the tolerance of its case, the case is not timed, and the exit status is 1.

Run times are medians of the calls after the first, ± half of the interquartile range. Compile \
time is the time to trace and compile or, if a function compiles by itself, the extra time of its \
first call. Memory is the temporary memory of the compiled program. Rates count the least work \
that a result needs, defined above each table. Percentages compare rates with a copy (bytes read \
and written) and with a square matrix product in the same dtype and precision 'highest', measured \
in the same run. Data in cache can be faster than the copy. `×` is the run time divided by the run \
time of the first case of the same sizes. `efficiency` is the rate of p devices divided by p times \
the rate of one device.
"""
COMPILED = """\
**Nothing was run on this chip.** The cases were compiled on a machine without one, and the \
numbers are from the compiled programs. `at least` is a lower bound of the run time: the time to \
move the bytes{cache} or to multiply, whichever is longer, at the peak rates that the maker \
publishes ({peaks}). The chip takes longer. `bytes` counts the bytes read from and written to main \
memory; in parentheses, divided by the least bytes: for `fc_kernel` inputs and results once, for \
`conv_kernel` 24 for each block, pair of images and pair of pixels. `FLOP` counts matrix products, \
and one tap of each convolution. Conditionals, such as the correction of nearly parallel pairs, \
and loops of unknown length are left out of both. `passes` counts the kernels that read or write a \
whole array of at least n × n numbers, outside of loops and conditionals. `in loops` counts those \
inside of loops, each once. `sent` lists the collectives between chips, with how many numbers each \
returns. Cases that run several programs are left out. The compiler shared its cores with other \
work.
"""
# Columns for compiled cases: the key in a row, and the unit.
COMPILED_COLUMNS = {
    "passes": ("passes", None),
    "in loops": ("passes_in_loops", None),
    "temporary": ("temporary_bytes", "B"),
    "result": ("output_bytes", "B"),
    "bytes": ("bytes", ""),
    "FLOP": ("flops", ""),
    "compile": ("compile_s", "s"),
}


def readme(results: Mapping[str, Any]) -> str:
    """Return the text of README.md, for results by name."""
    # Measured results come first.
    ordered = sorted(results.items(), key=lambda item: ("cache_bytes" in item[1], item[0]))
    return "\n".join([INTRODUCTION, *(section(name, result) for name, result in ordered)])


def section(name: str, result: Mapping[str, Any]) -> str:
    """Return the tables of one run of the suite, or of one compilation."""
    peaks, compiled = result["peaks"], "cache_bytes" in result
    products = " and ".join(
        f"{si(rate, 'FLOP/s')} in {dtype}" for dtype, rate in peaks["flops_per_s"].items()
    )
    versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    options = f"{versions}, `--sizes {result['sizes']}` ([all numbers](results/{name}.json))."
    reached = si(peaks["bytes_per_s"], "B/s")
    if compiled:
        cache = f" in arrays beyond its cache of {si(result['cache_bytes'], 'B')}"
        parts = [
            f"## Compiled for {result['device']}\n",
            COMPILED.format(
                peaks=f"{reached}, {products}", cache=cache * bool(result["cache_bytes"])
            ),
            f"Compiled by {options}\n",
        ]
    else:
        number = f"{result['devices']} device" + "s" * (result["devices"] > 1)
        parts = [
            f"## {result['device']}\n",
            f"{number} ({result['platform']}), {options} A copy reaches {reached}, a product "
            f"{products}.\n",
            f"![Run times of each family, and scaling over devices](results/{name}.png)\n",
        ]
    for family, module in FAMILIES.items():
        rows = [row for row in result["cases"] if row["family"] == family]
        if rows:
            described = inspect.getdoc(module)
            parts += [f"### {family}\n", *([] if compiled else [f"{described}\n"]), table(rows)]
            if family == "scaling" and result["devices"] == 1:
                parts.append("There was only one device, so this table does not show scaling.\n")
    return "\n".join(parts)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with one row per case."""
    names = [name for name in rows[0] if name not in (*figures.NUMBERS, "family", "who")]
    relative = "efficiency" if "devices" in names else "×"
    measured = ["run", relative, "compile", "memory", "entries/s", "bytes/s", "FLOP/s", "error"]
    compiled = any("bound_s" in row for row in rows)
    if compiled:
        measured = ["at least", "×", *COMPILED_COLUMNS, "sent"]
    heads = [*names, "", *measured]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [str(row.get(name, "")) for name in names] + [row["who"]]
        if "failed" in row:
            failed = row["failed"].replace("|", "\\|").partition("\n")[0]
            cells += [failed, *[""] * (len(measured) - 1)]
        else:
            cells += _compiled_cells(row, rows) if compiled else _cells(row, rows)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    memory = row.get("temporary_bytes")
    return [
        f"{si(row['median_s'], 's')} ± {figures.spread(row):.0%}",
        _relative(row, rows),
        si(row["compile_s"], "s"),
        "" if memory is None else si(memory, "B"),
        si(row["entries_per_s"], ""),
        *(_rate(row, name) for name in ("bytes_per_s", "flops_per_s")),
        f"{row['error']:.0e}",
    ]


def _compiled_cells(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = {
        head: str(row[key]) if unit is None else si(row[key], unit)
        for head, (key, unit) in COMPILED_COLUMNS.items()
    }
    if row["least_bytes"]:
        cells["bytes"] += f" ({row['bytes'] / row['least_bytes']:.3g} ×)"
    sent = [f"{kind} {', '.join(map(str, sizes))}" for kind, sizes in row["collectives"].items()]
    return [si(row["bound_s"], "s"), _relative(row, rows), *cells.values(), "; ".join(sent)]


def _relative(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    if "devices" in row and "median_s" in row:
        gain = figures.gain(row, rows)
        return "" if gain is None else f"{gain / row['devices']:.0%}"
    key = "median_s" if "median_s" in row else "bound_s"
    first = next(r for r in rows if figures.sizes(r) == figures.sizes(row))
    return f"{row[key] / first[key]:.3g}" if key in first else ""


def _rate(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return ""
    return f"{si(row[name], '')} ({row[f'{name}_of_peak']:.0%})"


def si(value: float, unit: str) -> str:
    """Return a number with a prefix of the unit: `1.5 GB`."""
    return EngFormatter(unit, places=1)(value).strip()


def load(folder: pathlib.Path) -> dict[str, Any]:
    """Return the results in a folder, by the names of their files."""
    files = [*folder.glob("suite_*.json"), *folder.glob("compiled_*.json")]
    return {path.stem: json.loads(path.read_text()) for path in files}


def main(arguments: list[str] | None = None) -> int:
    """Write README.md, and a figure for each file of measured results."""
    parser = argparse.ArgumentParser(description="Write README.md and its figures.")
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "README.md")
    options = parser.parse_args(arguments)
    results = load(options.results)
    options.out.write_text(readme(results))
    measured = [name for name in results if name.startswith("suite_")]
    for name in measured:
        figures.draw(results[name], options.results / f"{name}.png")
    print(f"wrote {options.out}, and {len(measured)} figures in {options.results}")
    return 0


if __name__ == "__main__":
    main()
