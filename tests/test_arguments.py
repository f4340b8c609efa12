"""Arguments of public functions: integers, numbers, booleans and choices.

One law: a wrong type is a `TypeError`, a wrong value a `ValueError`, a bool is no number, a float
no integer; and each error names the argument.
"""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nt_residual import (
    conv,
    data,
    finite_width,
    gram,
    regression,
    rntk,
    schedules,
    stax,
    theory,
)
from nt_residual.experiments import (
    classification,
    constant_alpha,
    depth_sweep,
    parity,
    reproduce,
)

SCHEDULE = schedules.PowerLaw(0.5)
KERNEL = rntk.ResidualKernel(math.inf, schedules.PowerLaw(1.0))
SPECTRUM = theory.spectrum(KERNEL, 3, 20)
X = np.eye(3, dtype=np.float32)
LABELS = np.array([0, 1])
FLOW = regression.GradientFlow.fit(np.eye(3), np.ones(3))


def _dot(x1, x2, get):
    return x1 @ x2.T


def _residual(**options):
    return rntk.ResidualKernel(2, SCHEDULE, **options)


def _recursion(**options):
    return rntk.recursive_kernel(X, schedule=np.ones(2), **options)


def _degenerate(depths=(1, 2), **options):
    return constant_alpha.run(depths, **{"n_train": 5, "n_seeds": 1, **options})


def _sphere(**options):
    given = {"n_train": 2, "n_test": 2, "dim": 3, "coefficients": {1: 1.0}}
    return data.sphere.load(**(given | options))


def _conv(depth=1, image_shape=(2, 2), **options):
    return conv.ResidualKernel(depth, SCHEDULE, image_shape, **options)


def _gram(function, *more, **options):
    return function(KERNEL, X, *more, **options)


def _fit(**options):
    return regression.GradientFlow.fit(np.eye(3), np.ones(3), **options)


def _time(**options):
    return regression.time_of_steps(1, **{"learning_rate": 1.0, "loss": "mse", **options})


def _network(params, x):
    return x * params


def _train(**options):
    return finite_width.train(
        (_network, jnp.ones(())),
        X[:, :1],
        X[:, :1],
        **{"steps": 1, "optimizer": optax.sgd(0.1), **options},
    )


def _width_sweep(widths=(1, 2), n_seeds=2, **options):
    return finite_width.width_sweep(KERNEL, X, widths, n_seeds, **options)


def _flow_match(**options):
    return finite_width.training_matches_flow(_network, X, X, X, [1.0], **options)


def _depth_sweep(**options):
    points = data.Dataset(np.ones((20, 2, 2)), np.arange(20) % 2, np.ones((2, 2, 2)), LABELS)
    return depth_sweep.run(points, **{"depths": [1], "gammas": [1.0], **options})


