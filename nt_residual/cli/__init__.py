"""The command `nt-residual`, one file for each of its commands.

Nothing that takes time is imported before a command runs.
"""

import os
import sys
import traceback
from collections.abc import Sequence

import nt_residual
from nt_residual.cli import bench, demo, doctor, fit, options, predict, regime, reproduce, spectrum

_COMMANDS = (demo, fit, predict, regime, spectrum, reproduce, bench, doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: the words after `nt-residual`; `None` for those of the process.

    Returns:
      The exit status: 0, 1 if the run failed, 2 if what was passed is wrong, 130 if it was
      interrupted.

    Raises:
      SystemExit: with status 2 if the words are none of those that `--help` lists.
    """
    chosen = _parser().parse_args(arguments)
    try:
        status = chosen.command(chosen)
        # Here, where a reader that has gone away is expected.
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Python would fail once more, as it flushes the output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(f"\nnt-residual: interrupted, {chosen.interrupted}", file=sys.stderr)
        return 130
    except Exception as error:
        if chosen.debug:
            traceback.print_exc()
        else:
            print(_in_one_line(error, chosen.name), file=sys.stderr)
        return 2 if isinstance(error, options.InputError) else 1


def _in_one_line(error: Exception, name: str) -> str:
    text = options.one_line(error)
    if isinstance(error, options.InputError):
        return f"nt-residual {name}: error: {text}"
    if isinstance(error, ImportError | OSError | ValueError | MemoryError):
        return f"nt-residual: {text}"
    return f"nt-residual: {type(error).__name__}: {text} (--debug shows where)"


def _parser() -> options.Parser:
    parser = options.Parser(
        prog="nt-residual", description="Infinitely wide residual networks of any depth, in JAX."
    )
    parser.add_argument("--version", action="version", version=nt_residual.__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for module in _COMMANDS:
        name = module.__name__.rpartition(".")[2]
        command = module.add(commands)
        command.set_defaults(name=name, command=module.run, debug=False)
        command.set_defaults(interrupted=getattr(module, "INTERRUPTED", "nothing was written"))
        if module is not bench:  # Which hands on all that it is given.
            command.add_argument(
                "--debug", action="store_true", help="show where an error comes from"
            )
    return parser
