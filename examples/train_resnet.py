"""Train residual networks of finite width, and compare them with the flow of their kernel.

    uv run python examples/train_resnet.py [--quick] [--out FILE] [--runs FOLDER]

Left: networks with α = L^(−γ) learn handwritten digits, some of which have a wrong label. Adam
trains each in minibatches until the loss on validation digits stops falling. A cross marks the
network with the least validation loss, which is kept. Right: networks of several widths learn a
function on the sphere by gradient descent. Their distance from the gradient flow of the kernel of
infinite width falls as the width grows.

With --runs, training is saved in FOLDER. After an interruption the same command resumes.
"""

import argparse
import functools
import math
import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx

from nt_residual import data, schedules, stax
from nt_residual.finite_width import ResNet, flow, training

WRONG_LABELS = 0.2
OPTIMIZER = optax.adam(1e-3)


def noisy_digits(n):
    """Return noisy training and validation digits, and test digits, all of mean square 1."""
    digits = data.load("digits", n)
    generator = np.random.default_rng(0)
    wrong = generator.random(n) < WRONG_LABELS
    labels = np.where(wrong, generator.integers(0, 10, n), digits.y_train)
    x, x_test = (8 * data.unit_norm(images) for images in (digits.x_train, digits.x_test))
    cut = n // 4
    return (x[cut:], labels[cut:]), (x[:cut], labels[:cut]), (x_test, digits.y_test)


def train_on_digits(gamma, sets, options):
    """Return the result of `train`, and the test error of its network."""
    (x, y), validation, (x_test, y_test) = sets
    model = ResNet(
        options.depth,
        options.width,
        10,
        schedules.PowerLaw(gamma),
        normalize_blocks=True,
        in_dim=x.shape[1],
        rngs=nnx.Rngs(0),
    )
    trained = training.train(
        model,
        x,
        y,
        optimizer=OPTIMIZER,
        loss="cross_entropy",
        batch_size=32,
        steps=options.steps,
        validation=validation,
        evaluate_every=max(1, options.steps // 100),
        patience=15,
        out=options.runs and options.runs / f"gamma_{gamma:g}",
        progress=True,
    )
    guess = nnx.jit(trained.network)(x_test).argmax(axis=-1)
    return trained, float(np.mean(np.asarray(guess) != y_test))


def draw_history(ax, gamma, trained, color):
    """Draw the loss of training and of validation digits against steps."""
    history = trained.history
    label = f"γ = {gamma:g}"
    ax.plot(history["step"], history["loss"], color=color, ls="--", label=f"{label}, training")
    ax.plot(history["step"], history["validation_loss"], color=color, label=f"{label}, validation")
    best = np.min(history["validation_loss"])
    ax.plot(trained.best_step, best, "x", color=color, ms=9, mew=2)


def compare_with_flow(width, depth, n, times):
    """Compare a network of this width with the flow of the kernel of infinite width."""
    points = data.sphere.load(n, n, dim=3, coefficients={1: 1.0, 2: 1.0})
    x, x_test = (math.sqrt(3) * x.astype("float32") for x in (points.x_train, points.x_test))
    options = {"schedule": schedules.PowerLaw(0.5), "normalize_blocks": True}
    model = ResNet(depth, width, in_dim=3, mirrored=True, rngs=nnx.Rngs(0), **options)
    _, _, kernel_fn = stax.FullyConnectedResNet(depth, width, **options)
    kernel = jax.jit(functools.partial(kernel_fn, get="ntk"))
    return flow.training_matches_flow(model, x, points.y_train, x_test, times, kernel=kernel)


def main(arguments=None):
    """Train, print errors, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="train_resnet.png")
    parser.add_argument("--runs", type=pathlib.Path, help="folder to save the training in")
    parser.add_argument("--gammas", type=float, nargs="+", default=[0.0, 0.5])
    parser.add_argument("--depth", type=int, default=32, help="blocks of networks for digits")
    parser.add_argument("--width", type=int, default=64, help="of networks for digits")
    parser.add_argument("--digits", type=int, default=800, help="to train and validate on")
    parser.add_argument("--steps", type=int, default=1000, help="the most to take")
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[64, 256, 1024], help="beside gradient flow"
    )
    parser.add_argument("--quick", action="store_true", help="small networks, a few seconds")
    options = parser.parse_args(arguments)
    blocks, points, times = 5, 128, [1.0, 2.0, 5.0, 10.0, 20.0, 40.0]
    if options.quick:
        options.depth, options.width, options.digits, options.steps = 4, 16, 80, 40
        options.widths, blocks, points, times = [16, 256], 1, 16, [1.0, 5.0]

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    sets = noisy_digits(options.digits)
    for i, gamma in enumerate(options.gammas):
        trained, error = train_on_digits(gamma, sets, options)
        draw_history(left, gamma, trained, f"C{i}")
        print(f"γ = {gamma:g}: stopped after {trained.steps} steps, test error {error:.1%}")
    left.set(xlabel="steps", ylabel="cross-entropy")
    left.set_title(f"digits, {options.depth} blocks, {WRONG_LABELS:.0%} of labels drawn at random")
    left.grid(alpha=0.3)
    left.legend(fontsize="small")

    for width in options.widths:
        match = compare_with_flow(width, blocks, points, times)
        right.loglog(match.times, match.distance, "o-", label=f"width {width}")
        print(f"width {width}: at most {match.distance.max():.1%} from gradient flow")
    right.set(xlabel="time t = η · steps", ylabel="distance of network and flow / target")
    right.grid(alpha=0.3)
    right.set_title(f"network and gradient flow on the sphere, {blocks} blocks")
    right.legend(fontsize="small")
    figure.savefig(options.out, dpi=110)
    plt.close(figure)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
