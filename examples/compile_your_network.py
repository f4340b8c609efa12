"""Compute the kernel of your own network as fast as a matrix product.

    uv run python examples/compile_your_network.py [--out FILE] [--quick]

The networks are written in layers of neural-tangents and of this package, with other activations,
several layers per block, no blocks, or biases. `rntk.compile_homogeneous` turns the kernel of each
into a Chebyshev series in the angle, and evaluates the series for all pairs of inputs, at any
depth. The program compares the compiled kernels with the original ones on handwritten digits. The
figure shows the kernels against the angle, and the run times.
"""

import argparse
import functools
import pathlib
import time

import jax
import matplotlib.pyplot as plt
import numpy as np

from nt_residual import data, rntk, schedules, stax, theory
from nt_residual import neural_tangents as nt

DIM = 64  # Pixels of a digit.
NORM = DIM**0.5
REPEATS = 5


def dense():
    """A layer without biases that keeps the variance of ReLU networks."""
    return nt.stax.Dense(1, W_std=2**0.5)


def residual(activation, depth, layers):
    """A residual network with several layers a block, and α = 1/√depth."""
    inner = [layer for _ in range(layers) for layer in (dense(), activation)]
    blocks = stax.ResidualStack(
        nt.stax.serial(*inner, nt.stax.Dense(1)),
        schedules.PowerLaw(gamma=0.5)(depth),
        normalize_blocks=True,
    )
    return nt.stax.serial(nt.stax.Dense(1), blocks, nt.stax.Dense(1))


def networks(depth):
    """Networks by name, with the options of `compile_homogeneous` for each."""
    leaky, absolute = stax.ABRelu(0.2, 1.0), stax.ABRelu(-1.0, 1.0)
    biased = nt.stax.Dense(1, W_std=1.5, b_std=0.3)
    return {
        f"ReLU, {depth} blocks": (residual(stax.Relu(), depth, layers=1), {}),
        f"leaky ReLU, {depth} blocks of two": (residual(leaky, depth, layers=2), {}),
        "absolute value, no blocks": (nt.stax.serial(*[dense(), absolute] * 3, dense()), {}),
        # With biases, or such an activation, a kernel is a function of the angle for one norm only.
        "Erf and biases, no blocks": (
            nt.stax.serial(*[biased, nt.stax.Erf()] * 3, biased),
            {"norm": NORM, "dim": DIM},
        ),
    }


def timed(function, x):
    """The least seconds that a call takes once it is compiled, and its result."""
    value = np.asarray(function(x))
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(function(x))
        found.append(time.perf_counter() - start)
    return min(found), value


def compare(name, kernel_fn, kernel, x):
    """Seconds of the layers and of the compiled kernel, which are also compared."""
    slow, expected = timed(jax.jit(functools.partial(kernel_fn, x2=None, get="ntk")), x)
    fast, k = timed(jax.jit(kernel), x)
    difference = np.abs(k - expected).max() / expected.max()
    print(
        f"{name}: {1e3 * fast:.1f} ms, layers {1e3 * slow:.1f} ms, "
        f"the same to {difference:.0e} of the diagonal, {len(kernel.coefficients)} terms"
    )
    return slow, fast


def draw_seconds(axes, seconds):
    """Draws how long both take, by network."""
    at = np.arange(len(seconds))[::-1]
    slow, fast = 1e3 * np.transpose(list(seconds.values()))
    axes.hlines(at, fast, slow, color="0.7", lw=3)
    axes.plot(slow, at, "s", ms=9, label="layers")
    axes.plot(fast, at, "o", ms=9, label="compiled")
    axes.set_yticks(at, list(seconds))
    axes.set(xscale="log", xlabel="milliseconds a call", ylim=(-0.6, len(seconds) - 0.4))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")


def main(arguments=None):
    """Prints times and differences, and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="compile_your_network.png")
    parser.add_argument("--depth", type=int, default=50, help="blocks of residual networks")
    parser.add_argument("--digits", type=int, default=1000, help="to compute the kernel of")
    parser.add_argument("--quick", action="store_true", help="few digits, one small network")
    options = parser.parse_args(arguments)
    # On GPU and TPU a float32 product is not one unless this is asked for.
    jax.config.update("jax_default_matmul_precision", "highest")

    chosen = networks(options.depth)
    if options.quick:
        options.digits = 100
        chosen = dict(list(networks(depth=3).items())[:1])
    digits = data.load("digits", options.digits).x_train
    # Angles between digits that are not centered are small, and small ones take longer.
    x = NORM * data.unit_norm(digits - digits.mean(axis=0))
    kernels, seconds = {}, {}
    for name, ((_, _, kernel_fn), told) in chosen.items():
        kernels[name] = rntk.compile_homogeneous(kernel_fn, **told)
        seconds[name] = compare(name, kernel_fn, kernels[name], x)

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    theory.plots.profile(kernels, ax=left)
    left.set_title("kernels, 1 on the diagonal")
    draw_seconds(right, seconds)
    right.set_title(f"between {options.digits} digits")
    figure.savefig(options.out, dpi=110)
    plt.close(figure)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