# A function of each argument's value, the name of the argument, and a value that is out of range.
INTEGERS = [
    (lambda v: SCHEDULE(v), "depth", 0),
    (lambda v: schedules.Explicit([1.0])(v), "depth", 0),
    (lambda v: rntk.ResidualKernel(v, SCHEDULE), "depth", 0),
    (lambda v: rntk.ResidualKernel(2, SCHEDULE).at_depth(v), "depth", 0),
    (lambda v: rntk.power_series(KERNEL, v), "count", 0),
    (lambda v: rntk.compile_homogeneous(_dot, dim=v), "dim", 1),
    (lambda v: theory.convergence(SCHEDULE, [v, 10]), "depths", 0),
    (lambda v: theory.spectrum(KERNEL, v, 2), "dim", 1),
    (lambda v: theory.spectrum(KERNEL, 3, v), "max_degree", -1),
    (lambda v: theory.multiplicity(v, 2), "dim", 1),
    (lambda v: theory.multiplicity(3, v), "degree", -1),
    (lambda v: theory.zonal_power({1: 1.0}, v), "dim", 1),
    (lambda v: theory.zonal_power({v: 1.0}, 3), "degree", -1),
    (lambda v: theory.learning_curve(SPECTRUM, {v: 1.0}, 10), "degree", -1),
    (lambda v: theory.minimax_rate(v), "dim", 1),
    (lambda v: theory.stopping_time(10, v), "dim", 1),
    (lambda v: theory.stopping_scale(v, noise=1, target_norm=1, prefactor=1), "dim", 1),
    (lambda v: data.centered_one_hot(LABELS, v), "n_classes", 1),
    (lambda v: data.signs(LABELS, v), "n_classes", 1),
    (lambda v: data.load("digits", v), "n_train", -1),
    (lambda v: data.load("digits", n_test=v), "n_test", -1),
    (lambda v: data.load("digits", seed=v), "seed", -1),
    (lambda v: data.sphere.uniform(v, 3), "n", 0),
    (lambda v: data.sphere.uniform(3, v), "dim", 1),
    (lambda v: data.sphere.zonal(X, {v: 1.0}), "degree", -1),
    (lambda v: data.sphere.norm({v: 1.0}, SPECTRUM), "degree", -1),
    (lambda v: _sphere(n_train=v), "n_train", 0),
    (lambda v: _sphere(n_test=v), "n_test", 0),
    (lambda v: _sphere(dim=v), "dim", 1),
    (lambda v: _sphere(seed=v), "seed", -1),
    (lambda v: _degenerate([v, 20]), "depths", 0),
    (lambda v: _degenerate(n_seeds=v), "n_seeds", 0),
    (lambda v: _degenerate(n_train=v), "n_train", 0),
    (lambda v: parity.run([8], n_seeds=v), "n_seeds", 0),
    (lambda v: parity.run([8], n_test=v), "n_test", 0),
    (lambda v: _conv(v), "depth", 0),
    (lambda v: _conv((1, v)), "depth", 0),
    (lambda v: _conv(image_shape=(v, 2)), "image_shape", 0),
    (lambda v: _conv(filter_shape=(v, 3)), "filter_shape", 0),
    (lambda v: _conv(channels=v), "channels", 0),
    (lambda v: _gram(gram.compute, tile_size=v), "tile_size", 0),
    (lambda v: _gram(gram.MatrixFree, tile_size=v), "tile_size", 0),
    (lambda v: _fit(max_iterations=v), "max_iterations", 0),
    (lambda v: regression.time_grid(FLOW, v), "count", 0),
    (lambda v: regression.kfold(np.eye(3), np.ones(3), v), "n_splits", 1),
    (lambda v: regression.kfold(np.eye(3), np.ones(3), 3, seed=v), "seed", -1),
    (lambda v: _time(n_outputs=v), "n_outputs", 0),
    (lambda v: _train(steps=v), "steps", 0),
    (lambda v: _train(batch_size=v), "batch_size", 0),
    (lambda v: _train(evaluate_every=v), "evaluate_every", 0),
    (lambda v: _train(seed=v), "seed", -1),
    (lambda v: _width_sweep([v, 4]), "widths", 0),
    (lambda v: _width_sweep(n_seeds=v), "n_seeds", 1),
    (lambda v: _width_sweep(seed=v), "seed", -1),
    (lambda v: _depth_sweep(depths=[v]), "depths", 0),
    (lambda v: _depth_sweep(width=v), "width", 0),
    (lambda v: _depth_sweep(n_seeds=v), "n_seeds", 0),
    (lambda v: _depth_sweep(steps=v), "steps", 0),
    (lambda v: stax.FullyConnectedResNet(v, 2), "depth", 0),
    (lambda v: stax.FullyConnectedResNet(1, v), "width", 0),
    (lambda v: stax.ConvResNet(v, 2), "depth", 0),
    (lambda v: stax.ConvResNet(1, v), "channels", 0),
]
NUMBERS = [
    (lambda v: schedules.PowerLaw(v), "gamma", -1.0),
    (lambda v: schedules.PowerLaw(0.5, v), "c", 0.0),
    (lambda v: schedules.Constant(v), "c", 0.0),
    (lambda v: rntk.ResidualKernel(math.inf, SCHEDULE, effective_time=v), "effective_time", -1.0),
    (lambda v: _residual(effective_time=v), "effective_time", -1.0),
    (lambda v: rntk.compile_homogeneous(_dot, tol=v), "tol", 0.0),
    (lambda v: rntk.compile_homogeneous(_dot, norm=v, dim=3), "norm", 0.0),
    (lambda v: theory.regime(SCHEDULE, effective_time=v), "effective_time", -1.0),
    (lambda v: theory.convergence(SCHEDULE, [1, 2], effective_time=v), "effective_time", -1.0),
    (lambda v: theory.stopping_time(10, 3, scale=v), "scale", 0.0),
    (lambda v: theory.stopping_scale(3, noise=v, target_norm=1, prefactor=1), "noise", 0.0),
    (lambda v: theory.stopping_scale(3, noise=1, target_norm=v, prefactor=1), "target_norm", 0.0),
    (lambda v: theory.stopping_scale(3, noise=1, target_norm=1, prefactor=v), "prefactor", 0.0),
    (lambda v: theory.learning_curve(SPECTRUM, {1: 1.0}, 10, noise=v), "noise", -1.0),
    (lambda v: theory.learning_curve(SPECTRUM, {1: 1.0}, 10, ridge=v), "ridge", -1.0),
    (lambda v: theory.zonal_power({1: v}, 3), "a_1", math.nan),
    (lambda v: data.zca(X, regularization=v), "regularization", 0.0),
    (lambda v: data.sphere.source(SPECTRUM, v), "smoothness", -1.0),
    (lambda v: data.sphere.norm({1: 1.0}, SPECTRUM, v), "smoothness", -1.0),
    (lambda v: _sphere(noise=v), "noise", -1.0),
    (lambda v: classification.run(label_noise=v), "label_noise", 1.0),
    (lambda v: _fit(ridge=v), "ridge", -1.0),
    (lambda v: _fit(tol=v), "tol", 0.0),
    (lambda v: regression.discrepancy(FLOW, v), "noise", -1.0),
    (lambda v: _time(learning_rate=v), "learning_rate", 0.0),
]
BOOLEANS = [
    (lambda v: _residual(normalize=v), "normalize"),
    (lambda v: _recursion(normalize=v), "normalize"),
    (lambda v: theory.suitable_schedule(odd_harmonics=v), "odd_harmonics"),
    (lambda v: _conv(normalize=v), "normalize"),
    (lambda v: _fit(progress=v), "progress"),
    (lambda v: FLOW.predict(np.eye(3), 1.0, progress=v), "progress"),
    (lambda v: _train(progress=v), "progress"),
    (lambda v: _width_sweep(progress=v), "progress"),
    (lambda v: _flow_match(progress=v), "progress"),
]
CHOICES = [
    (lambda v: _residual(kind=v), "kind"),
    (lambda v: _residual(trained=v), "trained"),
    (lambda v: _recursion(kind=v), "kind"),
    (lambda v: _recursion(trained=v), "trained"),
    (lambda v: rntk.compile_homogeneous(_dot, get=v), "get"),
    (lambda v: theory.regime(SCHEDULE, trained=v), "trained"),
    (lambda v: theory.rate(SCHEDULE, kind=v), "kind"),
    (lambda v: theory.rate(SCHEDULE, trained=v), "trained"),
    (lambda v: theory.convergence(SCHEDULE, [1, 2], kind=v), "kind"),
    (lambda v: theory.suitable_schedule(trained=v), "trained"),
    (lambda v: SPECTRUM.decay(v), "parity"),
    (lambda v: data.load(v), "name"),
    (lambda v: data.standardize(X, per=v), "per"),
    (lambda v: reproduce.run([v]), "claims"),
    (lambda v: reproduce.run(setting=v), "setting"),
    (lambda v: reproduce.run(dataset=v), "dataset"),
    (lambda v: _conv(kind=v), "kind"),
    (lambda v: _conv(pooling=v), "pooling"),
    (lambda v: _conv(block=v), "block"),
    (lambda v: _conv(padding=v), "padding"),
    (lambda v: _fit(solver=v), "solver"),
    (lambda v: _time(loss=v), "loss"),
    (lambda v: _train(loss=v), "loss"),
    (lambda v: _depth_sweep(architecture=v), "architecture"),
    (lambda v: stax.FullyConnectedResNet(1, 2, trained=v), "trained"),
    (lambda v: stax.FullyConnectedResNet(1, 2, block=v), "block"),
    (lambda v: stax.ConvResNet(1, 2, pooling=v), "pooling"),
]


