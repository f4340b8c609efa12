"""Compose a residual network from layers, and compare its kernel with finite networks.

    uv run python examples/compose_layers.py [--out FILE]

The network classifies images. It combines layers of neural-tangents with three kinds of residual
blocks:

- a stack of convolutional blocks, each with its own α, in one compiled loop;
- a block that halves the resolution, with average pooling on its shortcut;
- a block whose branch is self-attention over all pixels.

`nt_residual.stax` gives its NTK in closed form. The NTK of random finite networks approaches it
like width^(-1/2). The figure shows the kernel between handwritten digits, the kernel of one finite
network, and the difference against the width.
"""

import argparse
import pathlib
import warnings

import jax
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from nt_residual import data, schedules, stax
from nt_residual import neural_tangents as nt


def conv(width, strides=(1, 1)):
    """A 3x3 convolution that keeps the variance of ReLU networks."""
    return nt.stax.Conv(width, (3, 3), strides, padding="SAME", W_std=2**0.5)


def network(width, depth=8):
    """A residual network of convolutions, pooling and attention, of any width."""
    relu = stax.Relu()
    blocks = stax.ResidualStack(
        nt.stax.serial(relu, conv(width)), alphas=schedules.PowerLaw(gamma=0.5)(depth)
    )
    halving = stax.Residual(
        nt.stax.serial(relu, conv(width, strides=(2, 2))),
        alpha=0.5,
        shortcut=nt.stax.AvgPool((2, 2), strides=(2, 2)),
    )
    attention = stax.Residual(
        nt.stax.GlobalSelfAttention(
            width, n_chan_key=width, n_chan_val=width, n_heads=2, linear_scaling=True
        ),
        alpha=0.5,
        normalize_blocks=True,
    )
    return nt.stax.serial(
        nt.stax.Conv(width, (3, 3), padding="SAME"),
        blocks,
        halving,
        attention,
        nt.stax.GlobalAvgPool(),
        nt.stax.Dense(1),
    )


def finite_kernels(images, width, networks):
    """The NTK of some random networks of one width, shape (networks, n, n)."""
    init_fn, apply_fn, _ = network(width)
    ntk_fn = nt.empirical_ntk_fn(apply_fn, vmap_axes=0)

    @jax.jit
    def random_kernel(key):
        _, params = init_fn(key, images.shape)
        return ntk_fn(images, None, params)

    keys = jax.random.split(jax.random.PRNGKey(width), networks)
    progress = tqdm(keys, desc=f"networks of width {width}", leave=False)
    return np.stack([np.asarray(random_kernel(key)) for key in progress])


def plot(images, labels, kernel, finite, widths, errors, out):
    """Draws the kernel, that of one network, and the difference against width."""
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(13, 4), width_ratios=(1, 1, 1.1), layout="constrained"
    )
    top = kernel.max()
    for axes, matrix, title in (
        (left, kernel, "closed form, infinite width"),
        (middle, finite[0], f"one network of width {widths[-1]}"),
    ):
        drawn = axes.imshow(matrix, vmin=0, vmax=top, cmap="viridis")
        axes.set_xticks(range(len(labels)), labels)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xlabel("digit")
        axes.set_title(title)
    left.set_ylabel("digit")
    figure.colorbar(drawn, ax=(left, middle), label="NTK", shrink=0.8)
    right.loglog(widths, errors, "o-", label=f"mean over {len(finite)} networks")
    guide = errors[0] * (np.array(widths) / widths[0]) ** -0.5
    right.loglog(widths, guide, "k:", label="width$^{-1/2}$")
    right.set_xticks(widths, [str(width) for width in widths])
    right.set_yticks(errors, [f"{error:.2f}" for error in errors])
    right.minorticks_off()
    right.set_xlabel("width")
    right.set_ylabel("relative difference from the closed form")
    right.set_title("finite networks approach it")
    right.legend()
    figure.savefig(out, dpi=120)
    plt.close(figure)


def main(arguments=None):
    """Computes the kernels, prints how far finite networks are, and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="compose_layers.png")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--networks", type=int, default=20, help="networks of each width")
    parser.add_argument("--images", type=int, default=12, help="how many digits to compare")
    options = parser.parse_args(arguments)

    # On GPU and TPU a float32 product is not one unless this is asked for.
    jax.config.update("jax_default_matmul_precision", "highest")
    # What linear scaling implies, which neural-tangents says with every call.
    warnings.filterwarnings("ignore", message="Linear scaling attention used")

    digits = data.load("digits", n_train=500)
    labels = digits.y_train
    chosen = np.argsort(labels, kind="stable")
    chosen = chosen[np.linspace(0, len(chosen) - 1, options.images).astype(int)]
    centered = digits.x_train - digits.x_train.mean(axis=0)
    images, labels = centered[chosen], labels[chosen]

    _, _, kernel_fn = network(width=1)  # The kernel does not depend on the width.
    kernel = np.asarray(jax.jit(kernel_fn, static_argnames="get")(images, None, get="ntk"))
    errors = []
    for width in options.widths:
        finite = finite_kernels(images, width, options.networks)
        difference = np.linalg.norm(finite - kernel, axis=(1, 2)) / np.linalg.norm(kernel)
        errors.append(float(difference.mean()))
        print(f"width {width:5}: relative difference {errors[-1]:.3f}")
    plot(images, labels, kernel, finite, options.widths, errors, options.out)
    print(f"figure: {options.out}")


if __name__ == "__main__":
    main()
