"""The command `nt-residual`."""

import argparse
import csv
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import math
import pathlib
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any

import nt_residual


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: the words after `nt-residual`; `None` for those of the process.

    Returns:
      The exit status.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (ImportError, OSError, ValueError) as error:
        print(f"nt-residual: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nnt-residual: interrupted, nothing was written", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nt-residual", description="Infinitely wide residual networks of any depth, in JAX."
    )
    parser.add_argument("--version", action="version", version=nt_residual.__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser(
        "demo",
        help="classify handwritten digits with the kernels of deep residual networks",
        description="Classifies the handwritten digits that come with scikit-learn with the "
        "kernels of residual networks, α = L^(−γ), at a finite and at infinite depth L.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument(
        "--depth", type=_depth, default=1000, help="number of residual blocks L, or inf"
    )
    demo.add_argument(
        "--gamma", type=_gamma, nargs="+", default=[0.0, 0.25, 0.5, 1.0], help="exponents γ"
    )
    demo.add_argument(
        "--n-train", type=_n_train, default=1437, help="digits to train and validate on"
    )
    demo.add_argument(
        "--label-noise", type=_fraction, default=0.0, help="fraction of wrong training labels"
    )
    demo.add_argument("--seed", type=_seed, default=0, help="of the split of the data")
    demo.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("nt-residual-demo"), help="output folder"
    )
    demo.set_defaults(command=_demo)

    doctor = commands.add_parser("doctor", help="show versions, devices and what works")
    doctor.set_defaults(command=_doctor)
    return parser


def _checked(
    convert: Callable[[str], Any], valid: Callable[[Any], bool], expected: str
) -> Callable[[str], Any]:
    """A converter for argparse whose error says what was expected."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not valid(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse


_depth = _checked(
    lambda text: math.inf if text == "inf" else int(text), lambda d: d >= 1, "an integer ≥ 1 or inf"
)
_gamma = _checked(float, lambda g: 0 <= g < math.inf, "a finite number ≥ 0")
_n_train = _checked(
    int, lambda n: 20 <= n <= 1427 or n == 1437, "an integer from 20 to 1427, or 1437"
)
_fraction = _checked(float, lambda f: 0 <= f < 1, "a number in [0, 1)")
_seed = _checked(int, lambda s: 0 <= s < 2**32, "an integer in [0, 2^32)")


def _demo(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from nt_residual.experiments import digits

    # Before the work, so that a missing package or folder costs nothing.
    modules = {"scikit-learn": "sklearn", "matplotlib": "matplotlib"}
    missing = [name for name in modules if importlib.util.find_spec(modules[name]) is None]
    if missing:
        raise ImportError(
            f"the demonstration needs {' and '.join(missing)}, not installed here: "
            f"pip install {' '.join(missing)}"
        )
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out must be a folder, got the file {options.out}: pass another name")
    options.out.mkdir(parents=True, exist_ok=True)
    gammas = list(dict.fromkeys(options.gamma))
    result = digits.run(
        options.depth,
        gammas,
        n_train=options.n_train,
        label_noise=options.label_noise,
        seed=options.seed,
        progress=lambda kernels: tqdm(kernels, desc="kernels", unit="kernel", file=sys.stderr),
    )
    figure = digits.plot(result)

    config = {
        "depth": _json_number(options.depth),
        "gamma": gammas,
        "label_noise": options.label_noise,
        "seed": options.seed,
        "images": result.sizes,
    }
    rows = [{k: _json_number(v) for k, v in dataclasses.asdict(row).items()} for row in result.rows]
    with (options.out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    record = {"config": config, "versions": _versions(), "rows": rows}
    (options.out / "results.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    figure.savefig(options.out / "accuracy.png", dpi=120)

    print(_table(result.rows))
    if not options.label_noise:
        print("\nWith clean labels there is little to stop early for: try --label-noise 0.3")
    print(f"\nWrote results.csv, results.json and accuracy.png to {options.out.resolve()}")
    return 0


def _json_number(value: Any) -> Any:
    """Infinity as the word 'inf', which is what JSON has no number for."""
    return str(value) if value in (math.inf, -math.inf) else value


def _table(rows: Sequence[Any]) -> str:
    header = (
        f"{'depth L':>8} {'γ':>5} {'T':>9}  {'regime':<10} {'chosen t':>9} "
        f"{'validation':>10} {'test':>7} {'t = ∞':>7}"
    )
    lines = [header, "─" * len(header)]
    for row in rows:
        depth = "∞" if row.depth == math.inf else str(row.depth)
        time = "∞" if row.effective_time == math.inf else f"{row.effective_time:.4g}"
        stop = "∞" if row.stopping_time == math.inf else f"{row.stopping_time:.3g}"
        lines.append(
            f"{depth:>8} {row.gamma:>5g} {time:>9}  {row.regime:<10} {stop:>9} "
            f"{row.validation_accuracy:>10.1%} {row.test_accuracy:>7.1%} "
            f"{row.test_accuracy_at_infinity:>7.1%}"
        )
    return "\n".join(lines)


_PACKAGES = (
    "nt-residual",
    "jax",
    "jaxlib",
    "neural-tangents",
    "flax",
    "optax",
    "tensorstore",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _doctor(options: argparse.Namespace) -> int:
    del options
    import jax

    versions = _versions()
    width = max(map(len, versions)) + 2
    for package, version in versions.items():
        print(f"{package:<{width}}{version}")
    print()
    devices = jax.devices()
    print(f"{'devices':<{width}}{len(devices)} × {devices[0].device_kind} ({devices[0].platform})")
    x64 = "on" if jax.config.read("jax_enable_x64") else "off: float64 inputs become float32"
    print(f"{'float64':<{width}}{x64}")
    try:
        importlib.import_module("neural_tangents")
    except ImportError as error:
        print(f"{'stax':<{width}}does not work: {error}")
        return 1
    print(f"{'stax':<{width}}works: neural_tangents imports")
    tensorflow = "imported" if "tensorflow" in sys.modules else "not imported"
    print(f"{'tensorflow':<{width}}{tensorflow}")
    return 0
