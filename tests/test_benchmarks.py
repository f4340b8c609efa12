import importlib
import json
import pathlib
import sys

import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"
NAMES = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem != "common")


@pytest.fixture
def load(monkeypatch):
    """Imports a benchmark as the program it is: from its own folder."""
    import jax

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = jax.config.jax_default_matmul_precision
    yield importlib.import_module
    jax.config.update("jax_default_matmul_precision", before)
    for name in (*NAMES, "common"):
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
