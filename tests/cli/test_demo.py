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
        arguments = ["demo", "--depth=20", "--gamma", "0.5", "1", "--seed=3", "--n-train=100"]
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
    assert [row["depth"] for row in rows] == ["20", "20", "inf", "inf"]
    assert [row["gamma"] for row in record["rows"]] == [0.5, 1.0, 0.5, 1.0]
    assert record["config"]["seed"] == 3
    assert record["config"]["images"] == {"train": 75, "validation": 25, "test": 360}
    assert record["versions"]["jax"]


def test_the_demo_draws_a_figure(demo):
    out, _ = demo
    assert (out / "accuracy.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--depth", "0", "an integer ≥ 1 or inf"),
        ("--depth", "1.5", "an integer ≥ 1 or inf"),
        ("--gamma", "-1", "a finite number ≥ 0"),
        ("--gamma", "nan", "a finite number ≥ 0"),
        ("--label-noise", "1", r"a number in [0, 1)"),
        ("--n-train", "10", "an integer from 20 to 1427, or 1437"),
        ("--seed", "-1", "an integer in [0, 2^32)"),
    ],
)
def test_a_bad_option_is_refused_with_what_was_expected(option, value, expected, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(["demo", f"{option}={value}"])
    assert error.value.code == 2
    assert f"argument {option}: expected {expected}, got {value!r}" in capsys.readouterr().err


def test_an_output_folder_that_is_a_file_is_refused(tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("mine")
    assert cli.main(["demo", "--out", str(path)]) == 1
    assert f"--out must be a folder, got the file {path}" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_missing_packages_are_named_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["demo", "--out", str(tmp_path / "new")]) == 1
    assert "pip install scikit-learn matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_interruption_is_reported(tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("nt_residual.experiments.digits.run", interrupt)
    assert cli.main(["demo", "--out", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err
