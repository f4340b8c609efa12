import importlib.util
import math
import pickle
import sys

import joblib
import numpy as np
import pytest
from helpers import run_python
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from nt_residual import data, rntk, schedules, theory
from nt_residual.regression import GradientFlow, angles, kernel_estimator
from nt_residual.regression.estimators import RNTKClassifier, RNTKRegressor

STOPPING = ["holdout", "kfold", "gcv", "loo", "theory", 20.0]
BOTH = [RNTKRegressor, RNTKClassifier]


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    """A cache of angles of the test's own."""
    monkeypatch.setattr(angles, "CACHE", angles.Cache(limit=2**28))
    return angles.CACHE


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


# What is computed.


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("outputs", ["vector", "matrix"])
def test_predictions_are_those_of_the_flow_on_prepared_inputs(points, outputs, normalize):
    x, y, new, _ = points
    y = np.stack([y, y**2], axis=1) if outputs == "matrix" else y
    model = RNTKRegressor(50, 0.5, 2.0, stopping=30.0, normalize_inputs=normalize, ridge=0.1)
    predicted = model.fit(x, y).predict(new)
    centred, new = x - x.mean(axis=0), new - x.mean(axis=0)
    if normalize:
        centred, new = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (centred, new))
    kernel = rntk.ResidualKernel(50, schedules.PowerLaw(0.5, 2.0))
    centred, new = np.float32(centred), np.float32(new)
    flow = GradientFlow.fit(kernel(centred), y - y.mean(axis=0), ridge=0.1)
    expected = y.mean(axis=0) + flow.predict(kernel(new, centred), 30.0)
    np.testing.assert_allclose(predicted, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("stopping", STOPPING)
def test_every_rule_learns_from_noisy_data(points, stopping):
    x, y, new, truth = points
    model = RNTKRegressor(stopping=stopping, random_state=0).fit(x, y)
    error = np.mean((model.predict(new) - truth) ** 2)
    interpolant = RNTKRegressor(stopping=math.inf).fit(x, y)
    assert error < 0.7 * np.mean((interpolant.predict(new) - truth) ** 2)
    assert error < 0.2 * np.var(truth)
    if stopping in ("theory", 20.0):
        assert model.stopping_ is None
        expected = theory.stopping_time(120, 3) if stopping == "theory" else 20.0
        assert model.stopping_time_ == expected
    else:
        assert model.stopping_time_ == model.stopping_.time
        assert len(model.stopping_.errors) == len(model.stopping_.times)


def test_what_is_held_out_chooses_the_time_and_then_is_trained_on(points):
    x, y, new, _ = points
    model = RNTKRegressor(random_state=0).fit(x, y)
    again = RNTKRegressor(stopping=model.stopping_time_).fit(x, y)
    np.testing.assert_array_equal(model.predict(new), again.predict(new))
    assert len(model.dual_coef_) == 120


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


def test_interpolation_in_float64_reproduces_the_targets(points):
    x, y, *_ = points
    model = RNTKRegressor(stopping=math.inf, dtype="float64").fit(x, y)
    assert model.x_train_.dtype == np.float64
    np.testing.assert_allclose(model.predict(x), y, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_more_than_the_cache_holds_is_computed_in_tiles(points, dtype, cache):
    x, y, new, _ = points
    models = []
    for limit in (2**28, 0):
        cache.limit = limit
        model = RNTKRegressor(stopping="kfold", ridge=0.1, dtype=dtype, random_state=0)
        models.append(model.fit(x, y).predict(new))
    computed = cache.computed
    RNTKRegressor(stopping="holdout", random_state=0).fit(x, y)
    assert cache.computed == computed
    matrix = np.asarray(kernel_estimator._Blocks(model.kernel_, model.x_train_).whole())
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose(*models, atol={"float32": 1e-3, "float64": 1e-8}[dtype])


def test_lanczos_gives_the_same_as_eigh(points):
    x, y, new, _ = points
    first, second = (
        RNTKRegressor(solver=solver, stopping=20.0).fit(x, y) for solver in ("eigh", "lanczos")
    )
    assert (first.solver_, second.solver_) == ("eigh", "lanczos")
    np.testing.assert_allclose(second.predict(new), first.predict(new), atol=1e-3)


# Rows without direction.


@pytest.mark.parametrize("normalize", [True, False])
def test_a_row_equal_to_the_mean_is_predicted_to_have_the_mean_target(points, normalize):
    x, y, new, _ = points
    x = np.concatenate([x, x.mean(axis=0, keepdims=True)])
    y = np.append(y, 5.0)
    model = RNTKRegressor(stopping=10.0, normalize_inputs=normalize).fit(x, y)
    assert len(model.x_train_) == 120
    mean = np.concatenate([new[:1], x.mean(axis=0, keepdims=True)])
    np.testing.assert_allclose(model.predict(mean)[1], y.mean())
    assert abs(model.predict(mean)[0] - y.mean()) > 0.01
    np.testing.assert_allclose(model.predict(mean[1:]), [y.mean()])


@pytest.mark.parametrize("center", [True, False])
def test_inputs_none_of_which_has_a_direction_are_refused(center):
    x = np.full((5, 2), 0.1 if center else 0.0)
    with pytest.raises(ValueError, match=r"X must have rows that differ from .*got 5 samples"):
        RNTKRegressor(center=center).fit(x, np.arange(5.0))
    one = np.concatenate([x, x + 1])[4:6] if not center else None
    if one is not None:
        with pytest.raises(ValueError, match="needs at least 2 rows of X to divide, got 1"):
            RNTKRegressor(center=False).fit(one, [0.0, 1.0])


# Classes.


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


def test_handwritten_digits_are_classified():
    digits = data.load("digits", n_train=700)
    x, y = digits.x_train.reshape(700, 64), digits.y_train
    scores = cross_val_score(RNTKClassifier(random_state=0), x, y, cv=3)
    assert np.mean(scores) >= 0.97


# Searches.


@pytest.mark.parametrize("estimator", BOTH)
def test_a_grid_search_computes_angles_once_for_each_split(points, estimator, cache, monkeypatch):
    x, y, new, truth = points
    kernels, compute = [], angles.kernel_matrix
    monkeypatch.setattr(angles, "kernel_matrix", lambda k, *x: kernels.append(k) or compute(k, *x))
    if estimator is RNTKClassifier:
        y, truth = _labels(y), _labels(truth)
    grid = {"depth": [10, 1000], "gamma": [0.25, 0.5, 1.0]}
    search = GridSearchCV(estimator(random_state=0), grid, cv=3, error_score="raise").fit(x, y)
    # Between training inputs, and between them and those left out, in three splits; then all.
    assert len(kernels) == 3 * 2 * 6 + 1
    assert len(set(kernels)) == 6
    assert cache.computed == 3 * 2 + 1
    assert cache.found == len(kernels) - cache.computed
    assert search.score(new, truth) > 0.7


def test_angles_do_not_travel_with_the_model(points, cache):
    x, y, *_ = points
    model = RNTKRegressor(random_state=0).fit(x, y)
    assert cache.size > 2**20
    arrays = model.x_train_.nbytes + model.dual_coef_.nbytes
    assert len(pickle.dumps(model)) < arrays + 5000


def test_models_saved_and_loaded_in_another_process_predict_the_same(points, tmp_path):
    x, y, new, _ = points
    models = [RNTKRegressor(random_state=0), RNTKClassifier(stopping=5.0, dtype="float64")]
    models[0].fit(x, np.stack([y, -y], axis=1))
    models[1].fit(x, _labels(y))
    expected = [models[0].predict(new), models[1].predict_proba(new)]
    joblib.dump((models, new), tmp_path / "models.joblib")
    done = run_python(f"""
import joblib, numpy as np
models, new = joblib.load({str(tmp_path / "models.joblib")!r})
np.save({str(tmp_path / "0.npy")!r}, models[0].predict(new))
np.save({str(tmp_path / "1.npy")!r}, models[1].predict_proba(new))
""")
    assert done.returncode == 0, done.stderr
    for i, values in enumerate(expected):
        np.testing.assert_allclose(np.load(tmp_path / f"{i}.npy"), values, rtol=1e-9, atol=1e-12)


# Bad input.


@pytest.mark.parametrize("estimator", BOTH)
@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"stopping": "early"}, ValueError, r"stopping must be one of .*got 'early'"),
        ({"stopping": -1.0}, ValueError, r"stopping must be one of .* or a time ≥ 0.*got -1.0"),
        ({"stopping": math.nan}, ValueError, "stopping must be one of .*got nan"),
        ({"stopping": None}, ValueError, "stopping must be one of .*got None"),
        ({"stopping": True}, ValueError, "stopping must be one of .*got True"),
        ({"validation_fraction": 1.0}, ValueError, "validation_fraction must be .*got 1.0"),
        ({"validation_fraction": "0.2"}, ValueError, "validation_fraction must be .*got '0.2'"),
        ({"center": "yes"}, TypeError, "center must be True or False, got 'yes'"),
        ({"normalize_inputs": 1}, TypeError, "normalize_inputs must be True or False, got 1"),
        ({"dtype": "float16"}, ValueError, "dtype must be 'float32' or 'float64', got 'float16'"),
        ({"depth": 0}, ValueError, "depth must be at least 1, got 0"),
        ({"depth": 2.5}, ValueError, "depth must be an integer or math.inf, got 2.5"),
        ({"gamma": -0.5}, ValueError, "gamma must be finite and ≥ 0, got -0.5"),
        ({"gamma": "1"}, TypeError, "gamma must be a real number, got '1'"),
        ({"c": 0.0}, ValueError, "c must be finite and > 0, got 0.0"),
        ({"kind": "NTK"}, ValueError, "kind must be one of"),
        ({"trained": "last"}, ValueError, "trained must be one of"),
        ({"solver": "svd"}, ValueError, "solver must be .*got 'svd'"),
        ({"ridge": -1.0}, ValueError, "ridge must be a number ≥ 0 and finite, got -1.0"),
        ({"stopping": "gcv", "solver": "lanczos"}, ValueError, "Pass solver='eigh'"),
        ({"random_state": "a"}, ValueError, "cannot be used to seed"),
    ],
)
def test_a_parameter_out_of_range_is_refused_at_fit(estimator, parameters, error, message):
    x = np.random.default_rng(0).standard_normal((20, 3))
    model = clone(estimator(**parameters))
    with pytest.raises(error, match=message):
        model.fit(x, x[:, 0] > 0)


