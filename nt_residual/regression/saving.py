"""Fitted estimators in one file each, which is read without running anything that it holds."""

import json
import math
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

import nt_residual
from nt_residual import _files, schedules
from nt_residual.regression.estimators import RNTKClassifier, RNTKRegressor
from nt_residual.regression.held_out import Stopping
from nt_residual.regression.preparation import Preparation
from nt_residual.rntk import ResidualKernel

Estimator = RNTKRegressor | RNTKClassifier

_FORMAT, _VERSION = "nt_residual.regression", 1
_CLASSES = {cls.__name__: cls for cls in (RNTKRegressor, RNTKClassifier)}
# What `fit` sets: arrays, numbers and texts, and what is made of both.
_ARRAYS = ("x_train_", "dual_coef_", "offset_", "classes_", "feature_names_in_")
_PLAIN = ("stopping_time_", "solver_", "n_features_in_")
_COMPOSED = ("kernel_", "preparation_", "stopping_")
_DAMAGED = (KeyError, AttributeError, TypeError, ValueError)


def save(
    path: str | os.PathLike, estimator: Estimator, *, notes: Mapping[str, Any] | None = None
) -> None:
    """Writes a fitted estimator to a file, from which `load` gives one that predicts the same.

    The file is in NumPy's NPZ format: the arrays of the estimator, and a text in JSON with its
    parameters, class and the version of this package. No part of it is a pickle. It is
    written under another name first, so that at any moment it is whole or what it was before.

    Args:
      path: of the file. Nothing is appended to it.
      estimator: a fitted `RNTKRegressor` or `RNTKClassifier`.
      notes: what else to keep, numbers and texts by name, for `read_notes`.

    Raises:
      TypeError: if it is another estimator, or a parameter, a class or a note is something else
        than a number or a text.
      ValueError: if it is not fitted, or holds what `fit` does not set.
      OSError: if the file cannot be written; what was there is as it was.

    Example:
      >>> import tempfile
      >>> x = np.eye(6)
      >>> model = RNTKRegressor(depth=10, stopping=5.0).fit(x, x[:, 0])
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save(f"{folder}/model.npz", model)
      ...     again = load(f"{folder}/model.npz")
      >>> bool(np.all(again.predict(x) == model.predict(x)))
      True
    """
    name = type(estimator).__name__
    if type(estimator) is not _CLASSES.get(name):
        raise TypeError(f"estimator must be one of {sorted(_CLASSES)}, got {name}.")
    fitted = {key: value for key, value in vars(estimator).items() if key.endswith("_")}
    if not fitted.keys() >= {"dual_coef_", *_PLAIN, *_COMPOSED}:
        raise ValueError(f"estimator must be fitted to be saved, got {estimator}. Call fit first.")
    unknown = sorted(set(fitted) - {*_ARRAYS, *_PLAIN, *_COMPOSED})
    if unknown:
        raise ValueError(f"estimator must have what fit sets only, got {unknown}. Delete these.")
    arrays = {key: fitted[key] for key in _ARRAYS if key in fitted}
    attributes = {key: fitted[key] for key in _PLAIN} | _decomposed(estimator, arrays)
    # Arrays of Python's objects are pickles; those of text need not be.
    objects = [key for key, value in arrays.items() if np.asarray(value).dtype == object]
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "written_by": nt_residual.__version__,
        "class": name,
        "parameters": _plain(estimator.get_params(deep=False)),
        "attributes": _plain(attributes),
        "objects": objects,
        "notes": _plain(dict(notes or {})),
    }
    stored: dict[str, Any] = {key: _storable(key, value) for key, value in arrays.items()}
    text = np.array(json.dumps(header, allow_nan=False))
    with _files.replacing(pathlib.Path(path)) as file:
        np.savez(file, header=text, **stored)


def load(path: str | os.PathLike) -> Estimator:
    """Reads an estimator that `save` wrote.

    Args:
      path: of the file.

    Returns:
      The estimator, with its parameters and all that `fit` had set: its predictions are the
      same to the last bit on the same machine.

    Raises:
      FileNotFoundError: if there is no file.
      ValueError: if it is something else, damaged, or of a newer version of this format.

    Example:
      >>> load("no_model.npz")
      Traceback (most recent call last):
      FileNotFoundError: there is no file no_model.npz.
    """
    header, arrays = _read(pathlib.Path(path))
    try:
        return _estimator(header, arrays)
    except _DAMAGED as error:
        raise _wrong_file(path, error) from error


def read_notes(path: str | os.PathLike) -> dict[str, Any]:
    """What was passed as `notes` to `save`. Raises what `load` does."""
    return _read(pathlib.Path(path))[0]["notes"]


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of an NPZ file, none of which may be a pickle.

    Args:
      path: of the file.

    Returns:
      The arrays by name.

    Raises:
      FileNotFoundError: if there is no file.
      ValueError: if it is something else, damaged, or holds Python's objects.

    Example:
      >>> read_arrays(pathlib.Path("no_arrays.npz"))
      Traceback (most recent call last):
      FileNotFoundError: there is no file no_arrays.npz.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    try:
        # What is no archive NumPy takes for a pickle, and says how to trust it.
        if not zipfile.is_zipfile(path):
            raise ValueError("another kind of file, or a part of one")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} must be a whole NPZ file of numbers and texts, got {type(error).__name__}: "
            f"{error}. Write it with numpy.savez, without arrays of objects."
        ) from error


