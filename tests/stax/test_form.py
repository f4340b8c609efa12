"""Files of `nt_residual.stax` keep the form of neural-tangents, and can become part of it."""

import ast
import importlib.util
import inspect
import pathlib
import shutil
import sys

import neural_tangents as nt
import pytest
from helpers import run_python

from nt_residual import stax

FOLDER = pathlib.Path(inspect.getfile(stax)).parent
FILES = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")
FACTORIES = {name: f for name, f in vars(stax).items() if name[0].isupper()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_have_the_license_and_imports_that_neural_tangents_allows(path):
    assert "SPDX-License-Identifier: Apache-2.0" in path.read_text()
    allowed = {"jax", "numpy", "neural_tangents"} | sys.stdlib_module_names
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module]
        else:
            continue
        for module in modules:
            assert module.split(".")[0] in allowed
            assert "_src" not in module
    for name in {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "stax"
    }:
        assert hasattr(nt.stax, name)


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_factories_are_documented_as_those_of_neural_tangents_are(factory):
    sections = inspect.getdoc(factory).splitlines()
    assert "Example:" in sections
    # Typed into a new session, too: neural_tangents can be imported after nt_residual only.
    assert "nt_residual" in next(line for line in sections if ">>>" in line)
    assert "Returns:" in sections
    assert "  `(init_fn, apply_fn, kernel_fn)`" in inspect.getdoc(factory)
    for name in inspect.signature(factory).parameters:
        assert any(line.startswith(f"  {name}:") for line in sections)


def test_files_work_unchanged_inside_neural_tangents(tmp_path):
    package = tmp_path / "neural_tangents"
    shutil.copytree(pathlib.Path(nt.__file__).parent, package)
    for path in FILES:
        shutil.copy(path, package / "_src" / "stax")
    for name in ("schedules", "_checks"):
        shutil.copy(importlib.util.find_spec(f"nt_residual.{name}").origin, package / "_src")
    with (package / "stax.py").open("a") as file:
        for name, factory in FACTORIES.items():
            file.write(f"from ._src.stax.{inspect.unwrap(factory).__module__.split('.')[-1]} ")
            file.write(f"import {name}\n")
    result = run_python(f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import nt_residual
import jax.numpy as jnp
from neural_tangents import stax
assert stax.__file__.startswith({str(tmp_path)!r})
x = jnp.ones((2, 3))
block = stax.Residual(stax.serial(stax.Dense(3), stax.Relu(), stax.Dense(3)), 0.5)
stack = stax.ResidualStack(stax.serial(stax.Relu(), stax.Dense(8)), [0.5, 0.2])
net = stax.serial(block, stax.Frozen(stax.Dense(8)), stax.Scale(2.0), stack)
assert net[2](x, None, "ntk").shape == (2, 2)
assert stax.ConvResNet(2, 8)[2](jnp.ones((2, 4, 4, 3)), None, "ntk").shape == (2, 2)
assert not any(name.startswith("nt_residual.stax") for name in sys.modules)
""")
    assert result.returncode == 0, result.stderr
