"""How fast the NTK of finite networks approaches the closed form as they get wider.

    uv run python benchmarks/width_sweep.py [--out FILE] [--cases fc conv] [--max-width 2048]

For fully-connected networks of 10 and 100 blocks, and convolutional ones on images of 8×8 pixels,
with α = L^(−γ), the NTK of networks of several widths is compared with that of infinite width. In
theory the distance of one network falls like 1/√width: the slope is −1/2. That is the first order
of a law that fits these networks, (relative distance)² ≈ exp(2.5 S/width) − 1 with
S = Σ α²/(1 + α²). For α = 1 and 100 blocks S is 50, and the first order holds from width 1000 on:
narrower networks are further away, and approach faster. The widest of 100 blocks need 14 GB.
"""

import argparse
import pathlib
import time

import common
import numpy as np

from nt_residual import conv, data, rntk, schedules
from nt_residual.finite_width.width_sweep import width_sweep

GAMMAS = (0.0, 0.5, 1.0)
# The number of networks of each width: as many as time allows.
FC_SEEDS = {
    10: {64: 400, 128: 400, 256: 300, 512: 80, 1024: 20, 2048: 5},
    100: {64: 400, 128: 300, 256: 100, 512: 20, 1024: 6, 2048: 2},
}
CONV_SEEDS = {
    3: {16: 100, 32: 100, 64: 60, 128: 30, 256: 10},
    10: {16: 100, 32: 60, 64: 40, 128: 16, 256: 5},
}


def fc(depth, gamma):
    """A kernel, and two inputs."""
    return rntk.ResidualKernel(depth, schedules.PowerLaw(gamma)), data.sphere.uniform(2, 4)


def convolutional(depth, gamma):
    """A kernel, and two handwritten digits, of mean square 1."""
    digits = data.unit_norm(data.load("digits", 40).x_train[:2])
    kernel = conv.ResidualKernel(depth, schedules.PowerLaw(gamma), (8, 8), padding="CIRCULAR")
    return kernel, 8 * np.reshape(digits, (-1, 8, 8, 1))


CASES = {"fc": (fc, FC_SEEDS), "conv": (convolutional, CONV_SEEDS)}


def main():
    """Prints slopes, and writes the numbers as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, help="write the numbers there, as JSON")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--max-width", type=int, default=2048)
    arguments = parser.parse_args()

    result = common.machine()
    for case in arguments.cases:
        make, depths = CASES[case]
        for depth, seeds in depths.items():
            seeds = {m: count for m, count in seeds.items() if m <= arguments.max_width}
            for gamma in GAMMAS:
                start = time.perf_counter()
                found = width_sweep(*make(depth, gamma), list(seeds), list(seeds.values()))
                name = f"{case}, L={depth}, γ={gamma:g}"
                result[name] = {
                    "widths": list(seeds),
                    "seeds": list(seeds.values()),
                    "error": found.error.tolist(),
                    "error_bar": found.error_bar.tolist(),
                    "bias": found.bias.tolist(),
                    "sampling": found.sampling.tolist(),
                    "slope": found.slope,
                    "slope_error": found.slope_error,
                    "limit_error": found.limit_error,
                    "limit_sampling": found.limit_sampling,
                    "p_value": found.p_value,
                    "agrees": found.agrees,
                    "seconds": time.perf_counter() - start,
                }
                print(
                    f"{name:18} slope {found.slope:.3f} ± {found.slope_error:.3f}, limit off by "
                    f"{found.limit_error:.2%} (sampling {found.limit_sampling:.2%}, "
                    f"p = {found.p_value:.2f}): {'agrees' if found.agrees else 'does not agree'}",
                    flush=True,
                )
                common.write(result, arguments.out)


if __name__ == "__main__":
    main()
