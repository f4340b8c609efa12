import importlib.util
import pathlib

import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def _load(name):
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def unchanged_configuration():
    """Examples are programs: they may set JAX's configuration, tests must not keep it."""
    import jax

    before = jax.config.jax_default_matmul_precision
    yield
    jax.config.update("jax_default_matmul_precision", before)


@pytest.mark.full
@pytest.mark.usefixtures("unchanged_configuration")
def test_compose_layers_draws_its_figure(tmp_path, capsys):
    out = tmp_path / "figure.png"
    options = ["--widths", "8", "32", "--networks", "2", "--images", "4", "--out", str(out)]
    _load("compose_layers").main(options)
    assert out.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    narrow, wide = (
        float(line.split()[-1]) for line in printed.splitlines() if "difference" in line
    )
    assert wide < narrow


@pytest.mark.full
def test_which_alpha_draws_its_figure_and_gives_advice(tmp_path, capsys):
    out = tmp_path / "figure.png"
    _load("which_alpha").main(["--depth", "50", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert printed.count("γ = ") == 4
    assert "trained='all', 50 blocks: α = 0.141" in printed


@pytest.mark.full
def test_conv_kernel_draws_its_figure(tmp_path, capsys):
    out = tmp_path / "figure.png"
    options = ["--gammas", "0", "--depth", "1", "--sizes", "10", "30", "--n-test", "20"]
    _load("conv_kernel").main([*options, "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    percents = [word.rstrip("%,") for word in printed.split() if "%" in word]
    plain, _, flatten, _, pooled, pooled_moved = map(float, percents)
    assert pooled > max(plain, flatten)
    assert pooled_moved > 40


@pytest.mark.full
def test_finite_width_check_draws_its_figure(tmp_path, capsys):
    out = tmp_path / "figure.png"
    _load("finite_width_check").main(["--quick", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("the limit is off by") == 3


@pytest.mark.full
def test_train_resnet_draws_its_figure(tmp_path, capsys):
    out = tmp_path / "figure.png"
    _load("train_resnet").main(["--quick", "--gammas", "0.5", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    narrow, wide = (float(s.split("%")[0]) for s in printed.split("at most ")[1:])
    assert wide < narrow


@pytest.mark.usefixtures("unchanged_configuration")
def test_quickstart_stops_in_time_and_agrees_with_neural_tangents(tmp_path, capsys):
    out = tmp_path / "figure.png"
    _load("quickstart").main(["--quick", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    stopped, late = (float(s.split()[0]) for s in printed.split("test error ")[1].split(" and "))
    assert stopped < late / 2
    assert float(printed.split("the same kernel to ")[1].split()[0]) < 1e-4


@pytest.mark.full
def test_early_stopping_is_worth_it_by_every_rule(tmp_path, capsys):
    out = tmp_path / "figure.png"
    _load("early_stopping").main(["--quick", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    rows = capsys.readouterr().out.splitlines()[1:-1]
    *rules, late = (float(row.split()[-1]) for row in rows)
    assert len(rules) == 6
    assert max(rules) < late


@pytest.mark.full
@pytest.mark.usefixtures("unchanged_configuration")
def test_a_compiled_network_has_the_kernel_of_its_layers(tmp_path, capsys):
    out = tmp_path / "figure.png"
    _load("compile_your_network").main(["--quick", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert float(printed.split("the same to ")[1].split()[0]) < 1e-5


@pytest.mark.full
def test_larger_than_memory_keeps_the_matrix_that_has_a_name(tmp_path, capsys):
    from nt_residual import gram

    _load("larger_than_memory").main(["--quick", "--store", str(tmp_path)])
    assert gram.load(tmp_path / "k").shape == (300, 300)
    printed = capsys.readouterr().out
    differences = [float(s.split()[0]) for s in printed.split("largest difference ")[1:]]
    assert len(differences) == 3
    assert max(differences) < 1e-5
