"""Oracles and helpers of several test modules."""

import json
import math
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.experimental import io_callback

from nt_residual.compat import enable_x64 as enable_x64

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


def naive_kernel(x1, x2, alphas, *, kind="ntk", trained="blocks"):
    """The un-normalized kernel of two inputs, by the textbook recursion in float64."""

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


def _average_patches(k, padding):
    """The covariance of a 3x3 convolution of weights of variance 1/9."""
    height, width = k.shape[:2]
    out = np.zeros_like(k)
    for i, j, a, b in np.ndindex(*k.shape):
        for di, dj in np.ndindex(3, 3):
            p, q, r, s = i + di - 1, j + dj - 1, a + di - 1, b + dj - 1
            if padding == "CIRCULAR":
                out[i, j, a, b] += k[p % height, q % width, r % height, s % width] / 9
            elif 0 <= p < height and 0 <= q < width and 0 <= r < height and 0 <= s < width:
                out[i, j, a, b] += k[p, q, r, s] / 9
    return out


def _relu_moments(k11, k12, k22):
    """E[σ(a) σ(b)] and E[σ'(a) σ'(b)] for all pairs of pixels of two images."""
    moment, slope = np.zeros_like(k12), np.zeros_like(k12)
    for i, j, a, b in np.ndindex(*k12.shape):
        norms = math.sqrt(k11[i, j, i, j] * k22[a, b, a, b])
        u = max(-1.0, min(1.0, k12[i, j, a, b] / norms))
        angle = 0.0 if k12 is k11 and (i, j) == (a, b) else math.acos(u)
        moment[i, j, a, b] = norms * (math.sin(angle) + (math.pi - angle) * math.cos(angle))
        slope[i, j, a, b] = math.pi - angle
    return moment / (2 * math.pi), slope / (2 * math.pi)


def naive_conv_kernel(x1, x2, alphas, *, pooling, trained, normalize, padding="SAME"):
    """NNGP and NTK of `stax.ConvResNet` for two images of shape (height, width, channels)."""
    x1, x2 = (np.asarray(x, float) for x in (x1, x2))

    def average(k):
        return _average_patches(k, padding)

    def covariance(a, b):
        return np.einsum("ijc,klc->ijkl", a, b) / a.shape[-1]

    same = np.array_equal(x1, x2)
    k11, k12, k22 = (average(covariance(*pair)) for pair in ((x1, x1), (x1, x2), (x2, x2)))
    ntk = k12 if trained == "all" else np.zeros_like(k12)
    for alpha in alphas:
        hidden = [2 * average(k) for k in (k11, k12, k22)]
        h11, h12, h22 = (hidden[0],) * 3 if same else hidden
        moment, slope = _relu_moments(h11, h12, h22)
        # From the first convolution and what lies below, through the nonlinearity.
        below = slope * (h12 + 2 * average(ntk))
        branch_ntk = average(moment) + average(below)
        branches = [
            average(_relu_moments(a, b, c)[0])
            for a, b, c in ((h11, h11, h11), (h11, h12, h22), (h22, h22, h22))
        ]
        scale = 1 + alpha**2 if normalize else 1
        ntk = (ntk + alpha**2 * branch_ntk) / scale
        k11, k12, k22 = (
            (k + alpha**2 * branch) / scale
            for k, branch in zip((k11, k12, k22), branches, strict=True)
        )
    if pooling == "gap":
        nngp, ntk = np.mean(k12), np.mean(ntk)
    else:
        nngp, ntk = (np.mean(np.einsum("ijij->ij", k)) for k in (k12, ntk))
    return nngp, ntk + nngp if trained == "all" else ntk


def matrix_of_spectrum(eigenvalues, rng):
    """A symmetric matrix with these eigenvalues, and eigenvectors drawn at random."""
    n = len(eigenvalues)
    vectors, _ = np.linalg.qr(rng.standard_normal((n, n)))
    matrix = vectors * eigenvalues @ vectors.T
    return (matrix + matrix.T) / 2


def counting(kernel):
    """A kernel, and the list of the numbers of entries of the tiles that it has computed."""
    sizes = []

    def counted(a, b):
        def tick():
            sizes.append(len(a) * len(b))
            return np.float32(0)

        # The tile waits for this; for `jax.debug.callback` it would not.
        return kernel(a, b) + io_callback(tick, jax.ShapeDtypeStruct((), np.float32))

    return counted, sizes


def collectives(program):
    """The shapes that a compiled program sends between devices, and how."""
    found = re.findall(
        r"= (.*?) (all-[\w-]+|collective-[\w-]+|reduce-scatter[\w-]*)\(", program.as_text()
    )
    return [(re.sub(r"{[^}]*}", "", shapes), how) for shapes, how in found]


def finite_difference(fn, x, step=1e-4):
    """The derivative of a function of one number, to the fourth order in `step`."""
    half, full = ((fn(x + h) - fn(x - h)) / (2 * h) for h in (step / 2, step))
    return (4 * half - full) / 3


def run_python(code: str, *arguments: str, devices: int = 1) -> subprocess.CompletedProcess:
    """Runs code in a fresh interpreter, in which nothing is imported yet.

    `devices` is the number of CPU devices that JAX will see there.
    """
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
    )


def mainly(dtype):
    """Runs a test that uses the fixture `dtype` in this one, and in the other if all are run."""
    other = {"float32": "float64", "float64": "float32"}[dtype]
    rest = pytest.param(other, marks=pytest.mark.full)
    return pytest.mark.parametrize("dtype", [dtype, rest], indirect=True)


def full(*values):
    """Parameters of a test with which it runs only if all are run."""
    return [pytest.param(value, marks=pytest.mark.full) for value in values]
