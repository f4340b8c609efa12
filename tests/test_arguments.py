"""One law for the arguments of all public functions.

A wrong type is a `TypeError`, a wrong value a `ValueError`, a bool is no number, a float no
integer; and each error names the argument.
"""

import functools
import inspect
import math
import types
import typing

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

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
from nt_residual import neural_tangents as nt
from nt_residual.experiments import depth_sweep, reproduce

SCHEDULE = schedules.PowerLaw(0.5)
KERNEL = rntk.ResidualKernel(2, SCHEDULE)
LIMIT = rntk.ResidualKernel(math.inf, SCHEDULE)
SPECTRUM = theory.spectrum(KERNEL, 3, 20)
X = np.eye(3, dtype=np.float32)
IMAGES = np.ones((2, 2, 2, 1), np.float32)
Y = np.arange(3.0)
LABELS = [0, 1]
BRANCH = nt.stax.Dense(3)
FLOW = regression.GradientFlow.fit(np.eye(3), Y)
WITH_RIDGE = regression.GradientFlow.fit(np.eye(3), Y, ridge=0.1)
POINTS = data.Dataset(np.ones((20, 2, 2, 1)), np.arange(20) % 2, np.ones((2, 2, 2, 1)), LABELS)
OF_IMAGES = conv.ResidualKernel(1, SCHEDULE, (2, 2))


def _product(x1, x2, get):
    return x1 @ x2.T


def _network(params, x):
    return x * params


@functools.wraps(regression.RNTKRegressor.__init__)
def _fit_regressor(**options):
    return regression.RNTKRegressor(**options).fit(X, Y)


@functools.wraps(regression.RNTKClassifier.__init__)
def _fit_classifier(**options):
    return regression.RNTKClassifier(**options).fit(X, [0, 0, 1])


