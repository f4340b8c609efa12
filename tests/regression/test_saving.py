import json
import math

import numpy as np
import pytest
from helpers import run_python

from nt_residual import regression, rntk, schedules
from nt_residual.regression import RNTKClassifier, RNTKRegressor, saving


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3))
    return x, x[:, 0] / np.linalg.norm(x, axis=1)


def _targets(y, kind):
    classes = np.digitize(y, [-0.3, 0.3])
    return {
        "numbers": y,
        "two": np.stack([y, -y], axis=1),
        "text": np.array(["low", "middle", "ε"])[classes],
        "objects": np.array(["low", "middle", "ε"], object)[classes],
        "integers": np.array([7, -3, 5])[classes],
        "bools": classes > 0,
    }[kind]


CASES = [
    (RNTKRegressor(10, 0.5, 2.0, stopping=20.0), "numbers"),
    (RNTKRegressor(math.inf, stopping=math.inf, dtype="float64", center=False), "two"),
    (RNTKRegressor(10, solver="lanczos", stopping=np.float32(20), trained="all"), "two"),
    (RNTKClassifier(10, random_state=np.int64(3)), "text"),
    (RNTKClassifier(10, stopping=20.0, normalize_inputs=True, bias=0), "objects"),
    (RNTKClassifier(10, stopping="loo", kind="nngp"), "integers"),
    (RNTKClassifier(10, stopping="theory"), "bools"),
]


def _same(first, second):
    """Whether two fitted values are the same to the last bit, and of the same type."""
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, tuple):
        return type(first) is type(second) and all(map(_same, first, second))
    if hasattr(first, "mean"):
        return _same(first.mean, second.mean) and first.normalize == second.normalize
    return type(first) is type(second) and first == second


@pytest.mark.parametrize(("model", "kind"), CASES, ids=lambda case: str(case)[:60])
def test_a_model_that_is_read_predicts_the_same_to_the_last_bit(points, model, kind, tmp_path):
    x, y = points
    model.fit(x, _targets(y, kind))
    regression.save(tmp_path / "model", model)
    again = regression.load(str(tmp_path / "model"))
    assert type(again) is type(model)
    assert again.get_params() == model.get_params()
    fitted = {name: value for name, value in vars(model).items() if name.endswith("_")}
    assert {name for name in vars(again) if name.endswith("_")} == set(fitted)
    for name, value in fitted.items():
        if name not in ("preparation_", "offset_"):
            assert _same(value, getattr(again, name)), name
    for method in ("predict", "predict_proba"):
        if hasattr(model, method):
            expected, found = (getattr(m, method)(x + 0.1) for m in (model, again))
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.fixture(scope="module")
def model(points):
    x, y = points
    return RNTKClassifier(10, stopping=20.0).fit(x, y > 0)


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "model.npz"
    regression.save(path, model, notes={"label": "side", "seed": 3, "time": math.inf})
    return path


def _changed(path, arrays=(), **header):
    """The file with other arrays or entries of its header."""
    with np.load(path) as file:
        stored = dict(file) | dict(arrays)
    fields = json.loads(str(stored["header"])) | header
    stored["header"] = np.array(json.dumps(fields))
    np.savez(path, **{name: value for name, value in stored.items() if value is not None})


def test_notes_are_kept_beside_the_model(saved):
    assert saving.read_notes(saved) == {"label": "side", "seed": 3, "time": math.inf}


def test_another_process_predicts_the_same(points, model, saved, tmp_path):
    out = tmp_path / "predicted.npy"
    done = run_python(f"""
import numpy as np
from nt_residual import regression
x = np.random.default_rng(0).standard_normal((60, 3))
np.save({str(out)!r}, regression.load({str(saved)!r}).predict_proba(x))
""")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(out), model.predict_proba(points[0]))


def test_names_of_features_are_kept(model, saved):
    model = regression.load(saved)
    model.feature_names_in_ = np.array(["a", "bb", "c"], object)
    regression.save(saved, model)
    again = regression.load(saved)
    assert again.feature_names_in_.dtype == object
    assert again.feature_names_in_.tolist() == ["a", "bb", "c"]
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        again.predict(np.ones((1, 3)))


