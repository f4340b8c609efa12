"""The files of a claim: its rows, findings and figure, versions and device, and finished parts."""

import contextlib
import csv
import dataclasses
import datetime
import io
import json
import math
import os
import pathlib
import platform
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from nt_residual import _files, machine
from nt_residual.experiments.claim import Finding

ROWS, RESULT, FIGURE = "rows.csv", "result.json", "figure.png"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a test of a claim.

    Attributes:
      claim: its name.
      title: `TITLE` of its module.
      statement: `STATEMENT`, likewise.
      config: the options of the run, seeds included.
      provenance: `versions` of packages, the `device` and `platform`, the time when it was
        `finished`, the `seconds` it took, whether it was `resumed`, and the most memory that the
        process had taken until then, `peak_gb`, in GB (`None` where it is unknown).
      findings: measurements beside predictions.
      rows: the numbers by the names of their columns.
      folder: the folder with `rows.csv`, `result.json` and `figure.png`.
    """

    claim: str
    title: str
    statement: str
    config: dict[str, Any]
    provenance: dict[str, Any]
    findings: list[Finding]
    rows: list[dict[str, Any]]
    folder: pathlib.Path

    @property
    def agrees(self) -> bool | None:
        """True if all findings agree with the paper; `None` if some are not decided."""
        verdicts = {finding.agrees for finding in self.findings}
        return False if False in verdicts else None if None in verdicts else True


def plain(value: Any) -> Any:
    """Return the value in the types of JSON, with infinity as 'inf' and NaN as `None`.

    Example:
      >>> plain({"depths": (10, math.inf), "error": math.nan})
      {'depths': [10, 'inf'], 'error': None}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def restored(value: Any) -> Any:
    """Return what `plain` made of a value, with floats in place of 'inf' and `None`.

    Example:
      >>> restored(plain({"depths": (10, math.inf), "error": math.nan}))
      {'depths': [10, inf], 'error': nan}
    """
    if isinstance(value, dict):
        return {key: restored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [restored(item) for item in value]
    return math.nan if value is None else math.inf if value == "inf" else value


@contextlib.contextmanager
def kept(
    out: str | os.PathLike | None, config: Mapping[str, Any]
) -> Iterator[tuple[dict[str, dict[str, Any]], Callable[[str, dict[str, Any]], None]]]:
    """Yield the finished parts of an experiment by name, and a function that adds one.

    Args:
      out: the folder where parts are kept as JSON, in `runs`, for later runs with the same
        configuration; `None` to keep them in memory only.
      config: what the parts depend on.

    Raises:
      BlockingIOError, FileExistsError, ValueError: as `_files.claimed`, or if a file is damaged.
    """
    done: dict[str, dict[str, Any]] = {}
    if out is None:
        yield done, done.__setitem__
        return
    with _files.claimed(out, config, "out") as folder:
        runs = folder / "runs"
        runs.mkdir(exist_ok=True)
        done |= {path.stem: _part(path) for path in sorted(runs.glob("*.json"))}

        def add(name: str, part: dict[str, Any]) -> None:
            done[name] = restored(plain(part))
            _files.replace(runs / f"{name}.json", json.dumps(plain(part)) + "\n")

        yield done, add


def _part(path: pathlib.Path) -> dict[str, Any]:
    try:
        return dict(restored(json.loads(path.read_text("utf-8"))))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} must hold a finished part of the run as JSON, but cannot be read: {error}. "
            "Delete the file and run the same call again: only this part is computed anew."
        ) from None


def csv_text(rows: np.recarray) -> str:
    """Return a record array as CSV with a header.

    Example:
      >>> from nt_residual.experiments.claim import table
      >>> print(csv_text(table([{"depth": math.inf, "error": 0.25}])), end="")
      depth,error
      inf,0.25
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([rows.dtype.names or (), *rows.tolist()])
    return text.getvalue()


def dicts(rows: np.recarray) -> list[dict[str, Any]]:
    """Return a record array as a list of dicts in the types of JSON, as `plain`."""
    return [plain(dict(zip(rows.dtype.names or (), row, strict=True))) for row in rows.tolist()]


def provenance(seconds: float, resumed: bool) -> dict[str, Any]:
    """Return `Outcome.provenance` of a run that ends now."""
    peak = machine.peak_bytes()
    return {
        "versions": machine.versions(),
        "device": machine.devices(),
        "platform": f"{platform.system()} on {platform.machine()}, {os.cpu_count()} processors",
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "resumed": resumed,
        "peak_gb": None if peak is None else round(peak / 1e9, 2),
    }


def write(outcome: Outcome, rows: np.recarray, figure: Any) -> None:
    """Write a claim, its record array of rows and its matplotlib figure to `outcome.folder`.

    `result.json` comes last: if it is there, so are the others.
    """
    with _files.replacing(outcome.folder / FIGURE) as file:
        figure.savefig(file, format="png", dpi=110)
    _files.replace(outcome.folder / ROWS, csv_text(rows))
    values = dataclasses.asdict(outcome) | {"agrees": outcome.agrees}
    del values["folder"]
    document = json.dumps(plain(values), indent=1, ensure_ascii=False, allow_nan=False)
    _files.replace(outcome.folder / RESULT, document + "\n")


def read(folder: pathlib.Path) -> Outcome | None:
    """Return what `write` wrote to a folder, or `None`; a `ValueError` if it is damaged."""
    path = folder / RESULT
    if not (path.exists() and (folder / FIGURE).exists()):
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
        del values["agrees"]
        values["findings"] = [Finding(**finding) for finding in values["findings"]]
        return Outcome(**values, folder=folder)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must hold the result of a claim as JSON, but cannot be read: {error!r}. "
            f"Delete the file and run again: only {folder.name} is tested anew."
        ) from None
