"""Write README.md and its figures from the results of the suite.

    python -m benchmarks.report [--results benchmarks/results] [--out benchmarks/README.md]

Every `suite_NAME.json` gets a section of tables and a figure. The same files give the same text.
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

Run times are medians of the calls after the first, ± half of the distance between the quartiles. \
Compile time is that of tracing and compiling or, where a function compiles by itself, the extra \
time of its first call. Memory is the temporary memory of the compiled program. Rates count the \
least work that a result takes, defined above each table. Percentages compare them with a copy \
(reading and writing) and with a square product in the same dtype and precision 'highest', \
measured in the same run; data in cache can beat the copy. `×` is the run time over that of the \
first case of the same sizes, `efficiency` the rate of p devices over p times that of one.
"""


def readme(results: Mapping[str, Any]) -> str:
    """Return the text, for results by name."""
    sections = [section(name, result) for name, result in sorted(results.items())]
    return "\n".join([INTRODUCTION, *sections])


def section(name: str, result: Mapping[str, Any]) -> str:
    """Return the tables of one run of the suite."""
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
    return "\n".join(parts)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table, one row a case."""
    names = [name for name in rows[0] if name not in (*figures.NUMBERS, "family", "who")]
    relative = "efficiency" if "devices" in names else "×"
    measured = ["run", relative, "compile", "memory", "entries/s", "bytes/s", "FLOP/s", "error"]
    heads = [*names, "", *measured]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [str(row.get(name, "")) for name in names] + [row["who"]]
        if "failed" in row:
            failed = row["failed"].replace("|", "\\|").partition("\n")[0]
            cells += [failed, *[""] * (len(measured) - 1)]
        else:
            cells += _cells(row, rows)
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


def _relative(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    if "devices" in row:
        gain = figures.gain(row, rows)
        return "" if gain is None else f"{gain / row['devices']:.0%}"
    first = next(r for r in rows if figures.sizes(r) == figures.sizes(row))
    return f"{row['median_s'] / first['median_s']:.3g}" if "median_s" in first else ""


def _rate(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return ""
    return f"{si(row[name], '')} ({row[f'{name}_of_peak']:.0%})"


def si(value: float, unit: str) -> str:
    """Return a number with a prefix of the unit: `1.5 GB`."""
    return EngFormatter(unit, places=1)(value).strip()


def load(folder: pathlib.Path) -> dict[str, Any]:
    """Return the results of the suite in a folder, by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("suite_*.json")}


def main(arguments: list[str] | None = None) -> int:
    """Write the page, and a figure beside each file of results."""
    parser = argparse.ArgumentParser(description="Write README.md and its figures.")
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
