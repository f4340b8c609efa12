"""Running claims, resuming an interrupted run, and the report."""

import csv
import dataclasses
import functools
import html
import json
import re

import pytest

from nt_residual.experiments import convergence, parity, record, report, reproduce
from nt_residual.experiments.claim import Finding

NAMES = ["convergence", "parity"]
TINY = {
    "constant_alpha": {"depths": (10, 100), "n_seeds": 1},
    "slow_decay": {"gammas": (0.25,), "depths": (10, 100, 1000), "n_seeds": 1},
    "convergence": {"gammas": (1.0,), "depths": (10, 30, 100)},
    "minimax": {"sizes": (32, 64), "n_seeds": 1},
    "parity": {"sizes": (32,), "n_seeds": 1},
    "landmarks": {"sizes": (32, 64), "n_seeds": 2},
    "classification": {"depths": (10,), "sizes": (120,)},
    "convolution": {"depths": (1,), "n_flatten": (40,), "n_test": 60},
    "finite_networks": {
        "depths": (2,), "n_train": 100, "width": 8, "n_seeds": 1, "steps": 2, "batch_size": 20
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """Claims of a few seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for name, options in TINY.items():
            patch.setattr(reproduce.CLAIMS[name], "QUICK", options)
        yield


def _raising(error, run):
    """A function with the signature of `run`."""

    @functools.wraps(run)
    def raising(**options):
        raise error

    return raising


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return out, reproduce.run(NAMES, out=out)


def test_each_claim_has_its_files_and_all_have_one_report(finished):
    out, outcomes = finished
    assert [outcome.claim for outcome in outcomes] == NAMES
    assert outcomes[0].agrees
    kept = json.loads((out / "convergence" / "result.json").read_text("utf-8"))
    assert kept["config"] == {"gammas": [1.0], "depths": [10, 30, 100]}
    assert kept["provenance"]["versions"]["jax"][0].isdigit()
    assert kept["findings"] == [dataclasses.asdict(finding) for finding in outcomes[0].findings]
    with (out / "convergence" / "rows.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["distance"]) for row in rows] == [row["distance"] for row in kept["rows"]]
    # Defaults are recorded, too.
    defaults = {"depths": [1000, "inf"], "n_test": 1000}
    assert outcomes[1].config == {"sizes": [32], "n_seeds": 1, **defaults}
    assert [record.read(out / outcome.claim) for outcome in outcomes] == outcomes


def test_the_same_call_resumes_without_what_is_done(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(parity, "run", _raising(KeyboardInterrupt(), parity.run))
        with pytest.raises(KeyboardInterrupt):
            reproduce.run(NAMES, out=out)
    # The report has what there was.
    assert convergence.TITLE in (out / "report.html").read_text("utf-8")
    monkeypatch.setattr(convergence, "run", _raising(AssertionError("again"), convergence.run))
    assert [outcome.claim for outcome in reproduce.run(NAMES, out=out)] == NAMES
    with pytest.raises(ValueError, match="differs in setting"):
        reproduce.run(NAMES, setting="full", out=out)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="holds something else"):
        reproduce.run(NAMES, out=tmp_path)


def test_a_damaged_result_is_named_with_the_remedy(tmp_path):
    reproduce.run(["convergence"], out=tmp_path)
    path = tmp_path / "convergence" / "result.json"
    path.write_text(path.read_text("utf-8")[:50], "utf-8")
    with pytest.raises(ValueError, match=r"result\.json must hold .* Delete the file and run"):
        reproduce.run(["convergence"], out=tmp_path)
    path.unlink()
    assert reproduce.run(["convergence"], out=tmp_path)[0].agrees


@pytest.mark.full
def test_all_claims_run_in_their_smallest_setting(tmp_path):
    outcomes = reproduce.run(out=tmp_path / "out", progress=True)
    assert [outcome.claim for outcome in outcomes] == list(reproduce.CLAIMS)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count("<img") == 9
    assert (tmp_path / "out" / "finite_networks" / "parts" / "table.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"claims": ["minmax"]}, "each of claims must be"),
        ({"setting": "medium"}, "setting must be"),
        ({"dataset": "emnist"}, "dataset must be"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_written(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        reproduce.run(out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_is_not_decided_is_no_agreement(finished):
    _, (first, _) = finished
    agrees, undecided, differs = (Finding("said", "found", v) for v in (True, None, False))
    mixed = dataclasses.replace(first, findings=[agrees, undecided])
    assert mixed.agrees is None
    assert dataclasses.replace(first, findings=[differs, undecided]).agrees is False
    page = report.render([mixed], "quick")
    assert "For 0 of 1 claims all findings agree" in page
    assert '<span class="open">? 1 of 2, 1 not decided</span>' in page
    assert '<span class="open">? not decided at these depths</span>' in page


def test_text_of_others_cannot_become_markup(finished):
    evil = '<script>alert("x")</script>'
    values = {"findings": [Finding(evil, evil, False)], "config": {evil: evil}}
    doctored = dataclasses.replace(finished[1][0], title=evil, rows=[{evil: evil}], **values)
    page = report.render([doctored], "quick")
    assert "<script" not in page
    assert html.escape(evil) in page


def test_the_report_refers_to_nothing_outside_of_it(finished):
    page = (finished[0] / "report.html").read_text("utf-8")
    targets = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert targets
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert "http" not in page
    assert page.count("<img") == page.count(' alt="Figure of') == 2
