"""All claims of the paper, tested one after the other, and a report of them."""

import dataclasses
import os
import pathlib
import time
import types
from collections.abc import Sequence
from typing import Any, Literal

from tqdm import tqdm

import nt_residual
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
from nt_residual.finite_width.folder import claimed
from nt_residual.gram import durable
from nt_residual.rntk.inputs import check_choice

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

# The claims about images, and the one that keeps what it has done.
_ON_IMAGES = ("classification", "finite_networks")
_RESUMED = "finite_networks"
# The digits have no more to test on; of other data sets the quick setting takes as many.
_QUICK_TEST = 1000


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
        check_choice(name, "each of claims", tuple(CLAIMS))
    check_choice(setting, "setting", ("quick", "full"))
    check_choice(dataset, "dataset", ("digits", "mnist", "cifar10", "cifar100"))
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
        outcomes = []
        for name in tqdm(names, desc="claims", disable=not progress):
            done = record.read(folder / name)
            outcomes.append(done or _test(name, options[name], folder / name, progress))
            # After each, so that there is one whenever the run ends.
            found = [outcome for each in CLAIMS if (outcome := record.read(folder / each))]
            durable.replace(folder / REPORT, report.render(found, setting))
    return outcomes


def _options(
    name: str, setting: str, dataset: str, root: str | os.PathLike | None
) -> dict[str, Any]:
    claim = CLAIMS[name]
    options = dict(claim.QUICK if setting == "quick" else claim.FULL)
    if name in _ON_IMAGES:
        options |= {"dataset": dataset, "root": root}
        if setting == "quick" and dataset != "digits":
            options["n_test"] = _QUICK_TEST
    return options


def _test(name: str, options: dict[str, Any], folder: pathlib.Path, progress: bool) -> Outcome:
    """Runs one claim, and writes what came out."""
    claim = CLAIMS[name]
    folder.mkdir(exist_ok=True)
    extra = {"out": folder / "networks", "progress": progress} if name == _RESUMED else {}
    start = time.perf_counter()
    result = claim.run(**options, **extra)
    outcome = Outcome(
        claim=name,
        title=claim.TITLE,
        statement=claim.STATEMENT,
        config=record.plain(options),
        provenance=record.provenance(time.perf_counter() - start),
        findings=claim.findings(result),
        rows=[record.plain(dataclasses.asdict(row)) for row in result.rows],
        folder=folder,
    )
    record.write(outcome, result.rows, claim.plot(result))
    return outcome
