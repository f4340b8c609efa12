import csv
import json

from nt_residual import cli


def test_the_demo_prints_a_table_and_writes_it_with_a_figure(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    arguments = ["demo", "--depth=20", "--gamma", "0.5", "--seed=3", "--n-train=80"]
    assert cli.main([*arguments, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    for word in ("γ", "T", "regime", "chosen t", "validation", "test", "t = ∞", "critical"):
        assert word in text
    assert str(out) in text
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    record = json.loads((out / "results.json").read_text())
    assert [row["depth"] for row in rows] == ["20", "inf"]
    assert [row["gamma"] for row in record["rows"]] == [0.5, 0.5]
    assert record["config"]["seed"] == 3
    assert {row["n_train"] for row in record["rows"]} == {60}
    assert record["versions"]["jax"]
    assert (out / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_an_output_folder_that_is_a_file_is_refused(tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("mine")
    assert cli.main(["demo", "--out", str(path)]) == 1
    assert f"File exists: '{path}'" in capsys.readouterr().err
    assert path.read_text() == "mine"
