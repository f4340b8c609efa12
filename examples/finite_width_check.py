"""Compare the NTK of random networks of several widths with that of infinite width.

    uv run python examples/finite_width_check.py [--out FILE] [--quick]

The error of one network is a constant over √width. With α = L^(−γ), γ ≥ 1/2, networks of 100 blocks
are as close to their kernel as networks of 10 blocks. With α = 1 the constant grows with the depth:
the law 1/√width holds only for networks that are much wider than deep. The bias is the deviation of
the mean over networks, extrapolated to infinite width. It is zero if the kernel is right.
"""

import argparse
import pathlib

import matplotlib.pyplot as plt
import numpy as np

from nt_residual import conv, data, rntk, schedules
from nt_residual.finite_width.width_sweep import width_sweep

GAMMAS = (0.0, 0.5, 1.0)
SHAPE = (8, 8)


def fully_connected(depth, gammas):
    """Return kernels by γ, and two points of the sphere."""
    kernels = {g: rntk.ResidualKernel(depth, schedules.PowerLaw(g)) for g in gammas}
    return kernels, data.sphere.uniform(2, 4)


def convolutional(depth, gammas):
    """Return kernels by γ, and two handwritten digits of mean square 1."""
    kernels = {
        g: conv.ResidualKernel(depth, schedules.PowerLaw(g), SHAPE, padding="CIRCULAR")
        for g in gammas
    }
    digits = data.unit_norm(data.load("digits", 40).x_train[:2])
    return kernels, 8 * np.reshape(digits, (-1, *SHAPE, 1))


def main(arguments=None):
    """Print slopes and biases, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="finite_width_check.png")
    parser.add_argument("--quick", action="store_true", help="few, small networks")
    options = parser.parse_args(arguments)
    depths, widths, channels = (10, 100), [64, 128, 256], [8, 16, 32]
    seeds, conv_seeds, gammas, conv_gammas = [300, 150, 24], [200, 100, 40], GAMMAS, GAMMAS[::2]
    if options.quick:
        depths, widths, channels, seeds, conv_seeds = (1, 2), [4, 16], [2, 4], 3, 2
        gammas = conv_gammas = GAMMAS[:1]
    panels = [
        (f"fully connected, {depth} blocks", *fully_connected(depth, gammas), widths, seeds)
        for depth in depths
    ]
    panels.append(("convolutional, 3 blocks", *convolutional(3, conv_gammas), channels, conv_seeds))

    figure, all_axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    for ax, (title, kernels, x, sizes, count) in zip(all_axes, panels, strict=True):
        for gamma, kernel in kernels.items():
            sweep = width_sweep(kernel, x, sizes, count, progress=True)
            sweep.plot(ax, label=f"γ = {gamma:g}")
            print(
                f"{title}, γ = {gamma:g}: slope {sweep.slope:.2f} "
                f"± {sweep.slope_interval[1] - sweep.slope:.2f}, "
                f"bias {sweep.bias:.1%} ± {sweep.bias_error:.1%}: "
                f"{'agrees' if sweep.agrees else 'does not agree'}"
            )
        ax.set_title(title)
        ends = np.array([sizes[0], sizes[-1]])
        ax.plot(ends, sweep.error[0] * (ends / ends[0]) ** -0.5, "k--", lw=1, label="slope −1/2")
        ax.legend(fontsize="small")
    all_axes[2].set_xlabel("channels m")
    figure.savefig(options.out, dpi=110)
    plt.close(figure)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
