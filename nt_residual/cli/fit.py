"""`nt-residual fit`: a model of a user's data, in a file."""

import argparse
import pathlib
from typing import Any

from nt_residual.cli import options

_RULES = ("auto", "holdout", "kfold", "gcv", "loo", "theory")
# What integers are taken for classes: so many, or fewer, each so often on average.
_MOST_CLASSES, _LEAST_COUNT = 100, 5


def add(commands: Any) -> options.Parser:
    """Adds the command."""
    parser = commands.add_parser(
        "fit",
        help="train on a CSV or NPZ file or a data set, and save the model",
        description="Trains an infinitely wide residual network, with α = c·L^(−γ), by gradient "
        "flow that is stopped in time, tells how good it is on rows held out, and saves it.",
        epilog="example: nt-residual fit iris.csv --label species --out iris.npz",
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="CSV file with names in the first row; NPZ file with arrays x and y, or x_train, "
        "y_train, x_test and y_test; or digits, mnist, cifar10, cifar100",
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="file for the model, .npz")
    parser.add_argument("--label", help="column or array of labels (default: the last column, y)")
    parser.add_argument(
        "--task",
        choices=["auto", "classify", "regress"],
        default="auto",
        help="auto: classify where labels are texts, or integers of at most "
        f"{_MOST_CLASSES} values that occur {_LEAST_COUNT} times each on average",
    )
    options.add_network(parser)
    options.add_kind(parser)
    _add_training(parser)
    return parser


def _add_training(parser: options.Parser) -> None:
    parser.add_argument(
        "--stopping",
        type=options.checked(
            lambda text: text if text in _RULES else float(text),
            lambda t: isinstance(t, str) or t >= 0,
            f"one of {', '.join(_RULES)}, or a time ≥ 0",
        ),
        default="auto",
        help=f"how to find the time: {', '.join(_RULES)}; or the time, inf for the interpolant",
    )
    parser.add_argument("--n-train", type=options.at_least(2), help="rows to train on, of all")
    parser.add_argument(
        "--test-fraction",
        type=options.fraction,
        help="rows of a file to hold out and test on (default: 0.2)",
    )
    parser.add_argument("--seed", type=options.seed, default=0, help="of what is random")
    options.add_root(parser)


def run(chosen: argparse.Namespace) -> int:
    """Runs the command."""
    import numpy as np

    from nt_residual import theory
    from nt_residual.cli import scores, sources
    from nt_residual.regression import saving

    options.check_output(chosen.out)
    source = sources.to_fit(chosen)
    sets, classify = source.sets, _classifies(chosen, source.sets.y_train)
    options.print_facts(
        [
            ("data", f"{chosen.data}: {_sizes(sets)}"),
            ("task", "classification" if classify else "regression"),
        ]
    )
    model = _model(chosen, classify)
    with options.wrong_input():
        model.fit(sets.x_train, scores.targets(sets.y_train, classify, source.label))
    kernel = model.kernel_
    name = theory.regime(kernel.schedule, trained=kernel.trained).name
    options.print_facts(
        [
            ("network", f"T = {options.number(kernel.effective_time)}, {name}"),
            ("stopping", f"t = {options.number(model.stopping_time_)} ({chosen.stopping})"),
        ]
    )
    if len(sets.y_test):
        told = scores.told(model, model.predict(sets.x_test), sets.y_test, source.label)
        options.print_facts([("test", told)])
    if source.features is not None:
        model.feature_names_in_ = np.array(source.features, object)
    saving.save(chosen.out, model, notes={"label": source.label, "seed": chosen.seed})
    options.print_facts([("model", str(chosen.out.resolve()))])
    return 0


def _classifies(chosen: argparse.Namespace, y: Any) -> bool:
    """Whether labels are classes, by the rule that `--help` tells."""
    if chosen.task != "auto":
        return chosen.task == "classify"
    from nt_residual import data
    from nt_residual.cli import scores

    if chosen.data in data.NAMES:
        return True
    values = scores.typed(y)
    if values.dtype.kind in "iu":
        return len(set(values.tolist())) <= min(_MOST_CLASSES, len(values) // _LEAST_COUNT)
    return values.dtype.kind != "f"


def _model(chosen: argparse.Namespace, classify: bool) -> Any:
    from nt_residual import regression

    estimator = regression.RNTKClassifier if classify else regression.RNTKRegressor
    names = ("depth", "gamma", "c", "kind", "trained", "stopping")
    return estimator(
        **{name: getattr(chosen, name) for name in names},
        random_state=chosen.seed,
    )


def _sizes(sets: Any) -> str:
    return (
        f"{len(sets.x_train)} rows to train on, {len(sets.x_test)} to test on, "
        f"{sets.x_train.shape[1]} features"
    )
