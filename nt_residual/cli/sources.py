"""What DATA means on the command line: the name of a data set, a CSV file or an NPZ file."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nt_residual import data
from nt_residual.cli import options, tables
from nt_residual.cli.options import InputError
from nt_residual.data import Dataset
from nt_residual.regression import saving


class Source(NamedTuple):
    """Data to train and test on.

    Attributes:
      sets: inputs of shape (n, d) and labels or targets, texts where a CSV file holds them.
      features: the names of the features, where they have names.
      label: the name of the labels.
    """

    sets: Dataset
    features: list[str] | None
    label: str


class Rows(NamedTuple):
    """Inputs to predict for, shape (n, d), and labels or targets where there are some, (n,)."""

    x: np.ndarray
    y: np.ndarray | None


def is_dataset(text: str) -> bool:
    """Whether DATA is meant to be the name of a data set.

    Raises:
      InputError: if it is no file either.

    Example:
      >>> is_dataset("digits"), is_dataset("iris.csv")
      (True, False)
    """
    path = pathlib.Path(text)
    if text in data.NAMES:
        return True
    if not path.suffix and not path.exists():
        raise InputError(
            f"DATA must be a CSV or NPZ file or one of {', '.join(data.NAMES)}, got {text!r}"
        )
    return False


def load_dataset(name: str, n_train: int | None, root: pathlib.Path | None, seed: int) -> Dataset:
    """A data set by its name, images as rows.

    Raises:
      InputError: if its files are not there or not the published ones, or `n_train` is too large.
    """
    with options.wrong_input():
        found = data.load(name, n_train, root=root, seed=seed)
    return _flat(found)


def to_fit(chosen: Any) -> Source:
    """What `fit` is to train and test on, as its options say.

    Raises:
      InputError: if there is no such thing, it is damaged, or has missing values.
    """
    if is_dataset(chosen.data):
        for name in ("label", "test_fraction"):
            if getattr(chosen, name) is not None:
                word = name.replace("_", "-")
                raise InputError(f"--{word} must be left out for the data set {chosen.data!r}")
        sets = load_dataset(chosen.data, chosen.n_train, chosen.root, chosen.seed)
        return Source(sets, None, "y")
    if chosen.root is not None:
        raise InputError(f"--root must be left out for the file {chosen.data}")
    path = pathlib.Path(chosen.data)
    if path.suffix.lower() == ".npz":
        return _npz_to_fit(path, chosen)
    table = tables.Csv(path)
    label = table.names[-1] if chosen.label is None else chosen.label
    table.check_has([label], "the label column")
    features = [name for name in table.names if name != label]
    if not features:
        raise InputError(
            f"{path} must have columns other than the label {label!r}, separated by commas"
        )
    sets = _divided(table.numbers(features), table.texts(label), chosen)
    return Source(sets, features, label)


def to_predict(
    chosen: Any, features: Sequence[str] | None, n_features: int, notes: Mapping[str, Any]
) -> Rows:
    """What `predict` is to predict for, as its options say.

    Args:
      chosen: the options.
      features: the names that the features had in training, if they had names.
      n_features: their number.
      notes: what `fit` kept beside the model.

    Raises:
      InputError: if there is no such thing, or it does not have the features of the model.
    """
    if is_dataset(chosen.data):
        if chosen.label is not None:
            raise InputError(f"--label must be left out for the data set {chosen.data!r}")
        # The digits come as one set: their division must be that of training.
        sets = load_dataset(chosen.data, None, chosen.root, notes.get("seed", 0))
        rows = Rows(sets.x_test, sets.y_test)
    elif pathlib.Path(chosen.data).suffix.lower() == ".npz":
        rows = _npz_to_predict(pathlib.Path(chosen.data), chosen.label, notes)
    else:
        rows = _csv_to_predict(pathlib.Path(chosen.data), chosen.label, features, notes)
    if rows.x.shape[1] != n_features:
        raise InputError(
            f"{chosen.data} must have the {n_features} features that the model was trained on, "
            f"got {rows.x.shape[1]}"
        )
    return rows


def _csv_to_predict(
    path: pathlib.Path, label: str | None, features: Sequence[str] | None, notes: Mapping[str, Any]
) -> Rows:
    table = tables.Csv(path)
    if label is not None:
        table.check_has([label], "the label column")
    elif notes.get("label") in table.names:
        label = notes["label"]
    if features is None:
        features = [name for name in table.names if name != label]
    table.check_has(features, "the features")
    return Rows(table.numbers(features), None if label is None else table.texts(label))


def _npz_to_fit(path: pathlib.Path, chosen: Any) -> Source:
    arrays, label = _arrays(path), chosen.label or "y"
    if "x" in arrays:
        x, y = _pair(path, arrays, "x", label)
        return Source(_divided(x, y, chosen), None, label)
    if chosen.test_fraction is not None and "x_test" in arrays:
        raise InputError(f"--test-fraction must be left out for {path}, which has x_test")
    x, y = _pair(path, arrays, "x_train", f"{label}_train")
    if "x_test" not in arrays:
        return Source(_divided(x, y, chosen), None, label)
    test = _pair(path, arrays, "x_test", f"{label}_test")
    if test[0].shape[1] != x.shape[1]:
        raise InputError(
            f"{path} must have as many features in x_test as in x_train, got {test[0].shape[1]} "
            f"and {x.shape[1]}"
        )
    order = np.random.default_rng(chosen.seed).permutation(len(x))
    kept = _first(order, chosen.n_train)
    return Source(Dataset(x[kept], y[kept], *test), None, label)


def _npz_to_predict(path: pathlib.Path, label: str | None, notes: Mapping[str, Any]) -> Rows:
    arrays = _arrays(path)
    x_name, end = ("x", "") if "x" in arrays else ("x_test", "_test")
    y_name = f"{label or notes.get('label', 'y')}{end}"
    if label is not None or y_name in arrays:
        return Rows(*_pair(path, arrays, x_name, y_name))
    return Rows(_inputs(path, arrays, x_name), None)


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    with options.wrong_input():
        return saving.read_arrays(path)


def _inputs(path: pathlib.Path, arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    _check_has(path, arrays, name)
    return tables.as_rows(arrays[name], f"{name} of {path}")


def _pair(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], x_name: str, y_name: str
) -> tuple[np.ndarray, np.ndarray]:
    x = _inputs(path, arrays, x_name)
    _check_has(path, arrays, y_name)
    return x, tables.as_labels(arrays[y_name], f"{y_name} of {path}", len(x))


def _check_has(path: pathlib.Path, arrays: Mapping[str, np.ndarray], name: str) -> None:
    if name not in arrays:
        raise InputError(
            f"{path} must have an array {name!r}, got {sorted(arrays)}: inputs are x, or x_train "
            "and x_test, labels are y, or what --label says, with the same ending"
        )


def _divided(x: np.ndarray, y: np.ndarray, chosen: Any) -> Dataset:
    """Rows at random to test on, and the others, or some of them, to train on."""
    fraction = 0.2 if chosen.test_fraction is None else chosen.test_fraction
    order = np.random.default_rng(chosen.seed).permutation(len(x))
    n_test = round(fraction * len(x))
    test, train = order[:n_test], _first(order[n_test:], chosen.n_train)
    return Dataset(x[train], y[train], x[test], y[test])


def _first(order: np.ndarray, count: int | None) -> np.ndarray:
    if count is not None and count > len(order):
        raise InputError(
            f"--n-train must be at most {len(order)}, what there is to train on, got {count}"
        )
    return order[:count]


def _flat(sets: Dataset) -> Dataset:
    x_train, x_test = (x.reshape(len(x), -1) for x in (sets.x_train, sets.x_test))
    return sets._replace(x_train=x_train, x_test=x_test)
