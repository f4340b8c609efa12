import csv

import numpy as np
import pytest

from nt_residual import cli, regression
from nt_residual.cli import scores

FAST = ("--depth=10", "--stopping=20")


def _read(path):
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["prediction"]
    return [row[0] for row in rows]


def _fit(files, name, *words):
    """Fits a short network, and returns the file it is in."""
    path = files.folder / name
    assert cli.main(["fit", *map(str, words), "--out", str(path), *FAST]) == 0
    return path


def test_fit_tells_what_it_found_and_saves_the_model(files, capsys):
    path = _fit(files, "told.npz", files.table, "--label", "side", "--seed=1")
    text = capsys.readouterr().out
    for words in (
        "48 rows to train on, 12 to test on, 3 features",
        "classification",
        "critical",
        "t = 20",
        "on 12 rows",
        str(path),
    ):
        assert words in text
    model = regression.load(path)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    assert model.get_params()["depth"] == 10
    test = np.random.default_rng(1).permutation(60)[:12]
    assert not set(map(tuple, files.x[test])) & set(map(tuple, model.x_train_))
    model = regression.RNTKClassifier(10, stopping=20.0)
    train = np.random.default_rng(1).permutation(60)[12:]
    accuracy = model.fit(files.x[train], files.labels[train]).score(
        files.x[test], files.labels[test]
    )
    assert f"accuracy {accuracy:.1%}" in text


def test_predictions_are_those_of_the_saved_model(files, capsys):
    out = files.folder / "predictions.csv"
    assert cli.main(["predict", str(files.model), str(files.table), "--out", str(out)]) == 0
    model = regression.load(files.model)
    del model.feature_names_in_
    expected = model.predict(files.x)
    assert _read(out) == expected.tolist()
    text = capsys.readouterr().out
    assert f"accuracy {np.mean(expected == files.labels):.1%}, on 60 rows" in text
    # Printed, they are nothing but a table.
    assert cli.main(["predict", str(files.model), str(files.table)]) == 0
    printed = capsys.readouterr()
    assert printed.out == out.read_text()
    assert "accuracy" in printed.err


def test_features_are_found_by_name_and_labels_are_not_needed(files, capsys):
    assert cli.main(["predict", str(files.model), str(files.table)]) == 0
    expected = capsys.readouterr().out
    rows = "".join(f"{c},id{i},{a},{b}\n" for i, (a, b, c) in enumerate(files.x.tolist()))
    other = files.folder / "other.csv"
    other.write_text("\ufeffc,id,a,b\n\n" + rows, "utf-8")
    assert cli.main(["predict", str(files.model), str(other)]) == 0
    printed = capsys.readouterr()
    assert printed.out == expected
    assert printed.err == ""


def test_numbers_are_regressed_on_and_their_error_is_told(files, capsys):
    path = _fit(files, "numbers.npz", files.numbers, "--label=target", "--test-fraction=0")
    text = capsys.readouterr().out
    assert "regression" in text
    assert "60 rows to train on, 0 to test on" in text
    assert cli.main(["predict", str(path), str(files.numbers)]) == 0
    printed = capsys.readouterr()
    predicted = np.array(printed.out.split()[1:], float)
    error = predicted - files.targets
    r2 = 1 - np.mean(error**2) / np.var(files.targets)
    assert printed.err == f"R² {r2:.4f}, RMSE {np.sqrt(np.mean(error**2)):.4g}, on 60 rows\n"
    # The same from arrays, the label of which has another name.
    again = _fit(files, "arrays_model.npz", files.arrays, "--test-fraction=0")
    np.testing.assert_array_equal(regression.load(again).predict(files.x), predicted)
    capsys.readouterr()
    assert cli.main(["predict", str(again), str(files.arrays)]) == 0
    assert np.array_equal(np.array(capsys.readouterr().out.split()[1:], float), predicted)


def test_arrays_that_are_divided_are_tested_on_as_they_are(files, capsys):
    x, y = files.x.reshape(60, 1, 3), (files.labels == "left").astype(int)
    path = files.folder / "divided.npz"
    np.savez(path, x_train=x[:40], x_test=x[40:], side_train=y[:40], side_test=y[40:])
    model = _fit(files, "divided_model.npz", path, "--label=side", "--n-train=30")
    text = capsys.readouterr().out
    assert "30 rows to train on, 20 to test on" in text
    assert "classification" in text
    assert cli.main(["predict", str(model), str(path)]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.split()) == 21
    assert printed.err.strip() in text


def test_a_data_set_is_divided_in_predict_as_it_was_in_fit(files, capsys):
    model = _fit(files, "digits.npz", "digits", "--n-train=60", "--seed=3")
    told = capsys.readouterr().out
    assert "60 rows to train on, 360 to test on, 64 features" in told
    assert cli.main(["predict", str(model), "digits"]) == 0
    assert capsys.readouterr().err.strip() in told


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1", "-2"], [1, -2]),
        (["1", "007"], [1.0, 7.0]),
        (["1", "2.5"], [1.0, 2.5]),
        (["1", "b"], ["1", "b"]),
        (["1", "9" * 30], [1.0, float("9" * 30)]),
    ],
)
def test_labels_are_numbers_where_all_are(texts, expected):
    values = scores.typed(np.array(texts))
    assert values.tolist() == expected
    assert [type(value) for value in values.tolist()] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["cat", "dog"] * 10, "classification"),
        (["0", "1"] * 10, "classification"),
        ([str(i) for i in range(20)], "regression"),
        (["0.5", "1"] * 10, "regression"),
    ],
)
def test_the_task_is_told_by_the_labels(files, labels, task, monkeypatch, capsys):
    # All that is asked for is said before the model is fitted.
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(regression.RNTKClassifier, "fit", stop)
    monkeypatch.setattr(regression.RNTKRegressor, "fit", stop)
    table = files.folder / "task.csv"
    table.write_text("a,b,y\n" + "".join(f"{i},{i % 3},{y}\n" for i, y in enumerate(labels)))
    arguments = ["fit", str(table), "--out", str(files.folder / "x"), "--test-fraction=0"]
    assert cli.main(arguments) == 130
    assert task in capsys.readouterr().out
    assert not (files.folder / "x").exists()


def test_labels_that_are_classes_stay_as_they_are_written(files):
    table = files.folder / "codes.csv"
    table.write_text("a,b,code\n" + "".join(f"{i},{i * i},{i % 2:03}\n" for i in range(20)))
    model = regression.load(_fit(files, "codes.npz", table, "--task=classify"))
    assert model.classes_.tolist() == ["000", "001"]
