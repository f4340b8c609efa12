"""How far float32 kernels are from exact ones, with each ReLU, and what accuracy costs.

    uv run python benchmarks/relu_precision.py [--out FILE]

The NTK of residual networks of several depths (α = L^(−1/2)) between inputs of which some
nearly coincide, with `neural_tangents.stax.Relu` and with `nt_residual.stax.Relu`, in float32.
The reference is the latter in float64. Errors are relative to the diagonal: on it, off it,
and the smallest eigenvalue, which is negative where a kernel is not positive semi-definite.
"""

import argparse
import pathlib

import nt_residual  # isort: split

import common
import jax
import numpy as np
from neural_tangents import stax

RELUS = {"neural_tangents": stax.Relu, "nt_residual": nt_residual.stax.Relu}
DEPTHS = (1, 10, 100, 1000)
DISTANCES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def kernel_fn(relu, depth):
    """The NTK of a residual network, as a function of its inputs."""
    branch = stax.serial(stax.Dense(64, W_std=2**0.5), relu(), stax.Dense(64))
    stack = nt_residual.stax.ResidualStack(branch, np.full(depth, depth**-0.5))
    _, _, fn = stax.serial(stax.Dense(64), stack, stax.Dense(1))
    return jax.jit(lambda x: fn(x, None, "ntk"))


def inputs(distance, n=50, dim=20):
    """Standard normal inputs, and the same moved by standard normal times `distance`."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, n, dim))
    return np.concatenate([x, x + distance * noise]).astype("float32")


def errors(kernel, reference):
    """Errors relative to the diagonal of the reference."""
    deviations = np.sqrt(np.diag(reference))
    relative = np.asarray(kernel, float) / np.outer(deviations, deviations)
    expected = reference / np.outer(deviations, deviations)
    difference = np.abs(relative - expected)
    return {
        "diagonal": float(np.diag(difference).max()),
        "off_diagonal": float((difference - np.diag(np.diag(difference))).max()),
        "smallest_eigenvalue": float(np.linalg.eigvalsh(relative)[0]),
        "smallest_eigenvalue_exact": float(np.linalg.eigvalsh(expected)[0]),
    }


def reference_kernel(x, depth):
    """The NTK in float64."""
    jax.config.update("jax_enable_x64", True)
    try:
        return np.asarray(kernel_fn(nt_residual.stax.Relu, depth)(x.astype("float64")))
    finally:
        jax.config.update("jax_enable_x64", False)


def main():
    """Prints a table, and writes the numbers as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, help="write the numbers there, as JSON")
    arguments = parser.parse_args()

    jax.config.update("jax_default_matmul_precision", "highest")
    result = {**common.machine(), "errors": {}, "time": {}}
    print(result["device"], result["versions"])
    print(
        f"{'blocks':>7} {'distance':>8} {'ReLU of':16} {'diagonal':>9} {'off it':>9} {'λ min':>9}"
    )
    for depth in DEPTHS:
        result["errors"][depth] = {}
        for distance in DISTANCES:
            x = inputs(distance)
            reference = reference_kernel(x, depth)
            rows = {
                name: errors(kernel_fn(relu, depth)(x), reference) for name, relu in RELUS.items()
            }
            result["errors"][depth][distance] = rows
            for name, row in rows.items():
                print(
                    f"{depth:7} {distance:8.0e} {name:16} {row['diagonal']:9.1e} "
                    f"{row['off_diagonal']:9.1e} {row['smallest_eigenvalue']:9.1e}"
                )
    x = np.random.default_rng(0).normal(size=(1000, 20)).astype("float32")
    for name, relu in RELUS.items():
        compiled, compile_time = common.compile_timed(kernel_fn(relu, 100), x)
        compiled(x).block_until_ready()
        result["time"][name] = {"compile_s": compile_time, "run_s": common.best_time(compiled, x)}
    ratio = result["time"]["nt_residual"]["run_s"] / result["time"]["neural_tangents"]["run_s"]
    result["time"]["ratio"] = ratio
    print(f"time of 100 blocks on 1000 inputs, relative to neural-tangents' ReLU: {ratio:.2f}")
    common.write(result, arguments.out)


if __name__ == "__main__":
    main()
