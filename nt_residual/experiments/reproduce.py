"""All claims of the paper, tested one after the other, and a report of them."""

import dataclasses
import functools
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
from nt_residual._files import claimed
from nt_residual.experiments import (
    classification,
    constant_alpha,
    convergence,
    finite_networks,
    minimax,
    parity,
    record,
    report,
    slow_decay,
)
from nt_residual.experiments.record import Outcome as Outcome

CLAIMS: dict[str, types.ModuleType] = {
    "constant_alpha": constant_alpha,
    "slow_decay": slow_decay,
    "convergence": convergence,
    "minimax": minimax,
    "parity": parity,
    "classification": classification,
    "finite_networks": finite_networks,
}
REPORT = "report.html"

_ON_IMAGES = ("classification", "finite_networks")
# Of data sets that have more.
_MOST_TESTED = 1000
# Arguments of claims that their results do not depend on.
_NOT_OPTIONS = ("out", "progress")


def run(
    claims: Sequence[str] | None = None,
    *,
    setting: Literal["quick", "full"] = "quick",
    dataset: str = "digits",
    root: str | os.PathLike | None = None,
    out: str | os.PathLike = "nt-residual-report",
    resume: bool = False,
    progress: bool = False,
) -> list[Outcome]:
    """Tests the claims of arXiv 2403.04545, and writes a report.

    Each claim gets a folder in `out` with `rows.csv`, `result.json` (the numbers, findings,
    options, versions and device) and `figure.png`, written when it is done. Then `report.html`,
    one file without links to others, shows all of them.

    Args:
      claims: names of `CLAIMS`, `None` for all.
      setting: 'quick', which takes less than ten minutes on two cores, or 'full', for an
        accelerator or a day.
      dataset: of the claims about images, a name that `data.load` knows.
      root: where the files of the data set are, as for `data.load`.
      out: a new folder, or with `resume` an earlier one.
      resume: whether to take what an interrupted run has finished, and to go on. The report has
        all that is in the folder.
      progress: whether to show progress bars.

    Returns:
      The outcomes, in the order of `claims`.

    Raises:
      BlockingIOError: if another process is writing `out`.
      FileExistsError: if `out` has something else, or an earlier run and `resume` is false.
      ValueError: if a claim, the setting or the data set is unknown, or `out` has a run of
        another setting.
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
    _check_needs([name for name in names if name in _ON_IMAGES], dataset, root)
    options = {name: _options(name, setting, dataset, root) for name in CLAIMS}
    # Where the files are does not matter to what comes out.
    same = {
        name: {k: v for k, v in given.items() if k != "root"} for name, given in options.items()
    }
    config = record.plain({"version": nt_residual.__version__, "setting": setting, **same})
    if not resume and (pathlib.Path(out) / "config.json").exists():
        raise FileExistsError(
            f"out must be a new folder, got {out}, which has an earlier run. Resume it "
            "(resume=True, --resume), or pass another folder."
        )
    with claimed(out, config, "out") as folder:
        outcomes, bar = [], tqdm(names, disable=not progress)
        for name in bar:
            bar.set_description(name)
            done = record.read(folder / name)
            outcomes.append(done or _test(name, options[name], folder / name, progress))
            # After each, so that there is one whenever the run ends.
            found = [outcome for each in CLAIMS if (outcome := record.read(folder / each))]
            _files.replace(folder / REPORT, report.render(found, setting))
    return outcomes


def _options(
    name: str, setting: str, dataset: str, root: str | os.PathLike | None
) -> dict[str, Any]:
    """All arguments of a claim's `run` that its result depends on, defaults too, and `root`."""
    claim = CLAIMS[name]
    chosen = dict(claim.QUICK if setting == "quick" else claim.FULL)
    if name in _ON_IMAGES:
        chosen |= {"dataset": dataset, "root": root}
        # Convolutional kernels of more would take days.
        if dataset != "digits" and (setting == "quick" or name == "classification"):
            chosen["n_test"] = _MOST_TESTED
    bound = inspect.signature(claim.run).bind(**chosen)
    bound.apply_defaults()
    return {key: value for key, value in bound.arguments.items() if key not in _NOT_OPTIONS}


def _check_needs(on_images: Sequence[str], dataset: str, root: str | os.PathLike | None) -> None:
    """Refuses what would fail after hours of work."""
    theory.plots.new_figure(1, 1)
    if on_images:
        data.load(dataset, root=root)


def _test(name: str, options: dict[str, Any], folder: pathlib.Path, progress: bool) -> Outcome:
    """Runs one claim, and writes what came out."""
    claim = CLAIMS[name]
    folder.mkdir(exist_ok=True)
    extra, resumed = {}, False
    if name == "finite_networks":
        extra = {"out": folder / "networks", "progress": progress}
        resumed = extra["out"].exists()
    elif name == "classification" and progress:
        extra = {"progress": functools.partial(tqdm, desc="kernels", leave=False)}
    start = time.perf_counter()
    result = claim.run(**options, **extra)
    outcome = Outcome(
        claim=name,
        title=claim.TITLE,
        statement=claim.STATEMENT,
        config=record.plain(options),
        provenance=record.provenance(time.perf_counter() - start, resumed=resumed),
        findings=claim.findings(result),
        rows=[record.plain(dataclasses.asdict(row)) for row in result.rows],
        folder=folder,
    )
    record.write(outcome, result.rows, claim.plot(result))
    return outcome
