"""The kernel of a convolutional ResNet, by depth, α and pooling.

    uv run python examples/conv_kernel.py [--out FILE]

The upper row shows kernels between handwritten digits, two of each class, of a deep network with
α = L^(−γ). For γ < 1/2 all different images look equally similar. For γ ≥ 1/2 the classes stay
visible. The lower left panel shows the distance of each kernel to its limit against the depth. The
lower right panel shows the test accuracy with few training digits, for the kernel of one block,
which is the limit for γ > 1/2. If the last layer is dense, convolutions are no better here than a
fully-connected network. With global average pooling they are, also if test digits are shifted by a
pixel.
"""

import argparse
import math
import pathlib

import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from nt_residual import conv, data, regression, rntk, schedules, theory

SHAPE = (8, 8)
ONE_BLOCK = schedules.PowerLaw(gamma=1.0)
# Called with images of shape (n, 8, 8, 1), all of them.
KERNELS = {
    "fully connected": lambda x1, x2=None: rntk.ResidualKernel(1, ONE_BLOCK)(
        x1.reshape(len(x1), -1), None if x2 is None else x2.reshape(len(x2), -1)
    ),
    "convolutional, flatten": conv.ResidualKernel(1, ONE_BLOCK, SHAPE),
    "convolutional, average pooling": conv.ResidualKernel(1, ONE_BLOCK, SHAPE, pooling="gap"),
}


def normalized(images):
    """Images of mean square 1, with an axis for the channel."""
    return data.unit_norm(images).reshape(-1, *SHAPE, 1) * math.prod(SHAPE) ** 0.5


def draw_kernels(axes, depth, gammas, digits):
    """Draw the kernel between two digits of each class, for each γ."""
    chosen = np.concatenate([np.flatnonzero(digits.y_train == c)[:2] for c in range(10)])
    images = normalized(digits.x_train[chosen])
    for ax, gamma in zip(axes, gammas, strict=True):
        kernel = conv.ResidualKernel(depth, schedules.PowerLaw(gamma), SHAPE, padding="CIRCULAR")
        drawn = ax.imshow(kernel(images), vmin=0, vmax=1, cmap="viridis")
        ax.set_title(f"γ = {gamma:g},  T = {kernel.effective_time:.3g}")
        ax.set_xticks(np.arange(0.5, 20, 2), range(10))
        ax.set_yticks(np.arange(0.5, 20, 2), range(10))
        ax.tick_params(length=0)
    axes[0].set_ylabel(f"digits, {depth} blocks")
    return drawn


def draw_distances(axes, depths, gammas, images):
    """Draw the distance of the kernel between different images to its limit, by depth."""
    different = ~np.eye(len(images), dtype=bool)
    for i, gamma in enumerate(tqdm(gammas, desc="distances", leave=False)):
        schedule = schedules.PowerLaw(gamma)
        kernel = conv.ResidualKernel(1, schedule, SHAPE, padding="CIRCULAR")
        limit = 0.25 if gamma < 0.5 else kernel.at_depth(math.inf)(images)
        distances = [
            np.abs(kernel.at_depth(depth)(images) - limit)[different].max() for depth in depths
        ]
        axes.plot(depths, distances, f"C{i}o", label=f"γ = {gamma:g}", mfc="none", ms=8 - 1.5 * i)
        law = theory.rate(schedule)(np.array(depths))
        axes.plot(depths, law * distances[-1] / law[-1], f"C{i}--", lw=1.2)
    # For γ > 1/2 one block is the limit, but for rounding.
    axes.set(xscale="log", yscale="log", xlabel="depth L", ylim=(3e-5, 2))
    axes.set_title("largest distance to the limit (dashed: predicted rate)")
    axes.legend(fontsize="small")


def accuracies(digits, n_test, sizes, draws):
    """Of each kernel, with each number of training digits, shape (len(sizes), 2).

    The second number is that on test images moved by a pixel.
    """
    train, test = normalized(digits.x_train), normalized(digits.x_test[:n_test])
    both = np.concatenate([test, np.roll(test, 1, axis=2)])
    y_train, y_test = digits.y_train, digits.y_test[:n_test]
    classes = [np.flatnonzero(y_train == c) for c in range(10)]
    found = {}
    for name, kernel in tqdm(KERNELS.items(), desc="kernels", leave=False):
        k, k_test = np.asarray(kernel(train)), np.asarray(kernel(both, train))
        found[name] = np.zeros((len(sizes), 2))
        for i, size in enumerate(sizes):
            generator = np.random.default_rng(size)
            for _ in range(draws):
                some = np.concatenate(
                    [generator.choice(c, size // 10, replace=False) for c in classes]
                )
                targets = data.centered_one_hot(y_train[some], 10)
                flow = regression.GradientFlow.fit(k[np.ix_(some, some)], targets)
                guess = flow.predict(k_test[:, some], math.inf).argmax(-1).reshape(2, -1)
                found[name][i] += np.asarray((guess == y_test).mean(-1)) / draws
    return found


def draw_accuracies(axes, sizes, found):
    """Draws what `accuracies` returned."""
    for i, (name, accuracy) in enumerate(found.items()):
        # Two of them coincide: hollow squares show the points in them.
        shape = {"color": f"C{i}", "marker": "so^"[i], "ms": (9, 5, 6)[i], "mfc": "none"}
        axes.plot(sizes, 100 * accuracy[:, 0], label=name, **shape)
        axes.plot(sizes, 100 * accuracy[:, 1], ls="--", **shape)
    axes.plot([], [], "k--", label="test digits moved by a pixel")
    axes.set(xscale="log", xlabel="training digits", ylabel="test accuracy (%)")
    axes.set_xticks(sizes, sizes)
    axes.minorticks_off()
    axes.set_title("accuracy with the kernel of one block")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def main(arguments=None):
    """Prints accuracies, and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="conv_kernel.png")
    parser.add_argument("--gammas", type=float, nargs="+", default=[0.0, 0.25, 0.5, 1.0])
    parser.add_argument("--depth", type=int, default=300, help="blocks of the deepest networks")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[10, 20, 50, 100],
        help="training digits, multiples of 10",
    )
    parser.add_argument("--n-test", type=int, default=150, help="test digits")
    parser.add_argument("--draws", type=int, default=20, help="of training digits, of each size")
    options = parser.parse_args(arguments)

    figure = plt.figure(figsize=(12, 8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.25))
    digits = data.load("digits", max(40, round(1.2 * max(options.sizes))))
    matrices = above.subplots(1, len(options.gammas), squeeze=False)[0]
    drawn = draw_kernels(matrices, options.depth, options.gammas, digits)
    above.colorbar(drawn, ax=matrices, label="kernel", shrink=0.8)

    left, right = below.subplots(1, 2)
    depths = [depth for depth in (1, 3, 10, 30, 100, 300, 1000) if depth <= options.depth]
    draw_distances(left, depths, options.gammas, normalized(digits.x_train[:20]))

    found = accuracies(digits, options.n_test, options.sizes, options.draws)
    draw_accuracies(right, options.sizes, found)
    for name, accuracy in found.items():
        as_it_is, moved = accuracy[-1]
        print(f"{name}: {as_it_is:.1%} with {options.sizes[-1]} digits, moved {moved:.1%}")
    figure.savefig(options.out, dpi=110)
    plt.close(figure)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