@pytest.mark.parametrize("estimator", BOTH)
def test_bad_data_are_refused(estimator):
    x = np.random.default_rng(0).standard_normal((20, 3))
    y = (x[:, 0] > 0).astype(float)
    for bad, message in ((np.nan, "Input y contains NaN"), (np.inf, "y contains infinity")):
        with pytest.raises(ValueError, match=message):
            estimator().fit(x, np.where(np.arange(20) == 3, bad, y))
    with pytest.raises(ValueError, match="Input X contains NaN"):
        estimator().fit(np.where(x == x[3, 1], np.nan, x), y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        estimator().fit(x, y[:19])
    with pytest.raises(ValueError, match=r"1 sample.*minimum of 2"):
        estimator().fit(x[:1], y[:1])
    with pytest.raises(ValueError, match=r"has 2 features, but .* is expecting 3"):
        estimator(stopping=1.0).fit(x, y).predict(x[:, :2])
    with pytest.raises(NotFittedError):
        estimator().predict(x)


def test_labels_of_one_class_are_refused():
    x = np.random.default_rng(0).standard_normal((5, 2))
    with pytest.raises(ValueError, match=r"y must hold at least two classes, got one class, .*'a'"):
        RNTKClassifier().fit(x, ["a"] * 5)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        RNTKClassifier().fit(x, x[:, 0])


def test_lengths_that_the_dtype_cannot_hold_are_refused_unless_they_do_not_matter():
    x = np.random.default_rng(0).standard_normal((20, 3))
    for scale in (1e30, 1e-30):
        with pytest.raises(ValueError, match="X must have rows whose squared lengths float32"):
            RNTKRegressor(normalize_inputs=False).fit(scale * x, x[:, 0])
        model = RNTKRegressor(stopping=10.0).fit(scale * x, x[:, 0])
        expected = RNTKRegressor(stopping=10.0).fit(x, x[:, 0]).predict(x)
        np.testing.assert_allclose(model.predict(scale * x), expected, atol=1e-5)


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
