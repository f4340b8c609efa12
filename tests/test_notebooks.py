import json
import pathlib
import runpy
import sys
import types

import jax
import nbformat
import numpy as np
import pytest

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "examples" / "notebooks"


build = types.SimpleNamespace(**runpy.run_path(str(NOTEBOOKS / "build.py")))


def _stored(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def _install_cell(name):
    return next(cell.source for cell in _stored(name).cells if cell.cell_type == "code")


@pytest.fixture
def fast(monkeypatch, tmp_path):
    """Runs the script of a notebook in the fast setting, in a folder of its own."""
    import matplotlib.pyplot as plt

    before = jax.config.jax_default_matmul_precision
    monkeypatch.setenv("NT_RESIDUAL_FAST", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    yield lambda name: runpy.run_path(str(NOTEBOOKS / f"{name}.py"))
    plt.close("all")
    jax.config.update("jax_default_matmul_precision", before)


def test_every_script_has_its_notebook_with_the_same_installation():
    scripts = {path.stem for path in NOTEBOOKS.glob("*.py")} - {"build"}
    assert scripts == {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(build.NAMES)
    assert len({_install_cell(name) for name in build.NAMES}) == 1


@pytest.mark.parametrize("name", build.NAMES)
def test_a_notebook_is_what_its_script_makes(name):
    made, stored = build.from_script(name, build.repository()), _stored(name)
    assert build.sources(stored) == build.sources(made)
    assert stored.metadata == made.metadata
    assert [cell.id for cell in stored.cells] == [cell.id for cell in made.cells]


@pytest.mark.parametrize("name", build.NAMES)
def test_a_notebook_has_small_output_without_errors_or_paths_of_a_machine(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    assert path.stat().st_size < 300_000
    nbformat.validate(_stored(name))
    cells = [cell for cell in _stored(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell.outputs for cell in cells)
    for cell in cells:
        assert not cell.metadata
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            assert not any(root in json.dumps(output) for root in ("/home/", "/tmp/", "/work/"))


def test_the_installation_does_nothing_where_the_package_is(monkeypatch):
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("something was installed"))
    exec(_install_cell("quickstart"), {})


def test_the_installation_leaves_tensorflow_out_and_jax_as_it_is(monkeypatch):
    installed = []
    monkeypatch.setattr("subprocess.run", lambda command, check: installed.append(command))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "nt_residual" or None)
    monkeypatch.setenv("NT_RESIDUAL_SOURCE", "a-source")
    exec(_install_cell("quickstart"), {})
    alone, needed = installed
    assert alone[0] == needed[0] == sys.executable
    assert alone[-3:] == ["--no-deps", "neural-tangents==0.6.5", "a-source"]
    assert f"jax=={jax.__version__}" in needed
    assert any(requirement.startswith("orbax-checkpoint") for requirement in needed)
    assert not any("tensorflow" in word or "neural-tangents" in word for word in needed)


@pytest.mark.full
def test_the_quickstart_runs(fast, capsys):
    names = fast("quickstart")
    assert names["stopping"].time < float("inf")
    assert "stopped early: mean squared error" in capsys.readouterr().out


@pytest.mark.full
def test_residual_kernels_on_tpu_runs(fast, capsys):
    names = fast("residual_kernels_on_tpu")
    assert names["error"] < names["kernel"].error_bound
    assert names["chosen"] > 0.6
    assert "rows on each of" in capsys.readouterr().out


@pytest.mark.full
def test_reproduce_the_paper_runs(fast, capsys):
    names = fast("reproduce_the_paper")
    assert [outcome.claim for outcome in names["outcomes"]] == ["convergence"]
    printed = capsys.readouterr().out
    assert "measured: The slope is" in printed
    assert printed.endswith("1 of 1 claims agree with the paper in all their findings.\n")


@pytest.mark.full
def test_fashion_mnist_runs_on_few_digits(fast, capsys):
    names = fast("fashion_mnist")
    assert np.mean(names["predicted"] == names["flat"].y_test) > 0.9
    assert capsys.readouterr().out.count("% right, stopped at t = ") == 3
