"""Measure training with landmarks: time, memory and error, with a new process for each case.

    python -m benchmarks.landmarks [--cases million …] [--fashion FOLDER] [--out FILE]

`million` has n = 10⁶ points in 20 dimensions and M = 2000 landmarks. `linear` has three numbers of
points and M = 1000. `fashion_1000`, `fashion_4000` and `fashion_10000` have the images of
Fashion-MNIST and that M. Each case chooses among 50 times by held-out points, and predicts. Times
include compilation. `seconds` is wall time, and `cpu_seconds` is the time of all cores together; on
a busy machine `seconds` is more than `cpu_seconds` divided by the number of cores. FILE is
rewritten after each case; cases that are not measured keep their numbers.
"""

import argparse
import concurrent.futures
import functools
import json
import math
import multiprocessing
import pathlib
import time
from typing import Any

import numpy as np

from nt_residual import _files, data, gram, machine, regression, rntk, schedules

KERNEL = rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5))
TIMES = 50


def million(_: pathlib.Path | None) -> dict[str, Any]:
    """Return one fit of a noisy target on the sphere, and its excess risk."""
    return _sphere(1_000_000, 2000, n_test=100_000)


def linear(_: pathlib.Path | None) -> dict[str, Any]:
    """Return fits of increasing numbers of points. A first fit compiles, and is left out."""
    sizes = (10_000, 10_000, 100_000, 1_000_000)
    return {"fits": [_sphere(n, 1000, n_test=10_000) for n in sizes][1:]}


def _sphere(n: int, landmarks: int, n_test: int) -> dict[str, Any]:
    held_out = n // 20
    target = {1: 1.0, 2: 1.0, 3: 1.0}
    x_train, y_train, x_test, y_test = data.sphere.load(n + held_out, n_test, 20, target, noise=0.1)
    x, x_val = np.split(x_train.astype(np.float32), [n])
    y, y_val = np.split(y_train, [n])
    found, predicted = _fit(x, y, x_val, y_val, x_test.astype(np.float32), landmarks)
    excess = float(np.square(predicted - y_test).mean())
    return found | {"excess_risk": excess, "of_a_constant": float(np.var(y_test)), "noise": 0.1}


def _fashion(folder: pathlib.Path | None, landmarks: int) -> dict[str, Any]:
    """Return a fit of Fashion-MNIST, and its test accuracy."""
    images = data.load("fashion_mnist", root=folder).flat
    mean = images.x_train.mean(axis=0)
    x, x_val = np.split(data.unit_norm(images.x_train - mean), [54_000])
    y, y_val = np.split(data.centered_one_hot(images.y_train, 10), [54_000])
    x_test = data.unit_norm(images.x_test - mean)
    found, scores = _fit(x, y, x_val, y_val, x_test, landmarks)
    return found | {"accuracy": float(np.mean(scores.argmax(axis=1) == images.y_test))}


CASES = {
    "million": million,
    "linear": linear,
    **{f"fashion_{m}": functools.partial(_fashion, landmarks=m) for m in (1000, 4000, 10_000)},
}


def _fit(x, y, x_val, y_val, x_test, landmarks) -> tuple[dict[str, Any], np.ndarray]:
    """Return the seconds of each part, and predictions at the time chosen by held-out points."""
    seconds, cpu, before = {}, {}, (time.perf_counter(), time.process_time())

    def lap(name):
        nonlocal before
        now = time.perf_counter(), time.process_time()
        seconds[name], cpu[name] = (round(b - a, 2) for a, b in zip(before, now, strict=True))
        before = now

    low_rank: Any = gram.LowRank(KERNEL, x, landmarks, progress=True)
    lap("landmarks")
    moments = low_rank.moments
    low_rank.moments = lambda targets: (moments(targets), lap("pass"))[0]
    flow = regression.GradientFlow.fit(low_rank, y)
    lap("eigenvalues")
    held_out: Any = gram.MatrixFree(KERNEL, x_val, low_rank.landmarks)
    times = regression.time_grid(flow, TIMES)
    stopping = regression.holdout(flow, held_out, y_val, times)
    lap("stopping")
    tests: Any = gram.MatrixFree(KERNEL, x_test, low_rank.landmarks)
    predicted = flow.predict(tests, stopping.time)
    lap("predictions")
    sizes = {"n": len(x), "features": x.shape[1], "landmarks": landmarks, "rank": low_rank.rank}
    sizes |= {"held_out": len(x_val), "times": TIMES, "predictions": len(x_test)}
    found = {**sizes, "outputs": y[0].size, "time": stopping.time}
    found |= {"seconds": seconds, "cpu_seconds": cpu}
    return found | {"total_s": sum(seconds.values()), "total_cpu_s": sum(cpu.values())}, predicted


def _measured(name: str, folder: pathlib.Path | None) -> dict[str, Any]:
    """Return the numbers of a case, with the peak memory of this process in bytes."""
    found = CASES[name](folder)
    return found | {"peak_bytes": machine.peak_bytes()}


def main() -> None:
    """Measure the chosen cases, print their numbers, and write them as JSON if asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.landmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=CASES,
        default=list(CASES),
        metavar="CASE",
        help=f"{', '.join(CASES)} (default: all)",
    )
    parser.add_argument(
        "--fashion", type=pathlib.Path, help="folder of Fashion-MNIST, the `root` of data.load"
    )
    parser.add_argument("--out", type=pathlib.Path, help="write the numbers there, as JSON")
    options = parser.parse_args()
    known = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    spawn = multiprocessing.get_context("spawn")
    for name in options.cases:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            known[name] = pool.submit(_measured, name, options.fashion).result()
        known[name]["device"] = machine.device_name()
        print(name, json.dumps(known[name], indent=1), flush=True)
        if options.out:
            _files.replace(options.out, json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
