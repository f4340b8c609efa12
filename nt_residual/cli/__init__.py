"""The command `nt-residual`.

Each of its commands is a file. The docstring of the file is the help text, of which the last
paragraph is an example; `add_options(parser)` declares the options, if any, and `run(chosen)`
returns the exit status. Nothing slow is imported before a command runs.
"""

import argparse
import inspect
import os
import sys
import traceback
from collections.abc import Sequence

import nt_residual
from nt_residual.cli import bench, demo, doctor, regime, reproduce, spectrum

_COMMANDS = (demo, regime, spectrum, reproduce, bench, doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
      arguments: the words after `nt-residual`; `None` for those of the process.

    Returns:
      The exit status: 0, 1 if the run failed, 130 if it was interrupted.

    Raises:
      SystemExit: with status 2 if the words are not among those that `--help` lists.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # `bench` passes its options on to the benchmarks.
    count = 1 if words[:1] == ["bench"] else len(words)
    chosen = _parser().parse_args(words[:count])
    chosen.rest = words[count:]
    try:
        status = chosen.run(chosen)
        # Here, where a closed pipe is expected.
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Python flushes stdout once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("\nnt-residual: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if chosen.debug:
            traceback.print_exc()
        else:
            print(f"nt-residual {chosen.name}: error: {_in_one_line(error)}", file=sys.stderr)
        return 1


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, ImportError | OSError | ValueError | MemoryError):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nt-residual", description="Infinitely wide residual networks of any depth, in JAX."
    )
    parser.add_argument("--version", action="version", version=nt_residual.__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for module in _COMMANDS:
        name = module.__name__.rpartition(".")[2]
        text, _, example = (inspect.getdoc(module) or "").rpartition("\n\n")
        command = commands.add_parser(
            name,
            help=text.partition("\n")[0].rstrip("."),
            description=text,
            epilog=f"example: {example.strip()}",
        )
        command.set_defaults(name=name, run=module.run)
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
        if hasattr(module, "add_options"):
            module.add_options(command)
    return parser
