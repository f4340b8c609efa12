import csv
import pathlib
import sys
import types

import numpy as np
import pytest

from nt_residual import cli, rntk, schedules, theory
from nt_residual.cli import spectrum


@pytest.mark.parametrize(("gamma", "name"), [(0.25, "degenerate"), (0.5, "critical")])
def test_regime_tells_the_limit_and_what_to_do(gamma, name, capsys):
    assert cli.main(["regime", f"--gamma={gamma}", "--c=2", "--depth=50"]) == 0
    text = capsys.readouterr().out
    schedule = schedules.PowerLaw(gamma, 2.0)
    kernels = [rntk.ResidualKernel(50, schedule), theory.regime(schedule).limit]
    assert name in text
    assert f"{kernels[0].effective_time:.4g} at L = 50" in text
    at_90 = "  ".join(f"{kernel.at_angle(np.pi / 2):.4f}" for kernel in kernels)
    assert at_90 in " ".join(f"{line} " for line in text.splitlines() if "90°" in line)
    words = " ".join(text.split())
    assert theory.regime(schedule).advice in words
    assert "All layers trained: start with α = L^(−0.5) = 0.1414 at L = 50" in words
    assert "Only blocks trained: start with α = L^(−1) = 0.02 at L = 50" in words


def test_regime_of_infinite_depth_shows_the_limit_alone(capsys):
    assert cli.main(["regime", "--gamma=1", "--depth=inf", "--trained=all"]) == 0
    text = capsys.readouterr().out
    assert "linear" in text
    assert "L = ∞" in text
    assert "L = 1000" not in text
    assert "start with α = L^(−0.5) = 0 as L → ∞" in text


def test_spectrum_lists_eigenvalues_and_writes_them(tmp_path, capsys):
    out = tmp_path / "spectrum.csv"
    assert (
        cli.main(["spectrum", "--gamma=1", "--depth=inf", "--max-degree=20", f"--out={out}"]) == 0
    )
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    assert ["4", "0.00260417", "9", "2.3438%"] in lines
    assert ["3", "0", "7", "0"] in lines
    assert "0: zero, or too small to distinguish from zero." in text
    assert "Degrees 10 to 20 decay like k^(−3.1 ± 0.1)" in text
    assert "In theory they tend to k^(−3) at degrees well above" in " ".join(text.split())
    rows = list(csv.DictReader(out.read_text().splitlines()))
    limit = rntk.ResidualKernel(np.inf, schedules.PowerLaw(1.0))
    expected = theory.spectrum(limit, 3, 20)
    assert [float(row["eigenvalue"]) for row in rows] == expected.eigenvalue.tolist()
    assert [float(row["multiplicity"]) for row in rows] == expected.multiplicity.tolist()


def test_spectrum_fits_even_and_odd_degrees_apart_where_they_follow_two_laws(capsys):
    assert cli.main(["spectrum", "--gamma=1", "--depth=1000"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Even degrees 10 to 20 decay like k^(−3.15 ± 0.03), odd degrees 11 to 19" in text
    assert "In theory both tend to k^(−3) at degrees well above 32." in text


def test_spectrum_draws_a_figure(tmp_path, capsys):
    out = tmp_path / "spectrum.PNG"
    arguments = ["spectrum", "--gamma=0.5", "--depth=inf", "--dim=9", "--max-degree=30"]
    assert cli.main([*arguments, "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "no power law before degrees of d^(3/2) = 27" in capsys.readouterr().out


def test_eigenvalues_below_the_range_of_floats_are_told_by_their_logarithm():
    found = types.SimpleNamespace(resolved=[True], eigenvalue=[0.0], log_eigenvalue=[-1000.0])
    assert spectrum._eigenvalue(found, 0) == "10^-434.2945"


@pytest.fixture
def claims(monkeypatch):
    """Keeps what `reproduce` is asked for in place of a run."""
    asked = []

    def run(names, **settings):
        asked.append((names, settings))
        return [
            types.SimpleNamespace(
                claim=name,
                agrees=name == "parity",
                findings=[types.SimpleNamespace(agrees=name == "parity")],
            )
            for name in names or ["parity", "minimax"]
        ]

    monkeypatch.setattr("nt_residual.experiments.reproduce.run", run)
    return asked


def test_reproduce_runs_all_claims_and_tells_which_agree(claims, capsys):
    assert cli.main(["reproduce"]) == 0
    (names, settings), text = claims[0], capsys.readouterr().out
    assert (names, settings["setting"], settings["dataset"]) == (None, "quick", "digits")
    assert text.splitlines()[:2] == [
        "parity            agrees: 1 of 1 findings agree",
        "minimax           does not agree: 0 of 1 findings agree",
    ]
    assert str(pathlib.Path("nt-residual-report/report.html").resolve()) in text


def test_reproduce_runs_what_it_is_asked_for(claims):
    words = "reproduce minimax minimax --full --dataset mnist --root r --out o"
    assert cli.main(words.split()) == 0
    expected = {"setting": "full", "dataset": "mnist", "progress": True}
    expected |= {"root": pathlib.Path("r"), "out": pathlib.Path("o")}
    assert claims == [(["minimax"], expected)]


def test_bench_hands_its_words_on_or_says_where_benchmarks_are(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "__main__.py").write_text("def main(words):\n    print('measured', words)\n")
    monkeypatch.setattr("nt_residual.cli.bench.ROOT", tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for name in ("benchmarks", "benchmarks.__main__"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    words = ["--cases", "gram", "--help", "--debug", "-x", "1"]
    cli.main(["bench", *words])
    assert f"measured {words}" in capsys.readouterr().out
    for name in ("benchmarks", "benchmarks.__main__"):
        sys.modules.pop(name)
    (folder / "__main__.py").unlink()
    assert cli.main(["bench"]) == 1
    assert "benchmarks come with a clone of the repository" in capsys.readouterr().err
