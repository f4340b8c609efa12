import importlib.util
import math
import sys

import jax
import joblib
import numpy as np
import pytest
import skops.io
from helpers import enable_x64, run_python
from sklearn import datasets
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from nt_residual import rntk, schedules, theory
from nt_residual.regression import (
    GradientFlow,
    RNTKClassifier,
    RNTKRegressor,
    ensemble_covariance,
    kernel_estimator,
    kernel_tiles,
    posterior_covariance,
    training_kernels,
)

STOPPING = ["auto", "holdout", "kfold", "gcv", "loo", "theory", 60.0]


@pytest.fixture
def points():
    """Inputs of training and test, and a function of their direction with noise and without."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((260, 3))
    truth = (x[:, 0] + x[:, 1] ** 2 / np.linalg.norm(x, axis=1)) / np.linalg.norm(x, axis=1)
    noisy = truth + 0.6 * rng.standard_normal(260)
    return x[:120], noisy[:120], x[120:], truth[120:]


def _labels(y, names=("low", "middle", "top")):
    """One class for each third or half of the range [−1, 1] of y."""
    return np.array(names)[np.digitize(y, np.linspace(-1, 1, len(names) + 1)[1:-1])]


@parametrize_with_checks([RNTKRegressor(), RNTKClassifier()])
# Those that are skipped need pandas, or SCIPY_ARRAY_API in the environment.
@pytest.mark.filterwarnings("default::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_finds_nothing_to_complain_about(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("outputs", "normalize", "bias"), [("vector", True, 0), ("matrix", False, 0.5)]
)
def test_predictions_are_those_of_the_flow_on_prepared_inputs(points, outputs, normalize, bias):
    x, y, new, _ = points
    y = np.stack([y, y**2], axis=1) if outputs == "matrix" else y
    model = RNTKRegressor(
        50, 0.5, 2.0, stopping=30.0, normalize_inputs=normalize, bias=bias, ridge=0.1
    )
    predicted = model.fit(x, y).predict(new)
    scale = np.sqrt(np.mean(np.sum((x - x.mean(axis=0)) ** 2, axis=1)))
    inputs = [(a - x.mean(axis=0)) / scale for a in (x, new)]
    if bias:
        inputs = [np.column_stack([a, np.full(len(a), bias)]) for a in inputs]
    if normalize:
        inputs = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in inputs]
    train, new = map(np.float32, inputs)
    kernel = rntk.ResidualKernel(50, schedules.PowerLaw(0.5, 2.0))
    flow = GradientFlow.fit(kernel(train), y - y.mean(axis=0), ridge=0.1)
    expected = y.mean(axis=0) + flow.predict(kernel(new, train), 30.0)
    np.testing.assert_allclose(predicted, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("stopping", STOPPING)
def test_every_rule_learns_from_noisy_data(points, stopping):
    x, y, new, truth = points
    model = RNTKRegressor(stopping=stopping, random_state=0).fit(x, y)
    error = np.mean((model.predict(new) - truth) ** 2)
    interpolant = RNTKRegressor(stopping=math.inf).fit(x, y)
    # The theory leaves a constant open.
    factor = 0.95 if stopping == "theory" else 0.7
    assert error < factor * np.mean((interpolant.predict(new) - truth) ** 2)
    assert error < 0.2 * np.var(truth)
    if stopping in ("theory", 60.0):
        assert model.stopping_ is None
        expected = theory.stopping_time(120, 3) if stopping == "theory" else 60.0
        assert model.stopping_time_ == expected
    else:
        assert model.stopping_time_ == model.stopping_.time
        assert len(model.stopping_.errors) == len(model.stopping_.times)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_with_all_rows_as_landmarks_predictions_are_those_of_the_matrix(points, dtype):
    x, y, new, _ = points
    options = {"depth": 10, "stopping": 60.0, "dtype": dtype}
    model = RNTKRegressor(**options, landmarks=120).fit(x, y)
    assert model.solver_ == "landmarks"
    assert model.x_train_.dtype == dtype
    expected = RNTKRegressor(**options).fit(x, y).predict(new)
    np.testing.assert_allclose(model.predict(new), expected, atol=1e-4)


@pytest.mark.parametrize("stopping", ["holdout", "gcv", "loo", "theory"])
def test_fewer_landmarks_learn_nearly_as_much(points, stopping):
    x, y, new, truth = points
    model = RNTKRegressor(10, stopping=stopping, landmarks=40, random_state=0).fit(x, y)
    assert model.x_train_.shape == (40, 4)
    assert np.mean((model.predict(new) - truth) ** 2) < 0.35 * np.var(truth)


def test_landmarks_are_taken_beyond_the_largest_matrix(points, monkeypatch):
    x, y, new, _ = points
    monkeypatch.setattr(kernel_estimator, "_LARGEST_MATRIX", 100)
    monkeypatch.setattr(kernel_estimator, "_LANDMARKS", 50)
    found = RNTKClassifier(10, random_state=0).fit(x, _labels(y))
    assert found.solver_ == "landmarks"
    assert found.predict_proba(new).shape == (140, 3)
    for whole in ({"landmarks": None}, {"solver": "eigh"}):
        assert RNTKRegressor(10, stopping=1.0, **whole).fit(x, y).solver_ == "eigh"
    with pytest.raises(ValueError, match="got solver='auto' and stopping='kfold'"):
        RNTKRegressor(10, stopping="kfold").fit(x, y)


def _by_hand(model, x, new):
    """The kernels of prepared inputs, for the oracles."""
    rows = (new - model.preparation_["mean"]) / model.preparation_["scale"]
    rows = np.append(rows, np.ones((len(rows), 1)), axis=1).astype(np.float32)
    return rows, model.x_train_


@pytest.mark.parametrize(("kind", "ridge", "time"), [("ntk", 0.0, 60.0), ("nngp", 0.1, math.inf)])
def test_standard_deviations_are_those_of_the_law_in_units_of_the_targets(
    points, kind, ridge, time
):
    x, y, new, _ = points
    model = RNTKRegressor(10, kind=kind, ridge=ridge, stopping=time).fit(x, 5 * y)
    rows, train = _by_hand(model, x, new)
    ntk, nngp = (
        rntk.ResidualKernel(10, schedules.PowerLaw(0.5), which) for which in (kind, "nngp")
    )
    flow = GradientFlow.fit(ntk(train), y, ridge=ridge)
    if kind == "nngp":
        expected = posterior_covariance(flow, nngp(rows, train), nngp(rows))
    else:
        kernels = {"nngp_test": nngp(rows), "nngp_test_train": nngp(rows, train)}
        expected = ensemble_covariance(
            flow, ntk(rows, train), time, **kernels, nngp_train=nngp(train)
        )
    expected = expected * np.var(5 * y)
    mean, covariance = model.predict(new, return_cov=True)
    np.testing.assert_array_equal(mean, model.predict(new))
    np.testing.assert_allclose(covariance, expected, atol=2e-4 * np.max(expected))
    deviation = model.predict(new, return_std=True)[1]
    np.testing.assert_allclose(deviation**2, np.diag(expected), atol=2e-4 * np.max(expected))
    samples = model.sample_y(new[:3], 4000)
    assert samples.shape == (3, 4000)
    # Five standard errors.
    np.testing.assert_allclose(np.cov(samples), covariance[:3, :3], atol=0.12 * np.max(covariance))
    np.testing.assert_allclose(samples.mean(axis=1), mean[:3], atol=0.08 * deviation.max())


def test_standard_deviations_of_several_outputs_have_their_units(points):
    x, y, new, _ = points
    model = RNTKRegressor(10, stopping=9.0).fit(x, np.stack([y, 10 * y], axis=1))
    _, deviation = model.predict(new, return_std=True)
    assert deviation.shape == (140, 2)
    np.testing.assert_allclose(deviation[:, 1], 10 * deviation[:, 0], rtol=1e-6)
    assert model.predict(new[:5], return_cov=True)[1].shape == (5, 5, 2)
    assert model.sample_y(new[:5], 7).shape == (5, 2, 7)
    with pytest.raises(ValueError, match="cannot both be True"):
        model.predict(new, return_std=True, return_cov=True)


@pytest.mark.parametrize(("kind", "ridge"), [("ntk", 0.0), ("nngp", 0.1)])
def test_with_landmarks_standard_deviations_are_those_of_the_matrix_and_more(points, kind, ridge):
    x, y, new, _ = points
    options = {"depth": 10, "kind": kind, "ridge": ridge, "stopping": math.inf if ridge else 60.0}
    _, expected = RNTKRegressor(**options).fit(x, y).predict(new, return_std=True)
    found = []
    for landmarks in (120, 60):
        model = RNTKRegressor(**options, landmarks=landmarks).fit(x, y)
        found.append(model.predict(new, return_std=True)[1])
    np.testing.assert_allclose(found[0], expected, atol=2e-3 * np.max(expected))
    assert np.all(found[1] > 0.9 * expected)
    assert np.mean(found[1]) > 1.01 * np.mean(expected)
    model.x_all_ = None
    model.predict(new)
    with pytest.raises(ValueError, match="x_all_ must hold all training inputs"):
        model.predict(new, return_std=True)


def test_the_same_fraction_of_each_class_is_held_out():
    strata = np.repeat([0, 1, 2], [50, 20, 5])
    train, held_out = kernel_estimator._split(75, 0.2, np.random.RandomState(0), strata)
    assert np.bincount(strata[held_out]).tolist() == [10, 4, 1]
    assert sorted([*train, *held_out]) == list(range(75))
    other = kernel_estimator._split(75, 0.2, np.random.RandomState(1), strata)[1]
    assert set(other) != set(held_out)
    for n, fraction in ((2, 0.01), (2, 0.99), (3, 0.5)):
        train, held_out = kernel_estimator._split(n, fraction, np.random.RandomState(0), None)
        assert len(train) >= 1
        assert len(held_out) >= 1


@pytest.mark.parametrize(("dtype", "features"), [("float32", 3), ("float64", 8)])
def test_the_matrix_in_tiles_is_that_of_the_kernel(dtype, features):
    x = np.random.default_rng(0).standard_normal((300, features))
    x[1], x[2], x[299] = -x[0], x[0] * (1 + 1e-6 * x[3]), x[0]
    x = x.astype(dtype)
    kernel = rntk.ResidualKernel(1000, schedules.PowerLaw(0.5))
    matrix = kernel_tiles.matrix(kernel, x)
    assert matrix.dtype == dtype
    np.testing.assert_array_equal(matrix, matrix.T)
    with enable_x64(dtype == "float64"):
        expected = np.asarray(kernel(x))
    scale = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(x, axis=1)
    # Twice what each of them may be off.
    assert np.max(np.abs(matrix - expected) / scale) < {"float32": 4e-6, "float64": 4e-10}[dtype]
    np.testing.assert_allclose(np.diag(matrix), np.diag(expected), rtol=3 * np.finfo(dtype).eps)


def test_one_program_serves_every_number_of_rows_and_every_depth(points, caplog):
    x, y, new, _ = points
    RNTKRegressor(stopping=1.0).fit(x, y).predict(new)
    big = np.random.default_rng(0).standard_normal((300, 3))
    caplog.clear()
    with jax.log_compiles():
        RNTKRegressor(stopping=1.0).fit(x[:50], y[:50]).predict(new[:25])
        RNTKRegressor(100, stopping=1.0).fit(big, big[:, 0]).predict(big)
        assert not caplog.records
        # What would be seen.
        RNTKRegressor(stopping=1.0, solver="lanczos").fit(x[:51], y[:51])
        assert any("Compiling" in record.getMessage() for record in caplog.records)


def test_a_prediction_does_not_depend_on_the_other_rows(points):
    x, y, new, _ = points
    x, y = np.tile(x, (3, 1)) + 1e-3 * np.random.default_rng(1).standard_normal((360, 3)), [*y] * 3
    model = RNTKRegressor(stopping=1000.0).fit(x, y)
    together = model.predict(np.concatenate([x, new]))
    one_by_one = np.concatenate([model.predict(row[None]) for row in [*x[:20], *new[:20]]])
    np.testing.assert_allclose(
        one_by_one, together[[*range(20), *range(360, 380)]], rtol=1e-12, atol=1e-12
    )


def _scaled(estimator):
    return make_pipeline(StandardScaler(), estimator)


@pytest.mark.parametrize(
    ("least", "points"),
    [
        (0.92, datasets.make_circles(200, noise=0.15, factor=0.5, random_state=0)),
        (0.94, datasets.load_iris(return_X_y=True)),
    ],
    ids=["circles", "iris"],
)
def test_the_default_classifier_is_as_good_as_a_support_vector_machine(least, points):
    ours, theirs = (
        np.mean(cross_val_score(_scaled(estimator), *points, cv=5))
        for estimator in (RNTKClassifier(), SVC())
    )
    assert ours >= max(least, theirs - 0.03)


def test_the_default_regressor_learns_odd_functions_and_functions_of_one_feature():
    rng = np.random.default_rng(0)
    x, line = rng.standard_normal((300, 3)), rng.uniform(-3, 3, (100, 1))
    odd = (x[:, 0] / np.linalg.norm(x, axis=1)) ** 3
    wave = np.sin(line[:, 0]) + 0.1 * rng.standard_normal(100)
    folds = KFold(5, shuffle=True, random_state=0)
    for least, inputs, y in ((0.985, x, odd), (0.95, line, wave)):
        scores = cross_val_score(_scaled(RNTKRegressor()), inputs, y, cv=folds)
        assert np.mean(scores) >= least


@pytest.mark.parametrize("exponent", [-100, 100])
def test_units_of_inputs_and_targets_do_not_matter(points, exponent):
    x, y, new, _ = points
    scale = 10.0**exponent
    expected = RNTKRegressor().fit(x, y).predict(new)
    for a, b in ((scale, 1), (1, scale)):
        predicted = RNTKRegressor().fit(a * x, b * y).predict(a * new) / b
        np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-3)


def test_one_is_left_out_of_few_rows_and_a_part_held_out_of_many(points):
    x, y, *_ = points
    loo, auto = (RNTKRegressor(stopping=s).fit(x, y).stopping_time_ for s in ("loo", "auto"))
    assert loo == auto
    x = np.random.default_rng(0).standard_normal((501, 3))
    y = x[:, 0] + 0.1 * x[:, 1]
    first, second = (
        RNTKRegressor(stopping=s, random_state=0).fit(x, y) for s in ("holdout", "auto")
    )
    assert first.stopping_time_ == second.stopping_time_
    assert RNTKRegressor(solver="lanczos").fit(x[:100], y[:100]).solver_ == "lanczos"


# Rows without direction, and columns without information.


def test_without_bias_a_row_equal_to_the_mean_is_refused(points):
    x, y, *_ = points
    model = RNTKRegressor(stopping=10.0, bias=0).fit(x, y)
    with pytest.raises(ValueError, match=r"X must have rows that differ from their mean.*index 1"):
        model.predict([x[0], x.mean(axis=0)])
    with pytest.raises(ValueError, match=r"rows that differ from zero.*Pass bias=1.0, .*or remove"):
        RNTKRegressor(center=False, bias=0).fit(np.eye(3)[[0, 0, 1]] * [1, 0, 0], np.arange(3.0))
    # All rows are alike, whatever rounding says.
    with pytest.raises(ValueError, match=r"got 20000 that do not"):
        RNTKRegressor(bias=0).fit(np.full((20000, 2), 0.1), np.arange(20000.0))
    alike = RNTKRegressor().fit(np.full((5, 2), 0.1), np.arange(5.0))
    np.testing.assert_allclose(alike.predict(np.full((2, 2), 0.1)), 2.0)


def test_with_bias_a_row_equal_to_the_mean_is_a_row_like_any_other(points):
    x, y, *_ = points
    x, y = np.concatenate([x, x.mean(axis=0, keepdims=True)]), np.append(y, 5.0)
    model = RNTKRegressor(stopping=math.inf, dtype="float64").fit(x, y)
    assert model.x_train_.dtype == np.float64
    np.testing.assert_allclose(model.predict(x), y, atol=1e-6)


@pytest.mark.parametrize("names", [["low", "middle", "top"], [7, 3], [False, True]], ids=str)
def test_labels_of_any_kind_are_learned(points, names):
    x, _, new, _ = points
    labels, expected = (_labels(a[:, 0] / np.linalg.norm(a, axis=1), names) for a in (x, new))
    model = RNTKClassifier(random_state=0).fit(x, labels)
    assert model.predict(new).dtype == labels.dtype
    assert model.score(new, expected) > 0.8
    np.testing.assert_array_equal(model.classes_, np.unique(labels))


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_those_closest_to_the_outputs(points, classes):
    x, y, new, _ = points
    labels = _labels(y, ["low", "middle", "top"][:classes])
    model = RNTKClassifier(stopping=math.inf).fit(x, labels)
    outputs, p = model._estimate(new), model.predict_proba(new)
    np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-9)
    assert np.any(outputs < 0)
    assert np.all(p >= 0)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    # The projection q of s is the point of the simplex with (s − q)·(v − q) ≤ 0 for all corners v.
    for corner in np.eye(classes):
        assert np.max(np.sum((outputs - p) * (corner - p), axis=1)) < 1e-12
    np.testing.assert_array_equal(model.predict(new), model.classes_[p.argmax(axis=1)])
    if classes == 2:
        np.testing.assert_allclose(model.decision_function(new), outputs[:, 1] - outputs[:, 0])
    else:
        np.testing.assert_array_equal(model.decision_function(new), outputs)


def test_probabilities_are_close_to_the_frequencies_of_classes_that_overlap():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((800, 2))
    truth = 0.5 + 0.4 * np.sin(np.arctan2(x[:, 1], x[:, 0]))
    labels = rng.uniform(size=800) < truth
    model = RNTKClassifier(stopping="loo").fit(x[:600], labels[:600])
    assert np.mean(np.abs(model.predict_proba(x[600:])[:, 1] - truth[600:])) < 0.08


PREFIX = "nt_residual.regression."
TRUSTED = [
    [PREFIX + "estimators.RNTKRegressor", PREFIX + "stopping.Stopping"],
    [PREFIX + "estimators.RNTKClassifier"],
]


def test_models_saved_and_loaded_in_another_process_predict_the_same(points, tmp_path):
    x, y, new, _ = points
    models = [RNTKRegressor(), RNTKClassifier(math.inf, stopping=5.0, dtype="float64")]
    models[0].fit(x, np.stack([y, -y], axis=1))
    models[1].fit(x, _labels(y))
    expected = [models[0].predict(new), models[1].predict_proba(new)]
    joblib.dump((models, new), tmp_path / "models.joblib")
    for i, model in enumerate(models):
        skops.io.dump(model, tmp_path / f"{i}.skops")
        assert skops.io.get_untrusted_types(file=tmp_path / f"{i}.skops") == TRUSTED[i]
    done = run_python(f"""
