import dataclasses
import importlib
import json
import math
import pathlib

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"
TINY = {
    "fc_kernel": (((60, 3),), ((60, 3),)),
    "conv_kernel": (("flatten", 4, 4, 1),),
    "layers": (8, (2,)),
    "gram": (100, (40,)),
    "low_rank": (100, 20),
    "regression": ((60, ("eigh", "lanczos", "neural-tangents")),),
    "estimators": (60, 3),
    "empirical_ntk": (("dense", 8, 1, 2, 3),),
    "scaling": 40,
}
FEW = ("fc_kernel", "gram", "empirical_ntk")


@pytest.fixture(scope="module")
def suite():
    """The suite as a package: from the root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS.parent))
        yield importlib.import_module("benchmarks.__main__")


@pytest.fixture(scope="module", params=[FEW, *helpers.full(tuple(TINY))], ids=["few", "all"])
def measured(request, suite, tmp_path_factory):
    """Return the file of a run of tiny sizes, its exit status, and each case with its result."""
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
        options = ["--sizes", "quick", "--repeats", "3", "--out", str(out)]
        status = suite.main(["--cases", *request.param, *options])
    jax.config.update("jax_disable_most_optimizations", disabled)
    result = json.loads(out.read_text())
    assert {row["family"] for row in result["cases"]} == set(request.param)
    return result, status, computed


def test_the_suite_checks_and_times_its_families(measured):
    result, status, _ = measured
    assert status == 0
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
        assert case.tolerance < case.check(wrong), case.name
        nothing = jax.tree.map(lambda part: math.nan * np.asarray(part), result)
        assert not case.check(nothing) <= case.tolerance, case.name


def test_a_case_that_fails_is_named_and_others_are_kept(
    suite, measured, monkeypatch, capsys, tmp_path
):
    def interrupted():
        raise KeyboardInterrupt

    case, result = measured[2][0]
    right = dataclasses.replace(case, jit=False, build=lambda: (lambda: result, ()))
    wrong = dataclasses.replace(right, build=lambda: (lambda: jnp.ones((60, 60)), ()))
    last = dataclasses.replace(right, build=interrupted)
    monkeypatch.setitem(suite.runner.SIZES, "quick", (2**12, 32, 0.1))
    monkeypatch.setattr(suite, "cases", lambda *_: [wrong, right])
    assert suite.main(["--sizes", "quick"]) == 1
    named, timed = capsys.readouterr().out.strip().splitlines()[-2:]
    assert "the result is off by" in named
    assert "entries/s" in timed
    monkeypatch.setattr(suite, "cases", lambda *_: [right, last])
    out = tmp_path / "result.json"
    with pytest.raises(KeyboardInterrupt):
        suite.main(["--sizes", "quick", "--out", str(out)])
    assert len(json.loads(out.read_text())["cases"]) == 1


def test_a_target_that_cannot_be_compiled_for_says_what_to_do(suite, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        suite.main(["--compile-for", "v4"])
    assert "'v5e', 'v6e', 'h100', 'h200'" in capsys.readouterr().err
    monkeypatch.setattr(suite.targets, "_installed", lambda wheel: False)
    for target, wheel in (("v5e", "libtpu"), ("h100", "jax-cuda12-plugin")):
        with pytest.raises(SystemExit):
            suite.main(["--compile-for", target])
        said = capsys.readouterr().err
        assert wheel in said
        assert "uv sync --group accelerators" in said


@pytest.mark.usefixtures("suite")
def test_the_text_of_a_program_tells_what_it_moves_multiplies_and_sends():
    from benchmarks.program_text import Program

    mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, everywhere = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in (("rows",), ())
    )

    def read(function, *inputs, **options):
        return Program(jax.jit(function, **options).lower(*inputs).compile().as_text())

    x = np.ones((64, 64), "float32")

    def loop(x, limit=7):
        return jax.lax.fori_loop(0, limit, lambda i, y: jnp.matmul(jnp.sin(y), x), x)

    text = read(loop, x)
    assert text.flops() == 7 * 2 * 64**3
    # Each round reads y and writes sin(y), then reads both factors and writes their product.
    assert text.bytes() >= 7 * 5 * 4 * 64**2
    assert text.passes(64**2)[1] == 2
    assert text.passes(64**2 + 1) == (0, 0)
    assert text.imprecise_products()
    assert not text.collectives()
    assert not text.host_calls()
    assert "f64" not in text.dtypes()
    # How often it runs, and which branch is taken, is not known.
    assert read(loop, x, 7).flops() == 0
    branches = read(lambda x: jax.lax.cond(x[0, 0] > 0, jnp.sin, lambda x: x @ x, x), x)
    assert branches.flops() == 0
    precise = read(lambda x: jnp.matmul(x, x, precision="highest"), x)
    assert not precise.imprecise_products()
    assert read(lambda x: jax.debug.callback(print, x), x).host_calls()
    # Of a part that is written in place the rest counts neither as read nor as written.
    part = read(lambda x: x.at[3].set(0), x, donate_argnums=0)
    assert part.bytes() < 4 * 64**2
    spread = jax.device_put(x, rows)
    assert read(jnp.sin, spread, out_shardings=everywhere).collectives() == {"all-gather": [64**2]}


@pytest.mark.usefixtures("suite")
def test_the_page_and_the_figures_are_those_of_the_results():
    from PIL import Image

    from benchmarks import figures, report

    results = report.load(BENCHMARKS / "results")
    assert report.readme(results) == (BENCHMARKS / "README.md").read_text()
    for name in (name for name in results if name.startswith("suite_")):
        with Image.open(BENCHMARKS / "results" / f"{name}.png") as image:
            assert image.text["Source"] == figures.fingerprint(results[name])


def test_the_page_says_which_cases_failed(measured, tmp_path):
    from benchmarks import report

    failed = {"family": "gram", "who": "gram.compute", "n": 9, "failed": "MemoryError: too large"}
    result = {**measured[0], "cases": [*measured[0]["cases"], failed]}
    (tmp_path / "suite_tiny.json").write_text(json.dumps(result))
    out = tmp_path / "README.md"
    assert report.main(["--results", str(tmp_path), "--out", str(out)]) == 0
    assert "| MemoryError: too large |" in out.read_text()
    assert (tmp_path / "suite_tiny.png").read_bytes().startswith(b"\x89PNG")