# For each function, arguments that are right, all of which the law is checked on.
CALLS = {
    schedules.PowerLaw: {"gamma": 0.5},
    schedules.Constant: {},
    schedules.Explicit: {"alphas": [0.5, 0.5]},
    schedules.effective_time: {"schedule": SCHEDULE, "depth": 2},
    rntk.ResidualKernel: {"depth": 2, "schedule": SCHEDULE},
    KERNEL.at_depth: {"depth": 2},
    KERNEL.at_angle: {"theta": [0.5]},
    rntk.compile_homogeneous: {"kernel_fn": _product, "norm": 1.0, "dim": 3},
    rntk.recursive_kernel: {"x1": X, "schedule": np.ones(2)},
    rntk.angle: {"x1": X},
    rntk.power_series: {"kernel": KERNEL, "count": 2},
    rntk.block_sums: {"theta": [0.5], "schedule": SCHEDULE, "depth": 2},
    conv.ResidualKernel: {"depth": 1, "schedule": SCHEDULE, "image_shape": (2, 2)},
    OF_IMAGES.at_depth: {"depth": 1},
    OF_IMAGES.memory_estimate: {"n1": 2, "in_channels": 1},
    stax.FullyConnectedResNet: {"depth": 1, "width": 2},
    stax.ConvResNet: {"depth": 1, "channels": 2},
    stax.WideResNet: {"block_size": 1, "k": 1},
    stax.Residual: {"branch": BRANCH},
    stax.ResidualStack: {"branch": BRANCH, "alphas": [1.0]},
    theory.suitable_schedule: {},
    theory.regime: {"schedule": SCHEDULE},
    theory.rate: {"schedule": SCHEDULE},
    theory.convergence: {"schedule": SCHEDULE, "depths": [1, 2]},
    theory.spectrum: {"kernel": KERNEL, "dim": 3, "max_degree": 2},
    SPECTRUM.decay: {},
    theory.multiplicity: {"dim": 3, "degree": 2},
    theory.zonal_power: {"coefficients": {1: 1.0}, "dim": 3},
    theory.learning_curve: {"spectrum": SPECTRUM, "target": {1: 1.0}, "n": 10},
    theory.minimax_rate: {"dim": 3},
    theory.stopping_time: {"n": 10, "dim": 3},
    theory.stopping_scale: {"dim": 3, "noise": 1.0, "target_norm": 1.0, "prefactor": 1.0},
    gram.compute: {"kernel": KERNEL, "x1": X},
    gram.MatrixFree: {"kernel": KERNEL, "x1": X},
    gram.LowRank: {"kernel": KERNEL, "x": X, "landmarks": 2},
    gram.load: {"path": "folder"},
    regression.GradientFlow.fit: {"k_train": np.eye(3), "y": Y},
    FLOW.predict: {"k_test_train": np.eye(3), "t": 1.0},
    FLOW.solve: {"t": 1.0},
    FLOW.training_error: {"t": 1.0},
    FLOW.degrees_of_freedom: {"t": 1.0},
    FLOW.leave_one_out: {"t": 1.0},
    regression.ensemble_covariance: {
        "flow": FLOW,
        "k_test_train": np.eye(3),
        "t": 1.0,
        "nngp_test": np.ones(3),
        "nngp_test_train": np.eye(3),
        "nngp_train": np.eye(3),
    },
    regression.posterior_covariance: {
        "flow": WITH_RIDGE,
        "k_test_train": np.eye(3),
        "k_test": np.ones(3),
    },
    regression.log_marginal_likelihood: {"k_train": np.eye(3), "y": Y, "noise": 0.1},
    regression.holdout: {"flow": FLOW, "k_val_train": np.eye(3), "y_val": Y},
    regression.kfold: {"k_train": np.eye(3), "y": Y, "n_splits": 2},
    regression.generalized_cross_validation: {"flow": FLOW},
    regression.leave_one_out: {"flow": FLOW, "y": Y},
    regression.discrepancy: {"flow": FLOW, "noise": 0.1},
    regression.time_grid: {"flow": FLOW},
    regression.time_of_steps: {"steps": 1, "learning_rate": 1.0, "loss": "mse"},
    regression.steps_of_time: {"time": 1.0, "learning_rate": 1.0, "loss": "mse"},
    finite_width.train: {
        "network": (_network, jnp.ones(())),
        "x": X[:, :1],
        "y": X[:, :1],
        "steps": 1,
        "optimizer": optax.sgd(0.1),
    },
    finite_width.ResNet: {"depth": 1, "width": 2, "in_dim": 2, "rngs": nnx.Rngs(0)},
    finite_width.ConvResNet: {
        "depth": 1,
        "channels": 2,
        "image_shape": (2, 2),
        "in_channels": 1,
        "rngs": nnx.Rngs(0),
    },
    finite_width.scaled_residual: {"x": X, "branch": jnp.sin, "alpha": 1.0},
    finite_width.training_matches_flow: {
        "network": (_network, jnp.zeros(())),
        "x": X[:, :1],
        "y": X[:, :1],
        "x_test": X[:, :1],
        "times": [1.0],
        "kernel": KERNEL,
        "learning_rate": 0.1,
    },
    finite_width.width_sweep: {"kernel": KERNEL, "x": X, "widths": (1, 2), "n_seeds": 2},
    data.class_names: {"name": "digits"},
    data.load: {"name": "digits"},
    data.centered_one_hot: {"labels": LABELS, "n_classes": 2},
    data.signs: {"labels": LABELS, "n_classes": 2},
    data.standardize: {"x_train": X},
    data.unit_norm: {"x": X},
    data.zca: {"x_train": X},
    data.sphere.load: {"n_train": 2, "n_test": 2, "dim": 3, "coefficients": {1: 1.0}},
    data.sphere.uniform: {"n": 2, "dim": 3},
    data.sphere.zonal: {"x": X, "coefficients": {1: 1.0}},
    data.sphere.source: {"spectrum": SPECTRUM, "smoothness": 1.0},
    data.sphere.norm: {"coefficients": {1: 1.0}, "spectrum": SPECTRUM},
    _fit_regressor: {},
    _fit_classifier: {},
    depth_sweep.run: {"dataset": POINTS, "depths": [1], "gammas": [1.0], "steps": 1, "n_seeds": 1},
    reproduce.run: {"claims": ["slow_decay"]},
}
MODULES = (schedules, stax, rntk, conv, theory, gram, regression, finite_width, data)
# Users get these from functions.
MADE_BY_OTHERS = {
    rntk.HomogeneousKernel,
    theory.Convergence,
    theory.Decay,
    theory.LearningCurve,
    theory.Rate,
    theory.Regime,
    theory.Spectrum,
    gram.Sharded,
    gram.Stored,
    regression.GradientFlow,
    regression.Solution,
    finite_width.FlowMatch,
    finite_width.Frozen,
    finite_width.Trained,
    finite_width.TrainingDiverged,
}
# Values of arrays are not looked at.
ON_THE_DEVICE = {
    rntk.angle,
    finite_width.scaled_residual,
    regression.log_marginal_likelihood,
}
# By name where it is the same everywhere: a value that is out of range.
OUT_OF_RANGE = {"depth": 0, "dim": 1, "n_classes": 1, "n_splits": 1, "label_noise": 1.0}


