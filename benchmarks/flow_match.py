"""How fast trained networks approach the gradient flow of their kernel as they get wider.

    uv run python benchmarks/flow_match.py [--out FILE] [--max-width 1024] [--seeds 4]

Mirrored networks of 5 blocks, α = L^(−1/2), learn a function on 128 points of the sphere by
full-batch gradient descent. At three times their outputs at 128 other points are compared with
`regression.GradientFlow` of the kernel of infinite width. In theory the distance of one network
falls like 1/√width.
"""

import argparse
import functools
import math
import pathlib
import time

import common
import jax
import numpy as np
from flax import nnx

from nt_residual import data, schedules, stax
from nt_residual.finite_width import ResNet, training_matches_flow

DEPTH, N, TIMES = 5, 128, (2.0, 10.0, 20.0)
WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)


def distances(width, seed, depth=DEPTH, n=N, times=TIMES):
    """The distance from the flow at each time, relative to the target."""
    points = data.sphere.load(n, n, dim=3, coefficients={1: 1.0, 2: 1.0})
    x, x_test = (math.sqrt(3) * x.astype("float32") for x in (points.x_train, points.x_test))
    options = {"schedule": schedules.PowerLaw(0.5), "normalize_blocks": True}
    model = ResNet(depth, width, in_dim=3, mirrored=True, rngs=nnx.Rngs(seed), **options)
    _, _, kernel_fn = stax.FullyConnectedResNet(depth, width, **options)
    kernel = jax.jit(functools.partial(kernel_fn, get="ntk"))
    return training_matches_flow(model, x, points.y_train, x_test, times, kernel=kernel).distance


def main():
    """Prints distances and their slope, and writes them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, help="write the numbers there, as JSON")
    parser.add_argument("--max-width", type=int, default=1024)
    parser.add_argument("--seeds", type=int, default=4, help="networks of each width")
    arguments = parser.parse_args()

    widths = [width for width in WIDTHS if width <= arguments.max_width]
    result = common.machine() | {"times": TIMES, "widths": widths, "distance": [], "seconds": []}
    for width in widths:
        start = time.perf_counter()
        found = np.array([distances(width, seed) for seed in range(arguments.seeds)])
        result["distance"].append(found.tolist())
        result["seconds"].append(time.perf_counter() - start)
        mean = np.sqrt(np.mean(found**2, axis=0))
        print(f"width {width:5}: " + ", ".join(f"{value:.2%}" for value in mean), flush=True)
        common.write(result, arguments.out)
    squares = np.log(np.mean(np.square(result["distance"]), axis=1)) / 2
    result["slope"] = np.polyfit(np.log(widths), squares, 1)[0].tolist()
    print("slopes at the three times: " + ", ".join(f"{slope:.2f}" for slope in result["slope"]))
    common.write(result, arguments.out)


if __name__ == "__main__":
    main()
