"""Every name that neural-tangents takes from JAX is there, also those asked for at run time."""

import ast
import importlib
import pathlib
import types
import warnings

import neural_tangents as nt
import pytest

ROOT = pathlib.Path(nt.__file__).parent
MODULES = sorted(
    ".".join((nt.__name__, *path.relative_to(ROOT).with_suffix("").parts))
    for path in (ROOT / "_src").rglob("*.py")
    if path.name != "__init__.py"
)


def _functions_of_its_own(module, tree):
    """The parts of a module that still run, without the functions that compat replaces."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            function = getattr(module, node.name)
            if getattr(function, "__module__", "").startswith("nt_residual"):
                continue
        yield node


def _chain(node):
    """`a.b.c` as ('a', ['b', 'c'])."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id if isinstance(node, ast.Name) else None), names[::-1]


def _missing(module):
    tree = ast.parse(pathlib.Path(module.__file__).read_text())
    for statement in _functions_of_its_own(module, tree):
        for node in ast.walk(statement):
            if not isinstance(node, ast.Attribute):
                continue
            start, names = _chain(node)
            found = vars(module).get(start)
            for name in names:
                if not isinstance(found, types.ModuleType):
                    break
                try:
                    found = getattr(found, name)
                except (AttributeError, Warning) as error:
                    yield f"line {node.lineno}: {'.'.join([start, *names])}: {error}"
                    break


@pytest.mark.parametrize("name", MODULES)
def test_no_name_is_missing_or_deprecated_in(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not list(_missing(importlib.import_module(name)))
