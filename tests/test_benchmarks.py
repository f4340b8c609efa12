import dataclasses
import importlib
import json
import math
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"
NAMES = sorted(p.stem for p in BENCHMARKS.glob("*.py") if "\nimport common\n" in p.read_text())
TINY = {
    "fc_kernel": (((60, 3),), ((60, 3),)),
    "conv_kernel": (("flatten", 4, 4, 1),),
    "gram": (100, (40,)),
    "regression": ((60, ("eigh", "lanczos", "neural-tangents")),),
    "estimators": (60, 3),
    "empirical_ntk": (("dense", 8, 1, 2, 3),),
    "scaling": 40,
}


@pytest.fixture
def load(monkeypatch):
    """Imports a benchmark as the program it is: from its own folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = jax.config.jax_default_matmul_precision
    yield importlib.import_module
    jax.config.update("jax_default_matmul_precision", before)
    for name in (*NAMES, "common", "networks"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_says_what_it_measures(name, load, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        load(name).main()
    assert stopped.value.code == 0
    assert "--out" in capsys.readouterr().out


def test_the_benchmark_of_regression_compares_with_neural_tangents(load, monkeypatch, tmp_path):
    benchmark = load("regression")
    monkeypatch.setattr(benchmark, "SIZES", {"path": 60, "whole": 60})
    monkeypatch.setattr(benchmark, "N_TEST", {"path": 10, "whole": 10})
    out = tmp_path / "result.json"
    arguments = ["--cases", "path", "whole", "--repeats", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["regression", *arguments])
    benchmark.main()
    result = json.loads(out.read_text())
    assert result["path"]["largest_difference"] < 1e-4
    assert result["whole"]["over_the_product"] > 0


@pytest.mark.filterwarnings("ignore:.FanIn. layers assume independent")
def test_the_benchmark_of_the_kernel_checks_it_and_stores_ratios(load, monkeypatch, tmp_path):
    benchmark = load("residual_kernel")
    for name, value in {
        "TIMED": ((10, 1.0), (np.inf, 0.5)),
        "CHECKED": ((10, 0.5),),
        "BUILT": ((10, 1.0),),
        "NT_DEPTHS": (3,),
    }.items():
        monkeypatch.setattr(benchmark, name, value)
    out = tmp_path / "result.json"
    small = ["--n", "60", "--features", "5", "--repeats", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["residual_kernel", *small])
    benchmark.main()
    result = json.loads(out.read_text())
    assert result["time"]["L=inf, γ=0.5"]["symmetric"] > 0
    assert result["accuracy"]["d=5"]["nt_residual"]["L=10, γ=0.5"]["error"] < 2e-6
    assert result["device"]


@pytest.fixture(scope="module")
def suite():
    """The suite as a package: from the root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS.parent))
        yield importlib.import_module("benchmarks.__main__")


@pytest.fixture(scope="module")
def measured(suite, tmp_path_factory):
    """What a run of tiny sizes writes, its exit status, and each case with what it computed."""
    folder, computed = tmp_path_factory.mktemp("results"), []

    def recording(case):
        def check(result):
            computed.append((case, result))
            return case.check(result)

        return dataclasses.replace(case, check=check)

    disabled = jax.config.read("jax_disable_most_optimizations")
    # Programs run for microseconds here, and are compiled for seconds.
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in TINY.items():
            patch.setitem(suite.FAMILIES[name].SIZES, "quick", size)
        patch.setitem(suite.runner.SIZES, "quick", (2**12, 32, 0.1))
        chosen = suite.cases
        patch.setattr(suite, "cases", lambda *options: map(recording, chosen(*options)))
        out = folder / "suite_tiny.json"
        status = suite.main(["--sizes", "quick", "--repeats", "3", "--out", str(out)])
    jax.config.update("jax_disable_most_optimizations", disabled)
    return json.loads(out.read_text()), status, computed


def test_the_suite_checks_and_times_every_family(measured):
    result, status, _ = measured
    assert status == 0
    assert {row["family"] for row in result["cases"]} == set(TINY)
    assert result["device"]
    assert result["versions"]["jax"] == jax.__version__
    for row in result["cases"]:
        assert row["error"] <= row["tolerance"]
        assert 0 < row["min_s"] <= row["q1_s"] <= row["median_s"] <= row["q3_s"]
        assert row["compile_s"] >= 0
        assert row["entries_per_s"] == pytest.approx(row["entries"] / row["median_s"])
        if row["flops"]:
            rate = row["flops_per_s_of_peak"] * result["peaks"]["flops_per_s"]["float32"]
            assert rate * row["median_s"] == pytest.approx(row["flops"])


