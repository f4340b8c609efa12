#!/usr/bin/env bash
# Checks the TPU notebook where Colab has it: Python 3.13, JAX 0.7.2, Flax 0.11.2 and nothing of
# this project. The notebook's own first cell must install it, without TensorFlow, and leave JAX
# as it is; then the notebook must run, on eight simulated devices.
#
#     tests/colab.sh PYTHON [WHEEL], where PYTHON is an interpreter of version 3.13; uv is on the
#     PATH. The package is installed from the wheel, or from this clone.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
base=${1:?usage: tests/colab.sh PYTHON [WHEEL]}
source=${2:-$root}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "$base" "$work/colab"
python="$work/colab/bin/python"
uv pip install --quiet --python "$python" pip 'jax==0.7.2' 'jaxlib==0.7.2' 'flax==0.11.2' \
    numpy scipy scikit-learn matplotlib tqdm psutil optax

cd "$work"
export NT_RESIDUAL_SOURCE="$source" NT_RESIDUAL_FAST=1 NT_RESIDUAL_BENCHMARKS="" MPLBACKEND=Agg
unset PYTHONPATH  # It might lead to the clone itself.
export XLA_FLAGS=--xla_force_host_platform_device_count=8
"$python" - "$root/examples/notebooks/residual_kernels_on_tpu.ipynb" <<'PROGRAM'
import importlib.metadata
import importlib.util
import json
import sys

assert importlib.util.find_spec("nt_residual") is None, "nt_residual is here before it is installed"
with open(sys.argv[1], encoding="utf-8") as file:
    cells = [cell for cell in json.load(file)["cells"] if cell["cell_type"] == "code"]
code = ["".join(cell["source"]) for cell in cells]
names = {"__name__": "__main__"}

exec(code[0], names)
for name, version in {"jax": "0.7.2", "jaxlib": "0.7.2", "flax": "0.11.2"}.items():
    found = importlib.metadata.version(name)
    assert found == version, f"{name} must stay at {version}, is at {found}"
for name in ("tensorflow", "tf2jax"):
    assert importlib.util.find_spec(name) is None, f"{name} must not be installed"
import nt_residual, neural_tangents  # noqa: E401, F401

import jax

assert jax.device_count() == 8
for cell in code[1:]:
    exec(cell, names)
assert len(names["k"].addressable_shards) == 8, "the matrix must be spread over eight devices"
PROGRAM