def _parameters(function):
    """Return the hints of the parameters by name, of a class those of its constructor."""
    target = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(target)
    return {name: hints.get(name) for name in inspect.signature(target).parameters}


def _kinds(hint):
    """Return the members of a union, by name of types, and 'choice' for texts."""
    if "Array" in str(hint):  # Of numbers too, which have laws of their own.
        return {"other"}
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return set().union(*map(_kinds, typing.get_args(hint)))
    if typing.get_origin(hint) is typing.Literal or hint is str:
        return {"choice"}
    return {getattr(hint, "__name__", str(hint))}


def _cases(*wanted):
    for function, arguments in CALLS.items():
        for name, hint in _parameters(function).items():
            kinds = _kinds(hint) - {"NoneType"}
            if isinstance(arguments.get(name), np.ndarray):
                kinds = {"array"}
            if kinds and kinds <= set(wanted):
                label = getattr(function, "__qualname__", repr(function))
                yield pytest.param(function, arguments, name, kinds, id=f"{label}-{name}")


def _refused(error, function, arguments, name, value):
    with pytest.raises(error, match=rf"\b{name}\b"):
        function(**{**arguments, name: value})


@pytest.mark.parametrize(("function", "arguments", "name", "kinds"), list(_cases("int", "float")))
def test_a_number_is_a_number(function, arguments, name, kinds):
    for value in (True, np.True_, "1", 1j, *([2.0, np.float32(2)] if kinds == {"int"} else [])):
        _refused(TypeError, function, arguments, name, value)
    for value in (-(10**6), *([math.nan] if "float" in kinds else [])):
        _refused(ValueError, function, arguments, name, OUT_OF_RANGE.get(name, value))


@pytest.mark.parametrize(("function", "arguments", "name", "kinds"), list(_cases("bool")))
def test_a_boolean_is_true_or_false(function, arguments, name, kinds):
    for value in (1, 0.0, "yes"):
        _refused(TypeError, function, arguments, name, value)


@pytest.mark.parametrize(("function", "arguments", "name", "kinds"), list(_cases("choice")))
def test_a_choice_is_one_of_those_named(function, arguments, name, kinds):
    for value in (1, True):
        _refused(TypeError, function, arguments, name, value)
    _refused(ValueError, function, arguments, name, "neither")


@pytest.mark.parametrize(("function", "arguments", "name", "kinds"), list(_cases("array")))
def test_an_array_holds_finite_real_numbers(function, arguments, name, kinds):
    given = arguments[name].astype(np.float32)
    for value in (given + 1j, np.full(given.shape, "a")):
        _refused(TypeError, function, arguments, name, value)
    if function not in ON_THE_DEVICE:
        _refused(ValueError, function, arguments, name, np.full_like(given, math.nan))


def _public():
    for module in MODULES:
        for name in getattr(module, "__all__", None) or dir(module):
            found = getattr(module, name)
            if (
                name[0] != "_"
                and callable(found)
                and getattr(found, "__module__", "").startswith("nt_residual")
            ):
                yield f"{module.__name__}.{name}", found


def test_the_law_is_checked_on_every_public_function():
    missing = {
        name
        for name, function in _public()
        if function not in CALLS and function not in MADE_BY_OTHERS
        if any(
            _kinds(h) & {"int", "float", "bool", "choice"} for h in _parameters(function).values()
        )
    }
    assert not missing
