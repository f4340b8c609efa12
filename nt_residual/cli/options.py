"""What commands share: how words become values, and how what is wrong with them is said."""

import argparse
import contextlib
import importlib.util
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn


class InputError(ValueError):
    """What the user passed is wrong, rather than the run: the exit status is 2."""


@contextlib.contextmanager
def wrong_input() -> Iterator[None]:
    """Makes errors about values, types and missing files those of the user's input.

    Example:
      >>> with wrong_input():
      ...     int("ten")
      Traceback (most recent call last):
      nt_residual.cli.options.InputError: invalid literal for int() with base 10: 'ten'
    """
    from numpy.linalg import LinAlgError

    try:
        yield
    except LinAlgError:
        raise  # A ValueError, but of the computation.
    except (ValueError, TypeError, FileNotFoundError, FileExistsError) as error:
        raise InputError(str(error)) from error


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Tells the defaults of options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        unset = action.default is None or action.default is False
        return action.help if unset else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose errors take one line.

    `more_help` is called for what is known only where help is asked for.
    """

    more_help: Callable[[], str] | None = None

    def __init__(self, *, formatter_class: Any = _Formatter, **options: Any):
        super().__init__(formatter_class=formatter_class, **options)

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2."""
        self.exit(2, f"{self.prog}: error: {one_line(message)}; see --help\n")

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:
        """Refuses what is unknown here, where the command that it was passed to is known."""
        chosen, unknown = super().parse_known_args(*arguments, **options)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return chosen, unknown

    def format_help(self) -> str:
        """All that `--help` prints."""
        more = self.more_help() if self.more_help else ""
        return super().format_help() + more


def one_line(error: Any) -> str:
    r"""The text of an error in one line.

    Example:
      >>> one_line(ValueError("first\n  second"))
      'first second'
    """
    return " ".join(line.strip() for line in str(error).splitlines())


def checked(
    convert: Callable[[str], Any], valid: Callable[[Any], bool], expected: str
) -> Callable[[str], Any]:
    """A converter for argparse whose error says what was expected.

    Example:
      >>> checked(int, lambda n: n > 0, "a positive integer")("0")
      Traceback (most recent call last):
      argparse.ArgumentTypeError: expected a positive integer, got '0'
    """

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not valid(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse


depth = checked(
    lambda text: math.inf if text == "inf" else int(text), lambda d: d >= 1, "an integer ≥ 1 or inf"
)
gamma = checked(float, lambda g: 0 <= g < math.inf, "a finite number ≥ 0")
positive = checked(float, lambda c: 0 < c < math.inf, "a finite number > 0")
fraction = checked(float, lambda f: 0 <= f < 1, "a number in [0, 1)")
seed = checked(int, lambda s: 0 <= s < 2**32, "an integer in [0, 2^32)")


def at_least(least: int) -> Callable[[str], int]:
    """A converter for integers that are not too small."""
    return checked(int, lambda n: n >= least, f"an integer ≥ {least}")


def path_ending(*endings: str) -> Callable[[str], pathlib.Path]:
    """A converter for names of files, whose ending tells the format."""
    listed = " or ".join(endings)
    expected = f"a file that ends in {listed}"
    return checked(pathlib.Path, lambda path: str(path).lower().endswith(endings), expected)


def add_network(parser: argparse.ArgumentParser) -> None:
    """Adds what describes a network: its depth, α = c·L^(−γ), and what of it is trained."""
    parser.add_argument(
        "--depth", type=depth, default=1000, help="number of residual blocks L, or inf"
    )
    parser.add_argument("--gamma", type=gamma, default=0.5, help="γ in α = c·L^(−γ)")
    parser.add_argument("--c", type=positive, default=1.0, help="c in α = c·L^(−γ)")
    parser.add_argument(
        "--trained", choices=["blocks", "all"], default="blocks", help="what layers are trained"
    )


def add_kind(parser: argparse.ArgumentParser) -> None:
    """Adds the choice between the two kernels of a network."""
    parser.add_argument(
        "--kind",
        choices=["ntk", "nngp"],
        default="ntk",
        help="kernel: ntk, or nngp for training of the output layer alone",
    )


def add_root(parser: argparse.ArgumentParser) -> None:
    """Adds where the files of data sets are."""
    parser.add_argument(
        "--root", type=pathlib.Path, help="folder with the files of the data set, for no download"
    )


def check_packages(purpose: str, modules: Mapping[str, str]) -> None:
    """Refuses to go on without some packages, before any work.

    Args:
      purpose: what needs them.
      modules: the name by which each is imported, by that by which it is installed.

    Raises:
      ImportError: if one is missing.
    """
    missing = [name for name in modules if importlib.util.find_spec(modules[name]) is None]
    if missing:
        raise ImportError(
            f"{purpose} needs {' and '.join(missing)}, not installed here: "
            f"pip install {' '.join(missing)}"
        )


def check_output(path: pathlib.Path | None) -> None:
    """Refuses a file that cannot be written for want of a folder, before any work.

    Raises:
      InputError: if its folder does not exist, or it is a folder itself.
    """
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"--out must be a file, got the folder {path}: pass a name in it")
    if not path.parent.is_dir():
        raise InputError(
            f"--out must be in a folder that exists, got {path}: make the folder {path.parent}"
        )


def number(value: float, digits: int = 4) -> str:
    """A number as tables show it.

    Example:
      >>> number(math.inf), number(31.128), number(1000.0)
      ('∞', '31.13', '1000')
    """
    return "∞" if value == math.inf else f"{value:.{digits}g}"


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Prints pairs of a name and a text, the texts below each other."""
    for name, text in facts:
        print(f"{name:<12}{text}", flush=True)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints columns of texts, each as wide as it must be, aligned to the right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for i, line in enumerate(lines):
        text = "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print(text)
        if i == 0:
            print("─" * len(text))
