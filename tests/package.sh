#!/usr/bin/env bash
# Builds the wheel and the source distribution, checks them, and installs the wheel where nothing
# else is, with the command of docs/install.md that leaves TensorFlow out.
#
#     tests/package.sh FOLDER, where the files go; uv is on the PATH
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:?usage: tests/package.sh FOLDER}"
dist=$(cd "$1" && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uvx --quiet --from build pyproject-build --installer uv --outdir "$dist" "$root" >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; exit 1; }
uvx --quiet twine check --strict "$dist"/*

wheel=$(ls "$dist"/*.whl)
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$root/nt_residual/__init__.py")
test "$(basename "$wheel")" = "nt_residual-$version-py3-none-any.whl"
uv venv --quiet --python 3.11 "$work/bare"
{
    echo "set -e; pip() { uv pip \"\$@\" --quiet --python '$work/bare'; }"
    sed -n "/^pip install 'jax/,/^pip install --no-deps/p" "$root/docs/install.md" |
        sed "s|\(--no-deps .*\) \.\$|\1 '$wheel'|"
} >"$work/install.sh"
grep -q "$wheel" "$work/install.sh"
bash "$work/install.sh"

cd "$work"
unset PYTHONPATH  # It might lead to the clone itself.
"$work/bare/bin/python" - "$version" <<'PROGRAM'
import importlib.util
import sys

import nt_residual
from nt_residual import neural_tangents, regression

assert nt_residual.__version__ == sys.argv[1]
assert "bare" in nt_residual.__file__, nt_residual.__file__
assert importlib.util.find_spec("tensorflow") is None
assert regression.RNTKRegressor().fit([[0.0], [1.0]], [0.0, 1.0]).predict([[1.0]]).shape == (1,)
PROGRAM
"$work/bare/bin/nt-residual" doctor
