"""The kernel of a deep residual network: compute it, judge it, learn with it, compose it.

    uv run python examples/quickstart.py [--out FILE] [--quick]

Four steps: the kernel at any depth, also infinite; its limit as the depth grows; regression on
noisy points of the sphere with early stopping; and the same network in layers of neural-tangents,
with the same kernel. The figure shows the kernel against the angle between inputs, and the
test error against the training time.
"""

import argparse
import math
import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np

from nt_residual import data, regression, rntk, schedules, stax, theory
from nt_residual import neural_tangents as nt

SCHEDULE = schedules.PowerLaw(gamma=0.5)  # α = 1/√L in each of L blocks.


def show_kernels(axes, depth):
    """Draw kernels against the angle, and print the regime of their α."""
    kernels = [rntk.ResidualKernel(blocks, SCHEDULE) for blocks in (1, depth, math.inf)]
    theory.plots.profile(kernels, ax=axes)
    axes.set_title("the kernel, γ = 1/2")
    regime = theory.regime(SCHEDULE)
    print(f"γ = {SCHEDULE.gamma:g} is {regime.name}. {regime.advice}\n")


def learn(axes, kernel, n):
    """Fit noisy targets; draw the test error against time, and print it at the chosen time."""
    points = data.sphere.load(n, 1000, dim=3, coefficients={1: 1.0, 2: 1.0}, noise=1.0)
    # A quarter of the points is for validation, to choose the time.
    x_val, x = np.split(points.x_train, [n // 4])
    y_val, y = np.split(points.y_train, [n // 4])
    flow = regression.GradientFlow.fit(kernel(x), y)
    stopping = regression.holdout(flow, kernel(x_val, x), y_val)
    times = np.append(stopping.times[:-1], [stopping.time, math.inf])
    order = np.argsort(times)
    predictions = flow.predict(kernel(points.x_test, x), times[order])
    error = np.square(predictions - points.y_test).mean(axis=1)
    stopped = error[np.searchsorted(times[order], stopping.time)]
    print(f"test error {stopped:.3f} at t = {stopping.time:.3g}, and {error[-1]:.3f} at t = ∞")

    axes.loglog(times[order][:-1], error[:-1], color="C0")
    axes.plot(stopping.time, stopped, "o", color="C1", label="chosen by hold-out")
    axes.axhline(error[-1], color="C0", ls=":", label="t = ∞")
    axes.set(xlabel="training time t", ylabel="mean squared test error")
    axes.set_title(f"regression, {len(x)} noisy points")
    axes.legend()


def compose(kernel, x):
    """Compare the kernel with that of the same network in layers of neural-tangents."""
    branch = nt.stax.serial(nt.stax.Dense(1, W_std=2**0.5), stax.Relu(), nt.stax.Dense(1))
    blocks = stax.ResidualStack(branch, SCHEDULE(kernel.depth), normalize_blocks=True)
    first, last = (stax.Frozen(nt.stax.Dense(1)) for _ in range(2))
    _, _, kernel_fn = nt.stax.serial(first, blocks, last)
    layers = np.asarray(jax.jit(kernel_fn, static_argnames="get")(x, None, get="ntk"))
    # The kernel is 1 on the diagonal, that of the layers has the size of their parameters.
    difference = np.abs(layers / layers[0, 0] - np.asarray(kernel(x))).max()
    print(f"layers of neural-tangents give the same kernel to {difference:.0e}")


def main(arguments=None):
    """Run the four steps, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="quickstart.png")
    parser.add_argument("--depth", type=int, default=1000, help="blocks of the network")
    parser.add_argument("--quick", action="store_true", help="few points and blocks")
    options = parser.parse_args(arguments)
    depth, n = (20, 80) if options.quick else (options.depth, 400)
    # On GPU and TPU a float32 product is not one unless this is asked for.
    jax.config.update("jax_default_matmul_precision", "highest")

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    kernel = rntk.ResidualKernel(depth, SCHEDULE)
    show_kernels(left, depth)
    learn(right, kernel, n)
    compose(kernel, data.sphere.uniform(10, 3))
    figure.savefig(options.out, dpi=110)
    plt.close(figure)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
