"""The figure of a run of the suite, with one panel per family."""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

# The keys of a row that are not sizes of its case.
NUMBERS = (
    *("error", "tolerance", "compile_s", "median_s", "q1_s", "q3_s", "min_s", "repeats"),
    *("temporary_bytes", "entries", "entries_per_s", "bytes", "flops"),
    *("bytes_per_s", "bytes_per_s_of_peak", "flops_per_s", "flops_per_s_of_peak", "failed"),
    *("bound_s", "output_bytes", "passes", "passes_in_loops", "collectives"),
    *("least_bytes", "xla_bytes", "xla_flops"),
)


def sizes(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the family and the sizes of a case."""
    return {k: v for k, v in row.items() if k not in (*NUMBERS, "who")}


def alone(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the same `scaling` case on one device, or `None` if it was not timed."""
    same = (r for r in rows if r["who"] == row["who"] and r["devices"] == 1 and "failed" not in r)
    return next(same, None)


def gain(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the entries per second divided by those of one device, or `None` if not known."""
    one = alone(row, rows)
    return row["entries_per_s"] / one["entries_per_s"] if one else None


def spread(row: Mapping[str, Any]) -> float:
    """Return half of the interquartile range, divided by the median."""
    return (row["q3_s"] - row["q1_s"]) / row["median_s"] / 2


def fingerprint(result: Mapping[str, Any]) -> str:
    """Return a hash of the results that a figure shows."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def draw(result: Mapping[str, Any], path: pathlib.Path) -> None:
    """Draw the run times of each family and the scaling; store the fingerprint in the file."""
    rows = [row for row in result["cases"] if "failed" not in row]
    if result["devices"] == 1:
        rows = [row for row in rows if row["family"] != "scaling"]
    families = list(dict.fromkeys(row["family"] for row in rows))
    shape = (-(-len(families) // 2), 2)
    figure, panels = plt.subplots(
        *shape, figsize=(12, 3.2 * shape[0]), layout="constrained", squeeze=False
    )
    for axes, family in zip(panels.flat, families, strict=False):
        chosen = [row for row in rows if row["family"] == family]
        _scaling(axes, chosen) if family == "scaling" else _times(axes, chosen)
        axes.set_title(family)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    for axes in panels.flat[len(families) :]:
        axes.set_axis_off()
    figure.suptitle(f"{result['device']}, --sizes {result['sizes']}", fontsize=10)
    # Leave out the version of matplotlib, so that the same results give the same file.
    figure.savefig(path, dpi=100, metadata={"Software": None, "Source": fingerprint(result)})
    plt.close(figure)


def _times(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw medians with quartiles, with one line for all cases of equal sizes."""
    labels = list(dict.fromkeys(map(_label, rows)))
    for i, who in enumerate(dict.fromkeys(row["who"] for row in rows)):
        chosen = [row for row in rows if row["who"] == who]
        median = [row["median_s"] for row in chosen]
        spread = [
            [row["median_s"] - row["q1_s"] for row in chosen],
            [row["q3_s"] - row["median_s"] for row in chosen],
        ]
        places = [labels.index(_label(row)) for row in chosen]
        axes.errorbar(median, places, xerr=spread, fmt="os^Dv"[i % 5], label=who, capsize=3)
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set(xscale="log", xlabel="seconds")


def _label(row: Mapping[str, Any]) -> str:
    kept = {k: v for k, v in sizes(row).items() if k not in ("family", "dtype")}
    label = ", ".join(f"{k} {v}" for k, v in kept.items())
    return label if row["dtype"] == "float32" else f"{label}, {row['dtype']}"


def _scaling(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the rate relative to one device, against the number of devices."""
    most = max(row["devices"] for row in rows)
    for kind in dict.fromkeys(row["kind"] for row in rows):
        line = [row for row in rows if row["kind"] == kind and alone(row, rows)]
        # On one device, weak and strong scaling are the same case.
        gains = {1: 1.0} | {row["devices"]: gain(row, rows) for row in line}
        axes.plot(list(gains), list(gains.values()), "o-", label=kind)
    axes.plot([1, most], [1, most], "--", color="gray", label="ideal")
    axes.set(xlabel="devices", ylabel="times the rate of one")
