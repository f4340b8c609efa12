"""Writes README.md and its figures from the results of the suite.

    python -m benchmarks.report [--results benchmarks/results] [--out benchmarks/README.md]

Every `suite_NAME.json` gets a section of tables, a figure and an estimate for more devices. The
same files give the same text.
"""

import argparse
import inspect
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import estimate, figures
from benchmarks.estimate import si
from benchmarks.suite.families import FAMILIES

HERE = pathlib.Path(__file__).parent
INTRODUCTION = """\
# Benchmarks

<!-- Made by `python -m benchmarks.report` of the files in `results`: run it, do not edit this. -->

One suite runs on CPUs, GPUs and TPUs, from the root of a clone:

```sh
uv run python -m benchmarks --sizes quick                    # a minute on two cores
uv run python -m benchmarks --out benchmarks/results/suite_NAME.json
uv run python -m benchmarks.report                           # this page, from all suite_*.json
```

`--cases` chooses families, `--sizes` is `quick`, `standard` or `large` (for accelerators), \
`--float64` adds kernels in float64, `--repeats` is how often a case is timed. A case whose result \
is further from its reference than it tolerates is not timed, and the exit status is 1.

Run times are medians of calls after the first, ± half of the distance between the quartiles. \
Compile time is apart: that of tracing and compiling, or, where a function compiles by itself, \
what the first call takes longer. Rates are those of the least work that a result takes, said \
above each table; fractions are of a copy (reading and writing) and of a square product in the \
same dtype, of precision 'highest', measured in the same run. What stays in cache can be faster \
than the copy. `×` is the run time over that of the first of the same sizes, `efficiency` the rate \
of p devices over p times that of one.
"""
PROGRAMS = """\
## Programs that measure one part in depth

| program | measures |
|---|---|
{rows}

Each is run as `uv run python benchmarks/NAME.py`, with `--help` for what it does; numbers are in \
[results](results).
"""


def readme(results: Mapping[str, Any]) -> str:
    """The text, of results by name."""
    sections = [section(name, result) for name, result in sorted(results.items())]
    return "\n".join([INTRODUCTION, *sections, PROGRAMS.format(rows="\n".join(_programs()))])


def section(name: str, result: Mapping[str, Any]) -> str:
    """What one run of the suite found."""
    peaks = result["peaks"]
    products = " and ".join(
        f"{si(rate, 'FLOP/s')} in {dtype}" for dtype, rate in peaks["flops_per_s"].items()
    )
    versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    number = f"{result['devices']} device" + "s" * (result["devices"] > 1)
    parts = [
        f"## {result['device']}\n",
        f"{number} ({result['platform']}), {versions}, `--sizes {result['sizes']}` "
        f"([all numbers](results/{name}.json)). A copy reaches "
        f"{si(peaks['bytes_per_s'], 'B/s')}, a product {products}.\n",
        f"![Run times of each family, and scaling over devices](results/{name}.png)\n",
    ]
    for family, module in FAMILIES.items():
        rows = [row for row in result["cases"] if row["family"] == family]
        if rows:
            parts += [f"### {family}\n", f"{inspect.getdoc(module)}\n", table(rows)]
            if family == "scaling" and result["devices"] == 1:
                parts.append("There was one device, so nothing is said about scaling.\n")
    estimated = estimate.text(result)
    return "\n".join(parts + ([estimated] if estimated else []))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row a case."""
    names = [name for name in rows[0] if name not in (*figures.NUMBERS, "family", "who")]
    relative = "efficiency" if "devices" in names else "×"
    heads = [*names, "", "run", relative, "compile", "entries/s", "bytes/s", "FLOP/s", "error"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [str(row.get(name, "")) for name in names] + [row["who"], *_cells(row, rows)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cells(row, rows):
    if "failed" in row:
        return [row["failed"].replace("|", "\\|").partition("\n")[0], *[""] * 6]
    return [
        f"{si(row['median_s'], 's')} ± {figures.spread(row):.0%}",
        _relative(row, rows),
        si(row["compile_s"], "s"),
        si(row["entries_per_s"], ""),
        *(_rate(row, name) for name in ("bytes_per_s", "flops_per_s")),
        f"{row['error']:.0e}",
    ]


def _relative(row, rows):
    if "devices" in row:
        known = figures.alone(row, rows)
        return f"{figures.gain(row, rows) / row['devices']:.0%}" if known else ""
    first = next(r for r in rows if figures.sizes(r) == figures.sizes(row))
    return f"{row['median_s'] / first['median_s']:.3g}" if "median_s" in first else ""


def _rate(row, name):
    if row[name] is None:
        return ""
    return f"{si(row[name], '')} ({row[f'{name}_of_peak']:.0%})"


def _programs():
    """The first line of each program that is not part of the suite."""
    for path in sorted(HERE.glob("*.py")):
        if "\nimport common\n" in (text := path.read_text()):
            first = text.partition('"""')[2].partition("\n")[0]
            yield f"| [{path.name}]({path.name}) | {first} |"


def load(folder: pathlib.Path) -> dict[str, Any]:
    """The results of the suite in a folder, by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("suite_*.json")}


def main(arguments: list[str] | None = None) -> int:
    """Writes the page and a figure beside each file of results."""
    parser = argparse.ArgumentParser(description="Writes README.md and its figures.")
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "README.md")
    options = parser.parse_args(arguments)
    results = load(options.results)
    options.out.write_text(readme(results))
    for name, result in results.items():
        figures.draw(result, options.results / f"{name}.png")
    print(f"wrote {options.out}, and {len(results)} figures in {options.results}")
    return 0


if __name__ == "__main__":
    main()
