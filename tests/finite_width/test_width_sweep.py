"""Kernels against those of finite networks, and kernels that are a little off."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import full, naive_conv_kernel, naive_kernel
from neural_tangents import stax as nt_stax

from nt_residual import conv, finite_width, memory, rntk, schedules
from nt_residual.finite_width.networks import initializer
from nt_residual.finite_width.width_results import WidthSweep
from nt_residual.finite_width.width_sweep import _expected, width_sweep

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 4)).astype("float32")
IMAGES = RNG.standard_normal((2, 2, 4, 2)).astype("float32")
ALPHA = schedules.PowerLaw(0.5)


def fully_connected(**options):
    return rntk.ResidualKernel(2, ALPHA, **options), X


def convolutional(**options):
    options = {"padding": "CIRCULAR", **options}
    return conv.ResidualKernel(1, ALPHA, IMAGES.shape[1:3], **options), IMAGES


def resnet(width):
    return functools.partial(finite_width.ResNet, 2, width, schedule=ALPHA, in_dim=4)


@pytest.mark.parametrize("kind", ["ntk", *full("nngp")])
def test_kernels_are_those_of_their_networks_and_no_others(kind):
    sweep = width_sweep(*fully_connected(kind=kind), [32, 128], 150)
    assert sweep.agrees
    assert len(repr(sweep)) < 200
    for factor in (0.85, 1.15):
        assert not dataclasses.replace(sweep, kernel=factor * sweep.kernel).agrees


def test_convolutional_kernels_are_those_of_their_networks():
    sweep = width_sweep(*convolutional(trained="all"), [4, 16], 60)
    assert sweep.agrees
    assert not dataclasses.replace(sweep, kernel=1.3 * sweep.kernel).agrees


UNITS = [
    ("ntk", "blocks", True),
    ("nngp", "all", False),
    *full(("ntk", "all", True), ("nngp", "blocks", True), ("ntk", "all", False)),
]


@pytest.mark.parametrize("case", UNITS)
def test_kernels_are_compared_in_the_units_of_networks(case):
    kind, trained, normalize = case
    options = {"trained": trained, "normalize": normalize}
    kernel, x = fully_connected(kind=kind, **options)
    expected = naive_kernel(*x, ALPHA(2), kind=kind, trained=trained) / 4
    expected /= np.prod(1 + ALPHA(2) ** 2) if normalize else 1
    assert _expected(kernel, kind, x)[0, 1] == pytest.approx(expected, rel=1e-5)
    kernel, x = convolutional(kind=kind, **options)
    options |= {"pooling": "flatten", "padding": "CIRCULAR"}
    nngp, ntk = naive_conv_kernel(*x, ALPHA(1), **options)
    expected = ntk if kind == "ntk" else nngp
    assert _expected(kernel, kind, x)[0, 1] == pytest.approx(expected, rel=1e-5)


def dense(width):
    """A stax network of one hidden layer."""
    return nt_stax.serial(nt_stax.Dense(width), nt_stax.Relu(), nt_stax.Dense(1))


def test_a_kernel_of_stax_with_its_own_network(capsys):
    kernel_fn = dense(1)[2]
    sweep = width_sweep(kernel_fn, X, [16, 64], [300, 200], network=dense, progress=True)
    assert sweep.agrees
    assert [len(draws) for draws in sweep.draws] == [300, 200]
    assert "500/500" in capsys.readouterr().err


def test_draws_are_the_empirical_kernels_of_networks(x64):
    kernel, x = fully_connected()
    x = x.astype("float64")
    sweep = width_sweep(kernel, x, [2, 4], 2, seed=3)
    make = functools.partial(resnet(4), normalize_blocks=True, dtype=jnp.float64)

    @jax.jit
    def jacobian(key):
        made = initializer(make, x, check=False)(key)
        leaves = jax.tree.leaves(jax.jacobian(lambda p: made(p, x)[:, 0])(made.params))
        return jnp.concatenate([leaf.reshape(2, -1) for leaf in leaves], -1)

    found = jacobian(jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 4), 1))
    np.testing.assert_allclose(sweep.draws[1][1], found @ found.T, rtol=1e-12)


def drawn(widths, n_seeds, kernel, bias=0.0, seed=0, tail=1e9, noise=1.0):
    """Draws of variance and bias in proportion to 1/width."""
    rng = np.random.default_rng(seed)
    draws = []
    for m in widths:
        common = rng.standard_t(tail, (n_seeds, 1, 1)) * kernel
        both = common + noise * rng.standard_normal((n_seeds, *kernel.shape))
        draws.append((1 + bias / m) * kernel + both / math.sqrt(m))
    return WidthSweep(np.array(widths), kernel, tuple(draws))


def test_standard_errors_are_those_of_repeated_sweeps():
    kernel = np.array([[2.0, 1.0], [1.0, 3.0]])
    sweeps = [drawn([64, 256, 1024], 20, kernel, bias=2.0, seed=i) for i in range(400)]
    # Of right kernels: the bias of finite width is extrapolated to zero.
    ratios = np.array([sweep.bias / sweep.bias_error for sweep in sweeps])
    assert np.mean(ratios**2) == pytest.approx(1, abs=0.15)
    assert np.mean(ratios > 3) < 0.01
    slopes = np.array([sweep.slope for sweep in sweeps])
    errors = np.array([sweep.slope_error for sweep in sweeps])
    assert abs(np.mean(slopes) + 0.5) < 0.01
    assert np.std((slopes + 0.5) / errors) == pytest.approx(1, abs=0.15)


def test_the_bias_of_a_wrong_kernel_is_its_deviation():
    kernel = np.array([[2.0, 1.0], [1.0, 3.0]])
    right = drawn([64, 256, 1024], 2000, kernel, bias=5.0)
    wrong = dataclasses.replace(right, kernel=kernel * np.array([[1, 1.2], [1.2, 1]]))
    deviation = math.sqrt(2) * 0.2 / np.linalg.norm(wrong.kernel)
    assert wrong.bias == pytest.approx(deviation, abs=4 * wrong.bias_error)
    assert wrong.bias > 3 * wrong.bias_error
    assert not wrong.agrees


@pytest.mark.parametrize("n_seeds", [2, 12])
@pytest.mark.parametrize("tail", [1e9, 3])
def test_the_interval_of_the_slope_covers_it_as_often_as_said(tail, n_seeds):
    options = {"tail": tail, "noise": 0}
    sweeps = (drawn([64, 128, 256, 512], n_seeds, np.eye(2), seed=i, **options) for i in range(400))
    intervals = np.array([sweep.slope_interval for sweep in sweeps])
    covered = (intervals[:, 0] <= -0.5) & (intervals[:, 1] >= -0.5)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.035)


def test_the_plot_has_bars_the_fit_and_the_slope_of_theory():
    sweep = drawn([16, 64, 256], 10, np.eye(2))
    ax = sweep.plot()
    bars, fitted, reference = ax.lines[0], *ax.lines[-2:]
    np.testing.assert_array_equal(bars.get_ydata(), sweep.error)
    for line, slope in ((fitted, sweep.slope), (reference, -0.5)):
        y = np.log(line.get_ydata())
        assert (y[-1] - y[0]) / math.log(16) == pytest.approx(slope)
    assert sweep.plot(ax, label="again") is ax
    assert len(ax.lines) > 4


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"widths": [8, 8]}, ValueError, r"two that increase.*got \[8, 8\]"),
        ({"widths": [8]}, ValueError, "at least two"),
        ({"n_seeds": [2, 1]}, ValueError, "n_seeds must be at least 2, got 1"),
        ({"n_seeds": [2, 3, 4]}, ValueError, "each of 2 widths, got 3"),
        ({"kernel": 1}, TypeError, "kernel must be a residual kernel or a function.*got int"),
        ({"kernel": lambda x: x @ x.T}, ValueError, "network must be given.*got function"),
        ({"kernel": lambda x: x, "network": dense}, ValueError, r"matrix .*of shape \(2, 2\)"),
        ({"kind": "nngp"}, ValueError, "kind must be that of the kernel, 'ntk', got 'nngp'"),
        ({"kernel": rntk.ResidualKernel(math.inf, ALPHA)}, ValueError, "of finite depth"),
    ],
)
def test_invalid_arguments_are_refused(change, error, message):
    arguments = {"kernel": fully_connected()[0], "x": X, "widths": [2, 4], "n_seeds": 2, **change}
    with pytest.raises(error, match=message):
        width_sweep(**arguments)


def test_networks_that_overflow_or_do_not_fit_are_refused(monkeypatch):
    attempt = functools.partial(width_sweep, lambda x: np.eye(2), network=dense, widths=[2, 4])
    with pytest.raises(FloatingPointError, match=r"width 2 must be finite.*normalize_blocks=True"):
        attempt(x=1e25 * X, n_seeds=2)
    monkeypatch.setattr(memory, "available", lambda device=None: 10)
    with pytest.raises(MemoryError, match=r"network of width 2.*smaller widths"):
        attempt(x=X, n_seeds=2)
