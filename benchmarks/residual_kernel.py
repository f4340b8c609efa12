"""What `rntk.ResidualKernel` costs and how accurate it is in float32.

    uv run python benchmarks/residual_kernel.py [--n 4000] [--features 784] [--out FILE]

Times are ratios to the bare product `x @ x.T` of the same inputs, in float32 and of
precision 'highest', measured right before. Beside it stands neural-tangents' own kernel of
the same network (`stax.repeat`), whose cost grows with depth. What building the series costs,
once per kernel, is measured apart.

Errors are against the recursion in float64 for the same float32 inputs, as fractions of the
diagonal: between random inputs, and near-coincident ones at angles from 1 to 1e-7. The
smallest eigenvalue is that of 500 points of which 100 are near-duplicates of others.
"""

import argparse
import functools
import math
import pathlib
import time

import common
import jax
import jax.numpy as jnp
import numpy as np
from networks import nt_kernel, points

from nt_residual import rntk, schedules
from nt_residual.compat import enable_x64

TIMED = ((10, 1.0), (1000, 1.0), (10**6, 1.0), (math.inf, 1.0), (1000, 0.5), (1000, 0.0))
CHECKED = ((1, 0.0), (10, 0.0), (100, 0.0), (1000, 0.0), (1000, 0.25), (1000, 0.5), (1000, 1.0))
BUILT = ((1000, 1.0), (10**4, 1.0), (10**4, 0.0), (10**6, 1.0), (math.inf, 0.5))
NT_DEPTHS = (10, 100)


def with_neighbors(features, n=500, neighbors=100):
    """Inputs, the last of which are at angles 1 to 1e-5 from others."""
    x = points(n, features)
    angles = np.geomspace(1, 1e-5, neighbors)[:, None]
    step = points(neighbors, features, seed=1)
    origin = x[:neighbors].astype(float)
    unit = origin / np.linalg.norm(origin, axis=1, keepdims=True)
    step = step - (step * unit).sum(1, keepdims=True) * unit
    step *= np.linalg.norm(origin, axis=1, keepdims=True) / np.linalg.norm(
        step, axis=1, keepdims=True
    )
    x[-neighbors:] = np.cos(angles) * origin + np.sin(angles) * step
    # Not of one norm: half of them are three times as long.
    x[-neighbors::2] *= 3
    return x


@functools.cache
def exact(features, depth, gamma):
    """The kernel of those inputs from the recursion in float64."""
    x = with_neighbors(features)
    with enable_x64():
        return np.asarray(
            rntk.recursive_kernel(x.astype(float), schedule=schedules.PowerLaw(gamma), depth=depth)
        )


def accuracy(kernel_of, features):
    """The largest error of kernels between inputs with neighbors, and the smallest eigenvalue."""
    x = with_neighbors(features)
    rows = {}
    for depth, gamma in CHECKED:
        expected = exact(features, depth, gamma)
        deviations = np.sqrt(np.diag(expected))
        expected = expected / np.outer(deviations, deviations)
        got = np.asarray(kernel_of(depth, gamma)(x), float)
        scale = np.sqrt(np.diag(got)) if kernel_of is nt_kernel else deviations
        got = got / np.outer(scale, scale)
        finite = bool(np.isfinite(got).all())
        rows[f"L={depth}, γ={gamma:g}"] = {
            "error": float(np.abs(got - expected).max()) if finite else None,
            "smallest_eigenvalue": float(np.linalg.eigvalsh(got)[0]) if finite else None,
            "smallest_eigenvalue_exact": float(np.linalg.eigvalsh(expected)[0]),
        }
    return rows


def our_kernel(depth, gamma):
    """The kernel that this benchmark is about."""
    return rntk.ResidualKernel(depth, schedules.PowerLaw(gamma))


