"""Running claims, going on with an interrupted run, and the report in a browser."""

import csv
import dataclasses
import functools
import html
import json
import re
import shutil
import subprocess

import pytest

from nt_residual.experiments import convergence, finite_networks, record, report, reproduce
from nt_residual.experiments.claim import Finding

NAMES = ["convergence", "finite_networks"]


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """Claims of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convergence, "QUICK", {"gammas": (1.0,), "depths": (10, 30, 100)})
        small = {"n_train": 100, "width": 8, "seeds": 1, "steps": 2, "batch_size": 20}
        options = {"gammas": (1.0,), "depths": (2,), **small}
        patch.setattr(finite_networks, "QUICK", options)
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


def test_each_claim_has_its_folder_and_all_have_one_report(finished):
    out, outcomes = finished
    assert [outcome.claim for outcome in outcomes] == NAMES
    assert outcomes[0].agrees
    for name in NAMES:
        files = {file.name for file in (out / name).iterdir()}
        assert {"rows.csv", "result.json", "figure.png"} <= files
    assert (out / "report.html").exists()


def test_files_tell_what_was_found_and_how(finished):
    out, (first, _) = finished
    kept = json.loads((out / "convergence" / "result.json").read_text("utf-8"))
    assert kept["config"] == {"gammas": [1.0], "depths": [10, 30, 100]}
    assert {"versions", "device", "platform", "finished", "seconds"} <= kept["provenance"].keys()
    assert kept["provenance"]["versions"]["jax"][0].isdigit()
    assert kept["findings"] == [dataclasses.asdict(finding) for finding in first.findings]
    with (out / "convergence" / "rows.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["distance"]) for row in rows] == [row["distance"] for row in kept["rows"]]


def test_the_seeds_and_the_data_set_are_kept(finished):
    out, _ = finished
    config = json.loads((out / "finite_networks" / "result.json").read_text("utf-8"))["config"]
    assert config["dataset"] == "digits"
    assert config["seeds"] == 1


def test_what_is_read_is_what_was_written(finished):
    out, outcomes = finished
    for outcome in outcomes:
        assert record.read(out / outcome.claim) == outcome


def test_resuming_does_not_do_again_what_is_done(finished, monkeypatch):
    out, outcomes = finished

    for claim in (convergence, finite_networks):
        monkeypatch.setattr(claim, "run", _raising(AssertionError("again"), claim.run))
    assert reproduce.run(NAMES, out=out, resume=True) == outcomes


def test_an_interrupted_run_loses_the_claim_under_way_alone(tmp_path, monkeypatch):
    killed = _raising(KeyboardInterrupt(), finite_networks.run)
    with monkeypatch.context() as patch:
        patch.setattr(finite_networks, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            reproduce.run(NAMES, out=tmp_path / "out")
    # The report has what there was.
    assert convergence.TITLE in (tmp_path / "out" / "report.html").read_text("utf-8")
    before = (tmp_path / "out" / "convergence" / "result.json").read_bytes()
    outcomes = reproduce.run(NAMES, out=tmp_path / "out", resume=True)
    assert [outcome.claim for outcome in outcomes] == NAMES
    assert (tmp_path / "out" / "convergence" / "result.json").read_bytes() == before


def test_folders_of_other_things_are_refused(finished, tmp_path):
    out, _ = finished
    with pytest.raises(FileExistsError, match=r"Resume it \(resume=True, --resume\)"):
        reproduce.run(NAMES, out=out)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="holds something else"):
        reproduce.run(NAMES, out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="differs in setting"):
        reproduce.run(NAMES, setting="full", out=out, resume=True)


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


def test_all_claims_keep_the_protocol():
    assert len(reproduce.CLAIMS) == 7
    for claim in reproduce.CLAIMS.values():
        assert claim.TITLE
        assert claim.STATEMENT.endswith(".")
        assert claim.QUICK.keys() <= claim.FULL.keys()


def test_what_is_not_decided_is_no_agreement(finished):
    _, (first, _) = finished
    agrees, undecided, differs = (
        Finding("said", "found", verdict) for verdict in (True, None, False)
    )
    mixed = dataclasses.replace(first, findings=[agrees, undecided])
    assert mixed.agrees is None
    assert dataclasses.replace(first, findings=[differs, undecided]).agrees is False
    page = report.render([mixed], "quick")
    assert "For 0 of 1 claims all findings agree" in page
    assert '<span class="open">? 1 of 2, 1 not decided</span>' in page
    assert '<span class="open">? not decided at these depths</span>' in page


def test_text_of_others_cannot_become_markup(finished):
    _, (first, _) = finished
    evil = '<script>alert("x")</script>'
    finding = Finding(claim=evil, measured=evil, agrees=False)
    doctored = dataclasses.replace(
        first, title=evil, findings=[finding], config={evil: evil}, rows=[{evil: evil}]
    )
    page = report.render([doctored], "quick")
    assert "<script" not in page
    assert html.escape(evil) in page
    assert "0 of 1" in page


def test_the_report_refers_to_nothing_outside_of_it(finished):
    page = (finished[0] / "report.html").read_text("utf-8")
    targets = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert targets
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert "http" not in page
    assert page.count("<img") == page.count(' alt="Figure of') == 2


# What a page says of itself once it has loaded, where --dump-dom shows it.
_PROBE = """<script>
var failures = [];
window.addEventListener("error", function (event) { failures.push(String(event.message)); }, true);
window.addEventListener("load", function () {
  var widths = Array.from(document.images, function (image) { return image.naturalWidth; });
  var page = document.documentElement;
  page.dataset.probe = JSON.stringify(
    {widths: widths, failures: failures, sideways: page.scrollWidth - page.clientWidth});
});
</script>"""


@pytest.mark.parametrize("width", [1400, 400])
def test_a_browser_shows_every_figure_without_errors(finished, tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium here")
    page = (finished[0] / "report.html").read_text("utf-8").replace("<head>", "<head>" + _PROBE, 1)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    # In a home of its own, and without the sandbox, which containers do not allow.
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'home'}", f"--window-size={width},900", "--dump-dom",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert found, done.stderr
    probe = json.loads(html.unescape(found[1]))
    assert len(probe["widths"]) == 2
    assert all(probe["widths"])
    assert probe["failures"] == []
    assert probe["sideways"] == 0
    assert "CONSOLE" not in done.stderr