def test_a_wrong_result_of_any_case_is_noticed(measured):
    for case, result in measured[2]:
        wrong = jax.tree.map(lambda part: 1.05 * np.asarray(part), result)
        assert case.check(result) <= case.tolerance < case.check(wrong), case.name
        nothing = jax.tree.map(lambda part: math.nan * np.asarray(part), result)
        assert not case.check(nothing) <= case.tolerance, case.name


def test_one_wrong_tile_is_noticed(measured):
    case, matrix = next(pair for pair in measured[2] if pair[0].family == "gram")
    wrong = np.array(matrix)
    wrong[40:80, :40] = wrong[40:80, 40:80]
    assert case.check(wrong) > case.tolerance


def test_a_case_that_fails_is_named_and_others_are_timed(suite, measured, monkeypatch, capsys):
    right = measured[2][0][0]
    constant = dataclasses.replace(right, jit=False, build=lambda: (lambda: measured[2][0][1], ()))
    wrong = dataclasses.replace(constant, build=lambda: (lambda: jnp.ones((60, 60)), ()))
    monkeypatch.setattr(suite, "cases", lambda *_: [wrong, constant])
    monkeypatch.setitem(suite.runner.SIZES, "quick", (2**12, 32, 0.1))
    assert suite.main(["--sizes", "quick"]) == 1
    named, timed = capsys.readouterr().out.strip().splitlines()[-2:]
    assert "the result is off by" in named
    assert "entries/s" in timed


def test_an_interruption_loses_nothing(suite, measured, monkeypatch, tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    first = dataclasses.replace(
        measured[2][0][0], jit=False, build=lambda: (lambda: measured[2][0][1], ())
    )
    second = dataclasses.replace(first, build=interrupted)
    monkeypatch.setattr(suite, "cases", lambda *_: [first, second])
    monkeypatch.setitem(suite.runner.SIZES, "quick", (2**12, 32, 0.1))
    out = tmp_path / "result.json"
    with pytest.raises(KeyboardInterrupt):
        suite.main(["--sizes", "quick", "--out", str(out)])
    assert len(json.loads(out.read_text())["cases"]) == 1


@pytest.mark.usefixtures("suite")
def test_the_page_and_the_figures_are_those_of_the_results():
    from PIL import Image

    from benchmarks import figures, report

    results = report.load(BENCHMARKS / "results")
    assert report.readme(results) == (BENCHMARKS / "README.md").read_text()
    for name, result in results.items():
        with Image.open(BENCHMARKS / "results" / f"{name}.png") as image:
            assert image.text["Source"] == figures.fingerprint(result)


def test_the_page_says_which_cases_failed(measured, tmp_path):
    from benchmarks import report

    failed = {"family": "gram", "who": "gram.compute", "n": 9, "failed": "MemoryError: too large"}
    result = {**measured[0], "cases": [*measured[0]["cases"], failed]}
    (tmp_path / "suite_tiny.json").write_text(json.dumps(result))
    out = tmp_path / "README.md"
    assert report.main(["--results", str(tmp_path), "--out", str(out)]) == 0
    assert "| MemoryError: too large |" in out.read_text()
    once = (tmp_path / "suite_tiny.png").read_bytes()
    report.main(["--results", str(tmp_path), "--out", str(out)])
    assert (tmp_path / "suite_tiny.png").read_bytes() == once


@pytest.mark.usefixtures("suite")
def test_the_estimate_follows_its_formulas():
    from benchmarks import estimate

    found = estimate.costs(entries_per_s=1e9, bytes_per_s=1e12)
    assert found.matrix == 15.625e9
    assert found.make_s == pytest.approx(1e12 / 256 / 1e9)
    assert found.read_s == pytest.approx(15.625e9 / 1e12)
    # Ten vectors of a million numbers, of which a chip has one part in 256.
    assert found.sent == pytest.approx(4e7 * 255 / 256)
    faster = estimate.costs(entries_per_s=2e9, bytes_per_s=1e12)
    assert found.total_s - faster.total_s == pytest.approx(found.make_s / 2)
