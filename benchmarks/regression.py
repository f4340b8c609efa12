"""What Gram matrices and early-stopped regression cost, in time and in memory.

    uv run python benchmarks/regression.py [--cases path whole devices large disk] [--out FILE]

All cases classify synthetic digits of MNIST's size: the handwritten digits of scikit-learn,
enlarged to 28 × 28 pixels, turned, shifted and with noise, ten outputs, with a kernel of 1000
blocks in float32. The path is that of 50 stopping times from 1 to n.

- path: given K of 4000 digits, the predictions for 1000 more along the path, and those of
  `neural_tangents.predict.gradient_descent_mse` at four of the times and at all of them. They
  must be equal to 1e-4.
- whole: K of 10,000 digits, the path, and 2000 test points, over the bare product `x @ x.T` of
  the same inputs, in float32 and of precision 'highest'.
- devices: K on 8 simulated devices and a product with it, and what is sent.
- large: 60,000 digits, K in memory, the path and 10,000 test points. Takes 16 GB.
- disk: the same with K on disk (14.4 GB) and no more than 4 GB of memory in use.

The last three run in processes of their own, whose peak of resident memory is given.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import common
import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from sklearn.datasets import load_digits

from nt_residual import data, gram, regression, rntk, schedules

KERNEL = rntk.ResidualKernel(1000, schedules.PowerLaw(1.0))
CASES = ("path", "whole", "devices", "large", "disk")
N_TIMES = 50
SIZES = {"path": 4000, "whole": 10_000, "devices": 4000, "large": 60_000, "disk": 60_000}
N_TEST = {"path": 1000, "whole": 2000, "large": 10_000, "disk": 10_000}
DISK_MEMORY = 4e9


def synthetic_digits(n, seed=0):
    """Images of unit norm about their mean, (n, 784) in float32, and labels, (n,)."""
    digits, generator = load_digits(), np.random.default_rng(seed)
    chosen = generator.integers(len(digits.images), size=n)
    angles = np.deg2rad(generator.uniform(-15, 15, n))
    shifts = generator.uniform(-3, 3, (n, 2))
    x = np.empty((n, 28, 28), np.float32)
    for i, (k, angle, shift) in enumerate(zip(chosen, angles, shifts, strict=True)):
        c, s = np.cos(angle), np.sin(angle)
        matrix = np.array([[c, -s], [s, c]]) * 8 / 28
        offset = 3.5 - matrix @ (13.5 + shift)
        x[i] = scipy.ndimage.affine_transform(digits.images[k], matrix, offset, (28, 28), order=1)
    x += generator.standard_normal(x.shape, np.float32)
    x = x.reshape(n, -1)
    return data.unit_norm(x - x.mean(axis=0)), digits.target[chosen]


def problem(case):
    """Training inputs and targets, test inputs and labels, and the times."""
    n, n_test = SIZES[case], N_TEST[case]
    x, labels = synthetic_digits(n + n_test)
    y = data.centered_one_hot(labels[:n], 10).astype(np.float32)
    return x[:n], y, x[n:], labels[n:], np.geomspace(1, n, N_TIMES)


def accuracy(predictions, labels):
    """The largest fraction of labels predicted right along the path."""
    return float((predictions.argmax(axis=-1) == labels).mean(axis=-1).max())


def seconds(function):
    """What a function returns, and how long it takes."""
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    return result, time.perf_counter() - start


def path(repeats):
    """The path of 50 times, ours and neural-tangents'."""
    import nt_residual  # noqa: F401  First, so that the next line works.

    # isort: split
    import neural_tangents as nt

    x, y, x_test, labels, times = problem("path")
    k, k_test = gram.compute(KERNEL, x), gram.compute(KERNEL, x_test, x)

    def ours():
        flow = regression.GradientFlow.fit(k, y, solver="lanczos")
        return flow.predict(k_test, times), flow.solve(times)

    def theirs(chosen):
        predict = nt.predict.gradient_descent_mse(k, y)
        return predict(chosen * y.shape[1], None, 0.0, k_test)

    (predictions, solution), first = seconds(ours)
    four = times[:: N_TIMES // 4][:4]
    expected, nt_all = seconds(lambda: theirs(times))
    error = float(np.abs(predictions - expected).max())
    assert error < 1e-4, f"predictions differ by {error}"
    run = min(seconds(ours)[1] for _ in range(repeats))
    nt_four = min(seconds(lambda: theirs(four))[1] for _ in range(2))
    eigh = seconds(lambda: regression.GradientFlow.fit(k, y, solver="eigh").predict(k_test, times))
    return {
        "n": len(x),
        "largest_difference": error,
        "accuracy": accuracy(predictions, labels),
        "iterations": solution.iterations,
        "first_call_s": first,
        "run_s": run,
        "eigh_s": eigh[1],
        "neural_tangents_4_times_s": nt_four,
        "neural_tangents_all_times_s": nt_all,
        "times_faster_than_4_times": nt_four / run,
        "times_faster": nt_all / run,
    }


def whole(repeats):
    """All of a regression, over one bare matrix product."""
    x, y, x_test, labels, times = problem("whole")
    inputs = jnp.asarray(x)
    product = jax.jit(lambda x: jnp.matmul(x, x.T, precision="highest"))

    def ours():
        k, k_time = seconds(lambda: gram.compute(KERNEL, inputs))
        flow = regression.GradientFlow.fit(k, y)
        k_test, test_time = seconds(lambda: gram.compute(KERNEL, x_test, inputs))
        predictions, path_time = seconds(lambda: flow.predict(k_test, times))
        return predictions, flow.solve(times), (k_time, test_time, path_time)

    product(inputs).block_until_ready()
    _, first = seconds(ours)
    results = []
    for _ in range(repeats):
        bare = common.best_time(product, inputs, repeats=2)
        (predictions, solution, parts), run = seconds(ours)
        results.append((run / bare, bare, parts, run))
    ratio, bare, parts, run = min(results)
    assert solution.status == "converged", solution.message
    return {
        "n": len(x),
        "accuracy": accuracy(predictions, labels),
        "iterations": solution.iterations,
        "product_s": bare,
        "first_call_s": first,
        "run_s": run,
        "k_s": parts[0],
        "k_test_s": parts[1],
        "path_s": parts[2],
        "over_the_product": ratio,
    }


def devices(_):
    """The matrix on 8 simulated devices."""
    import re

    from jax.sharding import AxisType

    from nt_residual.gram.operators import as_operator

    x, _ = synthetic_digits(SIZES["devices"])
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    # Tiles of one size: their rounding depends on it, and is 1e-6 itself.
    k = gram.compute(KERNEL, x, mesh=mesh, tile_size=500)
    expected = gram.compute(KERNEL, x, tile_size=500)
    operator, v = as_operator(k), jnp.ones((len(x), 10))
    compiled = jax.jit(lambda k, v: k.product(v)).lower(operator, operator.place(v)).compile()
    sent = re.findall(r"= (\S+) (?:all-\w+|collective-\w+|reduce-scatter)\(", compiled.as_text())
    error = float(np.abs(np.asarray(k) - np.asarray(expected)).max())
    assert error < 1e-6, f"the matrices differ by {error}"
    other = float(np.abs(np.asarray(k) - np.asarray(gram.compute(KERNEL, x))).max())
    return {
        "n": len(x),
        "largest_difference": error,
        "largest_difference_other_tiles": other,
        "sent_in_a_product": sent,
    }


def large(_):
    """Sixty thousand digits, all of K in memory."""
    return _large("large", None)


def disk(_):
    """The same, K on disk."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as folder:
        return _large("disk", pathlib.Path(folder) / "matrix")


def _large(case, store):
    x, y, x_test, labels, times = problem(case)
    start = time.perf_counter()
    k, k_time = seconds(lambda: gram.compute(KERNEL, x, store=store, progress=True))
    # Rounding of the entries shows at the latest times, from 1e-4 on.
    flow = regression.GradientFlow.fit(k, y, tol=3e-4, progress=True)
    options = {"kernel": KERNEL, "x_train": x, "x_test": x_test, "progress": True}
    predictions, path_time = seconds(lambda: flow.predict(t=times, **options))
    total = time.perf_counter() - start
    solution = flow.solve(times)
    return {
        "n": len(x),
        "accuracy": accuracy(predictions, labels),
        "known_to": float(solution.residual.max()),
        "iterations": solution.iterations,
        "k_s": k_time,
        "path_s": path_time,
        "total_s": total,
        "peak_resident_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def in_its_own_process(case):
    """Runs a case where nothing else has used memory before."""
    flags = "--xla_force_host_platform_device_count=8" if case == "devices" else ""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "result.json"
        subprocess.run(
            [sys.executable, __file__, "--cases", case, "--here", "--out", str(out)],
            check=True,
            env={**os.environ, "XLA_FLAGS": flags},
        )
        return json.loads(out.read_text())[case]


def main():
    """Prints the numbers, and writes them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["path", "whole", "devices"])
    parser.add_argument("--repeats", type=int, default=3, help="timings, of which the best counts")
    parser.add_argument("--here", action="store_true", help="start no processes")
    parser.add_argument("--out", type=pathlib.Path, help="write the numbers there, as JSON")
    arguments = parser.parse_args()

    result = common.machine()
    print(result["device"], result["versions"])
    for case in arguments.cases:
        if case in ("devices", "large", "disk") and not arguments.here:
            result[case] = in_its_own_process(case)
        else:
            result[case] = globals()[case](arguments.repeats)
        print(f"\n{case}:")
        for name, value in result[case].items():
            print(
                f"  {name:28} {value:.4g}" if isinstance(value, float) else f"  {name:28} {value}"
            )
    if "disk" in result and result["disk"]["peak_resident_gb"] * 1e9 > DISK_MEMORY:
        raise SystemExit(f"disk took more than {DISK_MEMORY / 1e9:g} GB of memory")
    common.write(result, arguments.out)


if __name__ == "__main__":
    main()
