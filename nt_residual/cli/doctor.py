"""Show versions, devices, and whether neural-tangents works.

The exit status is 1 if neural-tangents cannot be imported.

nt-residual doctor
"""

import argparse
import importlib
import sys


def run(chosen: argparse.Namespace) -> int:
    """Run the command."""
    del chosen
    import jax

    from nt_residual import machine

    facts = machine.versions()
    facts["devices"] = machine.devices()
    float64 = jax.config.read("jax_enable_x64")
    facts["float64"] = "on" if float64 else "off: float64 inputs become float32"
    try:
        importlib.import_module("neural_tangents")
        facts["stax"] = "works: neural_tangents imports"
    except ImportError as error:
        facts["stax"] = f"does not work: {error}"
    facts["tensorflow"] = "imported" if "tensorflow" in sys.modules else "not imported"
    width = max(map(len, facts)) + 2
    for name, fact in facts.items():
        print(f"{name:<{width}}{fact}")
    return int(facts["stax"].startswith("does not"))
