"""What is kept of a claim: its rows, its findings and its figure, and how they came about."""

import csv
import dataclasses
import datetime
import io
import json
import math
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from nt_residual import _files, machine
from nt_residual.experiments.claim import Finding

ROWS, RESULT, FIGURE = "rows.csv", "result.json", "figure.png"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A claim that was tested.

    Attributes:
      claim: its name.
      title: a few words.
      statement: what the paper claims.
      config: the options it was run with, seeds included.
      provenance: `versions` of packages, the `device`, when it was `finished`, the `seconds` it
        took, and whether it was `resumed`.
      findings: what was measured beside what the paper predicts.
      rows: the numbers, names of columns with values.
      folder: where `rows.csv`, `result.json` and `figure.png` are.
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
        """Whether all of its findings agree with the paper; `None` if some are not decided."""
        verdicts = {finding.agrees for finding in self.findings}
        return False if False in verdicts else None if None in verdicts else True


def plain(value: Any) -> Any:
    """The same in what JSON has: lists and numbers; infinity as 'inf', NaN as `None`.

    Example:
      >>> plain({"depths": (10, math.inf), "error": math.nan})
      {'depths': [10, 'inf'], 'error': None}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def provenance(seconds: float, *, resumed: bool = False) -> dict[str, Any]:
    """Versions, the device, the time of day, and the seconds that were taken.

    Args:
      seconds: of this run.
      resumed: whether an earlier one did a part, maybe elsewhere, which is not counted.

    Example:
      >>> sorted(provenance(1.0))
      ['device', 'finished', 'platform', 'resumed', 'seconds', 'versions']
    """
    return {
        "versions": machine.versions(),
        "device": machine.devices(),
        "platform": f"{platform.system()} on {platform.machine()}, {os.cpu_count()} processors",
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "resumed": resumed,
    }


def write(outcome: Outcome, rows: Sequence[Any], figure: Any) -> None:
    """Writes a claim to its folder, `result.json` last: where it is, all is.

    Args:
      outcome: all but the figure; its folder exists.
      rows: dataclasses, those of `outcome.rows`.
      figure: of matplotlib.

    Raises:
      OSError: if a file cannot be written.
    """
    from PIL import Image  # Which matplotlib depends on.

    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    with _files.replacing(outcome.folder / FIGURE) as file:
        # A figure has few colors, and takes a third of the space with no more.
        Image.open(picture).convert("RGB").quantize(64).save(file, "png", optimize=True)
    text = io.StringIO()
    names = [field.name for field in dataclasses.fields(rows[0])]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    _files.replace(outcome.folder / ROWS, text.getvalue())
    values = dataclasses.asdict(outcome) | {"agrees": outcome.agrees}
    del values["folder"]
    document = json.dumps(plain(values), indent=1, ensure_ascii=False, allow_nan=False)
    _files.replace(outcome.folder / RESULT, document + "\n")


def read(folder: pathlib.Path) -> Outcome | None:
    """What `write` has written to a folder, `None` where it has not."""
    path = folder / RESULT
    if not (path.exists() and (folder / FIGURE).exists()):
        return None
    values = json.loads(path.read_text("utf-8"))
    del values["agrees"]
    values["findings"] = [Finding(**finding) for finding in values["findings"]]
    return Outcome(**values, folder=folder)
