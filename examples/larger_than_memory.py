"""Kernel regression with a matrix on disk, or with one that is not stored.

    uv run python examples/larger_than_memory.py [--store FOLDER] [--quick]

A matrix of a million inputs takes 4 TB. `gram.compute` estimates this first, and its error names
the alternatives. This program compares them on a matrix that fits: tiles recomputed in every
product (`gram.MatrixFree`), the matrix on disk (`store=`), and in memory. For each it prints the
time, the additional memory of the process (compiled programs included), and the largest difference
of predictions to those with the matrix in memory. With `--store FOLDER` the matrix on disk is kept,
and a killed run resumes from it.
"""

import argparse
import contextlib
import pathlib
import tempfile
import threading
import time

import numpy as np
import psutil

from nt_residual import data, gram, memory, regression, rntk, schedules

KERNEL = rntk.ResidualKernel(1000, schedules.PowerLaw(gamma=0.5))
DIM, NOISE, TIMES = 10, 0.5, [1.0, 10.0, 100.0]


class Measured:
    """The seconds that a block of code takes, and the bytes that it adds to the process."""

    def __enter__(self):
        self._process, self._done = psutil.Process(), threading.Event()
        self._before = self._peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self._start
        self._done.set()
        self._thread.join()
        self.bytes = max(self._peak, self._process.memory_info().rss) - self._before

    def _watch(self):
        while not self._done.wait(0.005):
            self._peak = max(self._peak, self._process.memory_info().rss)


def refusal(n):
    """Return the error for a matrix that does not fit."""
    try:
        gram.compute(KERNEL, np.ones((n, 2), np.float32))
    except MemoryError as error:
        return str(error)
    return "it fits into the memory of this machine"


def coefficients(matrix, y):
    """Return the weight of each training point in predictions at all times, shape (n, T)."""
    flow = regression.GradientFlow.fit(matrix, y, solver="lanczos")
    return flow.solve(TIMES).value.T


def predictions(solved, x_test, x):
    """Return predictions by name, each of shape (n_test, T), with one pass over the test kernel."""
    columns = np.concatenate(list(solved.values()), axis=1)
    found = np.asarray(gram.MatrixFree(KERNEL, x_test, x) @ columns)
    return dict(zip(solved, np.split(found, len(solved), axis=1), strict=True))


def main(arguments=None):
    """Print what each way takes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", type=pathlib.Path, help="folder for the matrix, which is kept")
    parser.add_argument("--n", type=int, default=8000, help="training points")
    parser.add_argument("--tile-size", type=int, default=1000, help="the side of a tile")
    parser.add_argument("--quick", action="store_true", help="few points")
    options = parser.parse_args(arguments)
    if options.quick:
        options.n, options.tile_size = 300, 100

    print(f"a million inputs: {refusal(10**6)}\n")
    points = data.sphere.load(options.n, 500, DIM, {1: 1.0, 2: 1.0}, noise=NOISE)
    x = points.x_train.astype("float32")
    with contextlib.ExitStack() as stack:
        folder = options.store or stack.enter_context(tempfile.TemporaryDirectory())
        store, size = pathlib.Path(folder) / "k", options.tile_size
        ways = {
            "not stored": lambda: gram.MatrixFree(KERNEL, x, tile_size=size),
            "on disk": lambda: gram.compute(KERNEL, x, tile_size=size, store=store),
            "in memory": lambda: gram.compute(KERNEL, x, tile_size=size),
        }
        solved, measured = {}, {}
        for name, make in ways.items():
            with Measured() as measured[name]:
                solved[name] = coefficients(make(), points.y_train)
    found = predictions(solved, points.x_test.astype("float32"), x)
    print(f"{options.n} inputs, a matrix of {memory.size(4 * options.n**2)}")
    for name, predicted in found.items():
        difference = np.abs(predicted - found["in memory"]).max()
        error = np.square(predicted - points.y_test[:, None]).mean(axis=0).min()
        print(
            f"{name:>10}: {measured[name].seconds:5.1f} s, "
            f"{memory.size(measured[name].bytes)} more memory, "
            f"error {error:.4f} at the best time, largest difference {difference:.0e}"
        )


if __name__ == "__main__":
    main()
