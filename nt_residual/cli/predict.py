"""`nt-residual predict`: what a saved model says of new inputs."""

import argparse
import csv
import pathlib
import sys
import warnings
from typing import Any

from nt_residual.cli import options


def add(commands: Any) -> options.Parser:
    """Adds the command."""
    parser = commands.add_parser(
        "predict",
        help="predict with a model that fit has saved",
        description="Predicts for the rows of a CSV file, x or x_test of an NPZ file, or the test "
        "set of a data set, with a model that fit has saved, and tells how good that is where "
        "there are labels.",
        epilog="example: nt-residual predict iris.npz new.csv --out predictions.csv",
    )
    parser.add_argument("model", metavar="MODEL", type=pathlib.Path, help="file of the model")
    parser.add_argument(
        "data",
        metavar="DATA",
        help="CSV or NPZ file, or digits, mnist, cifar10, cifar100; columns are found by name "
        "where the model knows the names of its features",
    )
    parser.add_argument(
        "--label", help="column or array of labels (default: that of fit, if DATA has it)"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, help="CSV file for the predictions (default: printed)"
    )
    options.add_root(parser)
    return parser


def run(chosen: argparse.Namespace) -> int:
    """Runs the command."""
    options.check_output(chosen.out)
    from nt_residual.cli import scores, sources
    from nt_residual.regression import saving

    with options.wrong_input():
        model: Any = saving.load(chosen.model)
        notes = saving.read_notes(chosen.model)
    features = getattr(model, "feature_names_in_", None)
    names = None if features is None else features.tolist()
    rows = sources.to_predict(chosen, names, model.n_features_in_, notes)
    with warnings.catch_warnings(), options.wrong_input():
        # The names have been compared above, and arrays have none.
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        predicted = model.predict(rows.x)
    told = None
    if rows.y is not None and predicted.ndim == 1:
        told = scores.told(model, predicted, rows.y, chosen.label or notes.get("label", "y"))
    if chosen.out is None:
        _write(predicted, sys.stdout)
    else:
        with chosen.out.open("w", newline="", encoding="utf-8") as file:
            _write(predicted, file)
        print(f"Wrote {len(predicted)} predictions to {chosen.out.resolve()}")
    if told:
        print(told, file=sys.stdout if chosen.out else sys.stderr)
    return 0


def _write(predicted: Any, file: Any) -> None:
    columns = predicted.reshape(len(predicted), -1)
    several = columns.shape[1] > 1
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [f"prediction_{i}" if several else "prediction" for i in range(columns.shape[1])]
    )
    writer.writerows(columns.tolist())
