"""A test of all claims of the paper, one after the other, and a report."""

import inspect
import os
import pathlib
import time
import types
from collections.abc import Sequence
from typing import Any, Literal

from tqdm import tqdm

import nt_residual
from nt_residual import _checks, _files, data, theory
from nt_residual.experiments import (
    classification,
    constant_alpha,
    convergence,
    convolution,
    finite_networks,
    landmarks,
    minimax,
    parity,
    record,
    report,
    slow_decay,
)
from nt_residual.experiments.record import Outcome

CLAIMS: dict[str, types.ModuleType] = {
    "constant_alpha": constant_alpha,
    "slow_decay": slow_decay,
    "convergence": convergence,
    "minimax": minimax,
    "parity": parity,
    "landmarks": landmarks,
    "classification": classification,
    "convolution": convolution,
    "finite_networks": finite_networks,
}
REPORT = "report.html"

_ON_IMAGES = ("classification", "convolution", "finite_networks")
# Arguments that do not change the result: places of files, and a bar.
_NOT_OPTIONS = ("root", "out", "progress")


def run(
    claims: Sequence[str] | None = None,
    *,
    setting: Literal["quick", "full"] = "quick",
    dataset: str = "digits",
    root: str | os.PathLike | None = None,
    out: str | os.PathLike = "nt-residual-report",
    progress: bool = False,
) -> list[Outcome]:
    """Test the claims of arXiv 2403.04545, and write a report.

    Each claim gets a folder in `out` with `rows.csv`, `result.json` (the numbers, findings,
    options, versions and device) and `figure.png`. `report.html`, a file that stands alone, shows
    all claims of the folder. If the process ends early, run the same call again: it resumes.

    Args:
      claims: names of `CLAIMS`, `None` for all.
      setting: 'quick' for some minutes on two cores, 'full' for an accelerator or a day.
      dataset: a name of `data.load`, for the claims about images.
      root: the folder with the files of the data set, as for `data.load`.
      out: a new folder, or that of an earlier run with the same setting and data set.
      progress: whether to show progress bars.

    Returns:
      The outcomes, in the order of `claims`.

    Raises:
      BlockingIOError: if another process is writing `out`.
      FileExistsError: if `out` is a folder with something else.
      TypeError, ValueError: if a claim, the setting or the data set is unknown, `out` has a run
        of another configuration, or a `result.json` in it is damaged.
      ImportError: if matplotlib or scikit-learn is missing.

    Example:
      >>> outcomes = run(["convergence"], out="report", progress=True)  # doctest: +SKIP
      >>> outcomes[0].agrees  # doctest: +SKIP
      True
    """
    names = list(CLAIMS) if claims is None else list(dict.fromkeys(claims))
    for name in names:
        _checks.choice(name, "each of claims", tuple(CLAIMS))
    _checks.choice(setting, "setting", ("quick", "full"))
    _checks.choice(dataset, "dataset", data.NAMES)
    progress = _checks.boolean(progress, "progress")
    # Before hours of work, raise the errors of a missing package or data set.
    theory.plots.new_figure(1, 1)
    if any(name in _ON_IMAGES for name in names):
        data.load(dataset, root=root)
    options = {name: _options(name, setting, dataset) for name in CLAIMS}
    config = record.plain({"version": nt_residual.__version__, "setting": setting, **options})
    with _files.claimed(out, config, "out") as folder:
        outcomes, bar = [], tqdm(names, disable=not progress)
        for name in bar:
            bar.set_description(name)
            done = record.read(folder / name)
            outcomes.append(done or _test(name, options[name], folder / name, root, progress))
            # After each claim, so that the report exists whenever the run ends.
            found = [outcome for each in CLAIMS if (outcome := record.read(folder / each))]
            _files.replace(folder / REPORT, report.render(found, setting))
    return outcomes


def _options(name: str, setting: str, dataset: str) -> dict[str, Any]:
    """Return all arguments of a claim's `run` that its result depends on, defaults included."""
    claim = CLAIMS[name]
    chosen = dict(claim.QUICK if setting == "quick" else claim.FULL)
    if name in _ON_IMAGES:
        chosen |= {"dataset": dataset}
        if dataset != "digits":
            chosen |= claim.LARGE[setting]
    parameters = inspect.signature(claim.run).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {key: value for key, value in (defaults | chosen).items() if key not in _NOT_OPTIONS}


def _test(
    name: str,
    options: dict[str, Any],
    folder: pathlib.Path,
    root: str | os.PathLike | None,
    progress: bool,
) -> Outcome:
    """Run one claim, and write the outcome."""
    claim = CLAIMS[name]
    folder.mkdir(exist_ok=True)
    parts = folder / "parts"
    extra = {"root": root, "progress": progress, "out": parts}
    extra = {key: extra[key] for key in extra.keys() & inspect.signature(claim.run).parameters}
    resumed, start = parts.exists(), time.perf_counter()
    result = claim.run(**options, **extra)
    outcome = Outcome(
        claim=name,
        title=claim.TITLE,
        statement=claim.STATEMENT,
        config=record.plain(options),
        provenance=record.provenance(time.perf_counter() - start, resumed),
        findings=claim.findings(result),
        rows=record.dicts(result.rows),
        folder=folder,
    )
    record.write(outcome, result.rows, claim.plot(result))
    return outcome
