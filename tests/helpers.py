"""What several test modules share."""

import contextlib
import json
import math
import pathlib
import subprocess
import sys

import jax

_REFERENCE = pathlib.Path(__file__).parent / "reference" / "rntk_reference.json"


# Kernel values from 40-digit arithmetic, rounded to 18 digits.
REFERENCE = json.loads(_REFERENCE.read_text())


def _reference_alphas(row: dict) -> tuple[float, ...]:
    if "depth" in row:
        return (row["c"] * float(row["depth"]) ** -row["gamma"],) * row["depth"]
    prefix, depth = row["alphas"].split("..")
    assert prefix == "1/l, l=1"
    return tuple(1 / block for block in range(1, int(depth) + 1))


def _by_network() -> list[tuple[tuple[float, ...], list[dict]]]:
    networks = {}
    for row in REFERENCE["power_law"] + REFERENCE["layerwise"]:
        networks.setdefault(_reference_alphas(row), []).append(row)
    return list(networks.items())


# The rows of finite depth, as pairs of the α of each block and that network's rows.
REFERENCE_NETWORKS = _by_network()


def enable_x64(enabled: bool = True) -> contextlib.AbstractContextManager:
    """`jax.enable_x64`, under the name that the installed JAX has for it."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(enabled)
    from jax.experimental import enable_x64 as experimental_enable_x64

    return experimental_enable_x64(enabled)


def naive_kernel(x1, x2, alphas, *, kind="ntk", trained="blocks"):
    """The un-normalised kernel of two inputs, by the textbook recursion in float64."""

    def kappa0(u):
        return 1 - math.acos(u) / math.pi

    def kappa1(u):
        return (u * (math.pi - math.acos(u)) + math.sqrt(1 - u * u)) / math.pi

    k11, k22, k12 = float(x1 @ x1), float(x2 @ x2), float(x1 @ x2)
    ntk = k12 if trained == "all" else 0.0
    for alpha in alphas:
        norms = math.sqrt(k11 * k22)
        u = max(-1.0, min(1.0, k12 / norms))
        branch = norms * kappa1(u)
        # From V, from W, and from all that lies below.
        ntk += alpha**2 * (branch + (k12 + ntk) * kappa0(u))
        k12 += alpha**2 * branch
        k11, k22 = k11 * (1 + alpha**2), k22 * (1 + alpha**2)
    if kind == "nngp":
        return k12
    return ntk + k12 if trained == "all" else ntk


def run_python(code: str) -> subprocess.CompletedProcess:
    """Runs code in a fresh interpreter, in which nothing is imported yet."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