def test_the_kernel_is_that_of_training_whatever_is_set_since(points, model, saved):
    model = regression.load(saved).set_params(depth=20, gamma=0.25)
    regression.save(saved, model)
    again = regression.load(saved)
    assert again.kernel_ == rntk.ResidualKernel(10, schedules.PowerLaw(0.5))
    assert again.depth == 20
    np.testing.assert_array_equal(again.predict(points[0]), model.predict(points[0]))


def test_no_array_is_a_pickle_and_the_rest_is_json(saved):
    with np.load(saved, allow_pickle=False) as file:
        assert {name: file[name].dtype.kind for name in file.files} == {
            "x_train_": "f",
            "dual_coef_": "f",
            "offset_": "f",
            "classes_": "b",
            "preparation_.mean": "f",
            "header": "U",
        }
        json.loads(str(file["header"]), parse_constant=lambda word: pytest.fail(word))


def test_what_cannot_be_saved_is_refused_and_the_old_file_stays(points, model, saved):
    x, y = points
    before = saved.read_bytes()

    class Other(RNTKRegressor):
        pass

    def fitted(**parameters):
        return regression.load(saved).set_params(**parameters)

    odd = regression.load(saved)
    odd.extra_ = 1
    mixed = regression.load(saved)
    mixed.classes_ = np.array([1, "a"], object)
    cases = [
        (RNTKRegressor(), ValueError, "estimator must be fitted to be saved, got RNTKRegressor"),
        (Other(10, stopping=20.0).fit(x, y), TypeError, "must be one of .*got Other"),
        (odd, ValueError, r"what fit sets only, got \['extra_'\]"),
        (fitted(random_state=np.random.RandomState(0)), TypeError, "random_state must be a number"),
        (fitted(stopping=print), TypeError, "stopping must be a number, a text.*got <built-in"),
        (mixed, TypeError, "classes_ must hold numbers or texts"),
    ]
    for estimator, error, message in cases:
        with pytest.raises(error, match=message):
            regression.save(saved, estimator)
    with pytest.raises(TypeError, match="mesh must be a number"):
        regression.save(saved, model, notes={"mesh": object()})
    assert saved.read_bytes() == before


def test_a_file_that_cannot_be_finished_leaves_the_old_one(model, saved, monkeypatch):
    before = saved.read_bytes()

    def interrupted(file, **_):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        regression.save(saved, model)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_files_that_are_something_else_or_damaged_are_refused(model, saved):
    whole = saved.read_bytes()
    middle = len(whole) // 3
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for content in (b"", b"text", whole[:-30], whole[: len(whole) // 2], flipped):
        saved.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.npz must be a whole NPZ file"):
            regression.load(saved)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        regression.load(saved.parent / "nothing")
    wrong = "must be a model that regression.save wrote"
    cases = [
        (wrong + ".*KeyError: 'header'", {"header": None}, {}),
        (wrong + ".*AttributeError.*dual_coef_", {"dual_coef_": None}, {}),
        (wrong + r".*dual_coef_ of shape \(2,\) instead of \(60, 2\)", {"dual_coef_": [1, 2]}, {}),
        (wrong + ".*classes_ of shape", {"classes_": np.arange(3)}, {}),
        (wrong + ".*format 'other'", {}, {"format": "other"}),
        (wrong + ".*KeyError: 'Model'", {}, {"class": "Model"}),
        (wrong + ".*TypeError.*'width'", {}, {"parameters": {"width": 1}}),
        (wrong + ".*KeyError: 'kernel_'", {}, {"attributes": {}}),
        (r"must be of version 1 .*got 2, written by nt_residual 9", {}, {"version": 2}),
    ]
    for message, arrays, header in cases:
        saved.write_bytes(whole)
        if arrays.get("header", 0) is None:
            np.savez(saved, x=np.ones(1))
        else:
            _changed(saved, arrays, written_by="9", **header)
        with pytest.raises(ValueError, match=message):
            regression.load(saved)


def test_a_pickle_in_the_file_is_refused_and_not_run(saved, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    with np.load(saved) as file:
        arrays = dict(file) | {"classes_": np.array([Trap(), Trap()], object)}
    np.savez(saved, **arrays)
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        regression.load(saved)
    assert not (tmp_path / "sprung").exists()
