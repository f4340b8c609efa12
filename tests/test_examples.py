import importlib.util
import pathlib

import jax
import pytest

from nt_residual import gram

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


@pytest.fixture
def run(tmp_path, capsys):
    """Runs an example, and returns what it printed; it may set JAX's configuration."""
    precision = jax.config.jax_default_matmul_precision

    def run(name, *options):
        specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        out, kept = tmp_path / "figure.png", EXAMPLES / f"{name}.png"
        module.main([*options, "--out", str(out)] if kept.exists() else options)
        if kept.exists():
            # The picture in the repository is one of this figure.
            assert _size_of_png(out) == _size_of_png(kept)
        return capsys.readouterr().out

    yield run
    jax.config.update("jax_default_matmul_precision", precision)


def _size_of_png(path):
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return data[16:24]


def _numbers(printed, before):
    """The numbers that follow each occurrence of some words."""
    return [float(s.split()[0].rstrip("%,")) for s in printed.split(before)[1:]]


def test_quickstart_stops_in_time_and_agrees_with_neural_tangents(run):
    printed = run("quickstart", "--quick")
    errors = printed[printed.index("test error ") :]
    stopped, late = _numbers(errors, "test error ")[0], _numbers(errors, ", and ")[0]
    assert stopped < late / 2
    assert _numbers(printed, "the same kernel to ")[0] < 1e-4


@pytest.mark.full
def test_wider_networks_of_composed_layers_are_nearer_to_their_kernel(run):
    options = ["--widths", "8", "32", "--networks", "2", "--images", "4"]
    narrow, wide = _numbers(run("compose_layers", *options), "relative difference ")
    assert wide < narrow


@pytest.mark.full
def test_which_alpha_gives_advice_on_every_regime(run):
    printed = run("which_alpha", "--depth", "50")
    assert printed.count("γ = ") == 4
    assert "trained='all', 50 blocks: start with α = 0.141" in printed


@pytest.mark.full
def test_pooling_learns_moved_digits_from_few(run):
    options = ["--gammas", "0", "--depth", "1", "--sizes", "10", "30", "--n-test", "20"]
    printed = run("conv_kernel", *options)
    percents = [float(word.rstrip("%,")) for word in printed.split() if "%" in word]
    plain, _, flatten, _, pooled, pooled_moved = percents
    assert pooled > max(plain, flatten)
    assert pooled_moved > 40


@pytest.mark.full
@pytest.mark.parametrize("pooling", ["flatten", "gap"])
def test_kernels_of_convolutions_with_and_without_blocks_learn_digits(run, pooling):
    options = ["--dataset", "digits", "--pooling", pooling, "--depths", "3"]
    printed = run("cntk_table", *options, "--n-train", "50", "--n-test", "50")
    depth, without_blocks, residual, published, _ = printed.splitlines()[-1].split()
    assert (depth, published) == ("3", "–")
    assert min(float(without_blocks), float(residual)) > 60


@pytest.mark.full
def test_finite_width_is_checked_for_three_networks(run):
    assert run("finite_width_check", "--quick").count(": agrees\n") == 3


@pytest.mark.full
def test_wider_trained_networks_are_nearer_to_gradient_flow(run):
    narrow, wide = _numbers(run("train_resnet", "--quick", "--gammas", "0.5"), "at most ")
    assert wide < narrow


@pytest.mark.full
def test_early_stopping_is_worth_it_by_every_rule(run):
    rows = run("early_stopping", "--quick").splitlines()[1:-1]
    *rules, late = (float(row.split()[-1]) for row in rows)
    assert len(rules) == 6
    assert max(rules) < late


@pytest.mark.full
def test_a_compiled_network_has_the_kernel_of_its_layers(run):
    assert _numbers(run("compile_your_network", "--quick"), "the same to ")[0] < 1e-5


@pytest.mark.full
def test_larger_than_memory_keeps_the_matrix_that_has_a_name(run, tmp_path):
    differences = _numbers(
        run("larger_than_memory", "--quick", "--store", str(tmp_path)), "largest difference "
    )
    assert gram.load(tmp_path / "k").shape == (300, 300)
    assert len(differences) == 3
    assert max(differences) < 1e-5


@pytest.mark.full
def test_error_bars_are_wide_where_there_are_no_data(run):
    printed = run("error_bars")
    near, far = _numbers(printed, "standard deviation "), _numbers(printed, "data point, ")
    assert len(near) == 4
    assert all(3 * a < b for a, b in zip(near, far, strict=True))
    first, second = _numbers(printed, "log evidence ")
    assert first > second
    covered = _numbers(printed, "intervals of 90% hold ")
    assert len(covered) == 4
    assert all(70 < share < 100 for share in covered)