def timed(x, other, repeats):
    """Run times of all depths, relative to the bare product measured next to each."""
    product = jax.jit(lambda x: jnp.matmul(x, x.T, precision="highest"))
    product(x).block_until_ready()
    rows = {}
    calls = {
        "symmetric": lambda kernel: kernel(x),
        "rectangular": lambda kernel: kernel(x, other),
        "each input once more": lambda kernel: kernel(x, 1.0 * x),
    }
    for depth, gamma in TIMED:
        kernel = our_kernel(depth, gamma)
        row = rows[f"L={depth}, γ={gamma:g}"] = {"coefficients": len(kernel.coefficients)}
        for name, call in calls.items():
            call(kernel).block_until_ready()
            bare = common.best_time(product, x, repeats=repeats)
            row[name] = common.best_time(call, kernel, repeats=repeats) / bare
        row["product_s"] = bare
    return rows


def timed_nt(x, repeats=1):
    """Run times of neural-tangents, likewise."""
    product = jax.jit(lambda x: jnp.matmul(x, x.T, precision="highest"))
    product(x).block_until_ready()
    rows = {}
    for depth in NT_DEPTHS:
        compiled, compile_time = common.compile_timed(nt_kernel(depth, 0.5), x)
        bare = common.best_time(product, x)
        run = common.best_time(compiled, x, repeats=repeats)
        rows[f"L={depth}, γ=0.5"] = {"compile_s": compile_time, "symmetric": run / bare}
    return rows


def built():
    """Seconds to build the series of a kernel, the first time."""
    rows = {}
    for depth, gamma in BUILT:
        # A little off, so that nothing is found in the cache.
        kernel = rntk.ResidualKernel(depth, schedules.PowerLaw(gamma, c=1.01))
        start = time.perf_counter()
        kernel.coefficients  # noqa: B018
        rows[f"L={depth}, γ={gamma:g}"] = time.perf_counter() - start
    return rows


def main():
    """Prints tables, and writes the numbers as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=4000, help="how many inputs are timed")
    parser.add_argument("--features", type=int, default=784, help="of each input")
    parser.add_argument("--repeats", type=int, default=10, help="timings, of which the best counts")
    parser.add_argument("--out", type=pathlib.Path, help="write the numbers there, as JSON")
    arguments = parser.parse_args()

    jax.config.update("jax_default_matmul_precision", "highest")
    result = {**common.machine(), "n": arguments.n, "features": arguments.features}
    print(result["device"], result["versions"])

    # Checked before anything is timed.
    result["accuracy"] = {}
    print(f"\n{'float32':28} {'ours: error':>12} {'λ min':>9} {'NT: error':>11} {'λ min':>9}")
    for features in (3, arguments.features):
        ours, theirs = (accuracy(k, features) for k in (our_kernel, nt_kernel))
        result["accuracy"][f"d={features}"] = {"nt_residual": ours, "neural_tangents": theirs}
        for name, row in ours.items():
            cells = [
                f"{value:9.1e}" if value is not None else "not finite"
                for one in (row, theirs[name])
                for value in (one["error"], one["smallest_eigenvalue"])
            ]
            print(f"{f'd={features}, {name}':28}", *(f"{cell:>11}" for cell in cells))
            assert row["error"] < 2e-6, f"{name} is off by {row['error']}"

    result["build_s"] = built()
    print("\nbuilding r, once per kernel:")
    for name, seconds in result["build_s"].items():
        print(f"{name:20} {seconds:7.3f} s")

    x, other = (jnp.asarray(points(arguments.n, arguments.features, seed)) for seed in (0, 1))
    result["time"] = timed(x, other, arguments.repeats)
    print(f"\n{arguments.n} inputs of {arguments.features} features, over the bare x @ x.T:")
    print(f"{'':20} {'coefficients':>12} {'k(x)':>6} {'k(x, x2)':>9} {'k(x, copy of x)':>16}")
    for name, row in result["time"].items():
        print(
            f"{name:20} {row['coefficients']:12} {row['symmetric']:6.2f} "
            f"{row['rectangular']:9.2f} {row['each input once more']:16.2f}"
        )
    result["time_neural_tangents"] = timed_nt(x)
    for name, row in result["time_neural_tangents"].items():
        print(f"neural-tangents, {name}: {row['symmetric']:.0f}")
    common.write(result, arguments.out)


if __name__ == "__main__":
    import warnings

    # neural-tangents says so of every sum of branches.
    warnings.filterwarnings("ignore", message=".FanIn. layers assume independent")
    main()