def _cases(rows):
    return [pytest.param(*row, id=f"{i}-{row[1]}") for i, row in enumerate(rows)]


@pytest.mark.parametrize(("call", "name", "wrong"), _cases(INTEGERS))
def test_an_integer_is_an_integer(call, name, wrong):
    for value in (True, np.True_, 2.0, np.float32(2), "2"):
        with pytest.raises(TypeError, match=rf"\b{name}\b.* must be an integer, got"):
            call(value)
    with pytest.raises(ValueError, match=rf"\b{name}\b.* must be"):
        call(wrong)


@pytest.mark.parametrize(("call", "name", "wrong"), _cases(NUMBERS))
def test_a_number_is_a_number(call, name, wrong):
    for value in (True, np.True_, "1", 1j):
        with pytest.raises(TypeError, match=rf"\b{name}\b.* must be a real number, got"):
            call(value)
    for value in (wrong, math.nan):
        with pytest.raises(ValueError, match=rf"\b{name}\b.* must be"):
            call(value)


@pytest.mark.parametrize(("call", "name"), _cases(BOOLEANS))
def test_a_boolean_is_true_or_false(call, name):
    for value in (1, 0.0, "yes", None):
        with pytest.raises(TypeError, match=f"{name} must be True or False, got"):
            call(value)


@pytest.mark.parametrize(("call", "name"), _cases(CHOICES))
def test_a_choice_is_one_of_those_named(call, name):
    for value in (1, True):
        with pytest.raises(TypeError, match=rf"\b{name}\b`? must be '"):
            call(value)
    with pytest.raises(ValueError, match=rf"\b{name}\b`? must be '.*, got 'neither'"):
        call("neither")


@pytest.mark.parametrize(
    ("call", "name"),
    [(lambda v: data.load("mnist", root=v), "root"), (lambda v: _train(out=v), "out")],
)
def test_a_path_is_a_string_or_a_path(call, name):
    for value in (1, True, b"folder"):
        with pytest.raises(TypeError, match=f"{name} must be a path, got"):
            call(value)