import os, joblib, numpy as np, skops.io
os.chdir({str(tmp_path)!r})
models, new = joblib.load("models.joblib")
others = [skops.io.load(f"{{i}}.skops", trusted={TRUSTED}[i]) for i in range(2)]
for name, (regressor, classifier) in (("joblib", models), ("skops", others)):
    np.save(name + "0.npy", regressor.predict(new))
    np.save(name + "1.npy", classifier.predict_proba(new))
""")
    assert done.returncode == 0, done.stderr
    for name in ("joblib0", "joblib1", "skops0", "skops1"):
        found = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(found, expected[int(name[-1])], rtol=1e-9, atol=1e-12)


def test_parameters_set_after_the_fit_do_not_change_predictions(points):
    x, y, new, _ = points
    model = RNTKRegressor(stopping=5.0).fit(x, y)
    expected = model.predict(new)
    model.set_params(depth=3, bias=0.0, normalize_inputs=True, dtype="float64")
    np.testing.assert_array_equal(model.predict(new), expected)


# Bad input.


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"stopping": "early"}, ValueError, r"stopping must be one of .*got 'early'"),
        ({"stopping": -1.0}, ValueError, r"stopping must be one of .* or a time ≥ 0.*got -1.0"),
        ({"stopping": None}, TypeError, "stopping must be one of .*got None"),
        ({"stopping": "gcv", "solver": "lanczos"}, ValueError, "Pass solver='eigh'"),
        ({"random_state": "a"}, ValueError, "cannot be used to seed"),
    ],
)
def test_a_parameter_out_of_range_is_refused_at_fit(parameters, error, message):
    x = np.random.default_rng(0).standard_normal((20, 3))
    model = clone(RNTKRegressor(**parameters))
    with pytest.raises(error, match=message):
        model.fit(x, x[:, 0])


def test_labels_of_one_class_are_refused():
    x = np.random.default_rng(0).standard_normal((5, 2))
    with pytest.raises(ValueError, match=r"y must hold at least two classes, got one class, .*'a'"):
        RNTKClassifier().fit(x, ["a"] * 5)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        RNTKClassifier().fit(x, x[:, 0])


def test_lengths_that_the_dtype_cannot_hold_are_refused_unless_they_do_not_matter():
    x = np.random.default_rng(0).standard_normal((20, 3))
    model = RNTKRegressor(stopping=1.0).fit(x, x[:, 0])
    with pytest.raises(ValueError, match=r"X must have rows whose squared lengths.*normalize_inp"):
        model.predict(1e30 * x)
    model = RNTKRegressor(stopping=1.0, normalize_inputs=True).fit(x, x[:, 0])
    assert np.isfinite(model.predict(1e30 * x)).all()


def test_too_many_rows_for_the_memory_are_refused_with_remedies_that_estimators_have(
    points, monkeypatch
):
    x, y, *_ = points
    monkeypatch.setattr(training_kernels.memory, "available", lambda *_: 1000)
    with pytest.raises(MemoryError, match=r"Pass landmarks=4000, or train on fewer rows"):
        RNTKRegressor(landmarks=None).fit(x, y)


def test_a_time_at_which_lanczos_does_not_converge_is_reported(points, monkeypatch):
    x, y, *_ = points
    fit = GradientFlow.fit
    monkeypatch.setattr(GradientFlow, "fit", lambda *a, **k: fit(*a, **k, max_iterations=3))
    with pytest.warns(ConvergenceWarning):
        RNTKRegressor(solver="lanczos", stopping=1e6).fit(x, y)


def test_without_scikit_learn_an_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    spec = importlib.util.find_spec("nt_residual.regression.kernel_estimator")
    module = importlib.util.module_from_spec(spec)
    with pytest.raises(ImportError, match=r"need scikit-learn 1\.6.*the extra 'estimators'"):
        spec.loader.exec_module(module)
