import csv
import json

import pytest

from nt_residual import cli


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder and the printed text of a small demonstration."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        arguments = ["demo", "--depth=20", "--gamma", "0.5", "--seed=3", "--n-train=80"]
        status = cli.main([*arguments, "--out", str(out)])
    assert status == 0
    return out, "\n".join(lines)


def test_the_demo_prints_a_table_and_names_its_folder(demo):
    out, text = demo
    for word in ("γ", "T", "regime", "chosen t", "validation", "test", "t = ∞", "critical"):
        assert word in text
    assert str(out) in text


def test_the_demo_writes_the_table_as_csv_and_json(demo):
    out, _ = demo
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    record = json.loads((out / "results.json").read_text())
    assert [row["depth"] for row in rows] == ["20", "inf"]
    assert [row["gamma"] for row in record["rows"]] == [0.5, 0.5]
    assert record["config"]["seed"] == 3
    assert record["config"]["images"] == {"train": 60, "validation": 20, "test": 360}
    assert record["versions"]["jax"]


def test_the_demo_draws_a_figure(demo):
    out, _ = demo
    assert (out / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_an_output_folder_that_is_a_file_is_refused(tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("mine")
    assert cli.main(["demo", "--out", str(path)]) == 1
    assert f"File exists: '{path}'" in capsys.readouterr().err
    assert path.read_text() == "mine"