def _decomposed(estimator: Estimator, arrays: dict[str, Any]) -> dict[str, Any]:
    """Numbers and texts of which the composed attributes are made; their arrays are added."""
    kernel, preparation, found = (getattr(estimator, name) for name in _COMPOSED)
    arrays["preparation_.mean"] = preparation.mean
    if found is not None:
        arrays |= {"stopping_.times": found.times, "stopping_.errors": found.errors}
    return {
        # Not from the parameters, which may have been set anew since.
        "kernel_": {
            "depth": kernel.depth,
            "gamma": kernel.schedule.gamma,
            "c": kernel.schedule.c,
            "kind": kernel.kind,
            "trained": kernel.trained,
        },
        "preparation_": {
            "scale": preparation.scale,
            "bias": preparation.bias,
            "normalize": bool(preparation.normalize),
            "dtype": np.dtype(preparation.dtype).name,
        },
        "stopping_": None if found is None else {"time": found.time},
    }


def _estimator(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Estimator:
    model: Any = _CLASSES[header["class"]](**header["parameters"])
    attributes = header["attributes"]
    kernel, preparation, found = (attributes[name] for name in _COMPOSED)
    schedule = schedules.PowerLaw(kernel.pop("gamma"), kernel.pop("c"))
    model.kernel_ = ResidualKernel(schedule=schedule, **kernel)
    model.preparation_ = Preparation(
        arrays["preparation_.mean"],
        preparation["scale"],
        preparation["bias"],
        preparation["normalize"],
        np.dtype(preparation["dtype"]),
    )
    model.stopping_ = None
    if found is not None:
        times, errors = arrays["stopping_.times"], arrays["stopping_.errors"]
        model.stopping_ = Stopping(found["time"], times, errors)
    for name in _PLAIN:
        setattr(model, name, attributes[name])
    for name in set(_ARRAYS) & set(arrays):
        value = arrays[name].astype(object) if name in header["objects"] else arrays[name]
        setattr(model, name, value[()])
    _check_shapes(model)
    return model


def _check_shapes(model: Any) -> None:
    """Refuses arrays that do not belong together, on which `predict` would fail."""
    count, features, outputs = len(model.x_train_), model.n_features_in_, np.shape(model.offset_)
    expected = [
        ("x_train_", model.x_train_, (count, model.preparation_.n_features)),
        ("dual_coef_", model.dual_coef_, (count, *outputs)),
        ("preparation_.mean", model.preparation_.mean, (features,)),
    ]
    if isinstance(model, RNTKClassifier):
        expected.append(("classes_", model.classes_, outputs))
    names = getattr(model, "feature_names_in_", None)
    if names is not None:
        expected.append(("feature_names_in_", names, (features,)))
    for name, array, shape in expected:
        if np.shape(array) != shape:
            raise ValueError(f"{name} of shape {np.shape(array)} instead of {shape}")


def _plain(value: Any, name: str = "estimator") -> Any:
    """What JSON can hold; it has no number for infinity and NaN."""
    if isinstance(value, dict):
        return {key: _plain(item, str(key)) for key, item in value.items()}
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"{name} must be a number, a text, True, False or None to be saved, got {value!r}. For "
        "random_state pass an integer."
    )


def _number(fields: dict[str, Any]) -> Any:
    return float(fields["float"]) if fields.keys() == {"float"} else fields


def _storable(name: str, value: Any) -> np.ndarray:
    """An array that NumPy stores without a pickle, texts as Unicode of fixed width."""
    array = np.asarray(value)
    if array.dtype != object and array.dtype.kind in "biufSU":
        return array
    text = array.astype(str)
    # NumPy drops zeros at the end of a text.
    if array.dtype != object or not np.array_equal(text.astype(object), array):
        raise TypeError(f"{name} must hold numbers or texts to be saved, got {array!r}.")
    return text


def _read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The text of a file and its arrays."""
    arrays = read_arrays(path)
    try:
        header = json.loads(str(arrays.pop("header")), object_hook=_number)
        if header["format"] != _FORMAT:
            raise ValueError(f"format {header['format']!r}")
        newer, writer, _ = header["version"] > _VERSION, header["written_by"], header["notes"]
    except _DAMAGED as error:
        raise _wrong_file(path, error) from error
    if newer:
        raise ValueError(
            f"{path} must be of version {_VERSION} of the format at most, got {header['version']}, "
            f"written by nt_residual {writer}. Read it with that version of nt_residual or newer."
        )
    return header, arrays


def _wrong_file(path: str | os.PathLike, error: Exception) -> ValueError:
    return ValueError(
        f"{path} must be a model that regression.save wrote, got {type(error).__name__}: {error}. "
        "If it is one, it is damaged: fit the model again."
    )
