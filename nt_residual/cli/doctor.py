"""`nt-residual doctor`: what is installed, and whether it works."""

import argparse
import importlib
import sys
from typing import Any

from nt_residual.cli import options


def add(commands: Any) -> options.Parser:
    """Adds the command."""
    return commands.add_parser(
        "doctor",
        help="show versions, devices and what works",
        description="Shows versions, devices and what works.",
        epilog="example: nt-residual doctor",
    )


def run(chosen: argparse.Namespace) -> int:
    """Runs the command."""
    del chosen
    import jax

    from nt_residual import machine

    found = machine.versions()
    width = max(map(len, found)) + 2
    for package, version in found.items():
        print(f"{package:<{width}}{version}")
    print()
    print(f"{'devices':<{width}}{machine.devices()}")
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
