"""Compare rules for the stopping time of gradient flow.

    uv run python examples/early_stopping.py [--out FILE] [--quick]

Gradient flow with the kernel of infinitely many blocks, γ = 1/2, learns a noisy target on the
sphere in three dimensions. The excess risk is the mean squared distance to the target without
noise. The left panel shows it against training time, and marks where each rule stops. The right
panel shows the excess risk of each rule against the number of points n. The dashed line is the
minimax rate: the power of n that no method beats for the hardest targets of the kernel's space.
This target is smoother, so every rule may fall faster. At t = ∞ the flow fits the noise, and more
data hardly help.
"""

import argparse
import math
import pathlib

import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from nt_residual import data, regression, rntk, schedules, theory

DIM, NOISE, TARGET = 3, 1.0, {1: 1.0, 2: 1.0}
KERNEL = rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma=0.5))


def scale_of_theory():
    """Return the constant of the theory's stopping time, from the spectrum and the noise."""
    spectrum = theory.spectrum(KERNEL, DIM, 60)
    power = theory.zonal_power(TARGET, DIM)
    norm = math.sqrt(sum(v / spectrum.eigenvalue[k] for k, v in power.items()))
    prefactor = spectrum.decay().sorted_prefactor
    return theory.stopping_scale(DIM, noise=NOISE, target_norm=norm, prefactor=prefactor)


def stopping_times(flow, k, y, k_val, y_val, scale):
    """Return the time that each rule chooses, by name."""
    return {
        "hold-out": regression.holdout(flow, k_val, y_val).time,
        "5-fold": regression.kfold(k, y).time,
        "leave-one-out": regression.leave_one_out(flow, y).time,
        "GCV": regression.generalized_cross_validation(flow).time,
        "discrepancy": regression.discrepancy(flow, NOISE).time,
        "theory": theory.stopping_time(len(y), DIM, scale=scale),
        "t = ∞": math.inf,
    }


def run(n, scale, seed, n_test):
    """Return the excess risk against time, and time and excess risk of each rule by name."""
    points = data.sphere.load(n + n // 4, n_test, DIM, TARGET, noise=NOISE, seed=seed)
    (x, x_val), (y, y_val) = np.split(points.x_train, [n]), np.split(points.y_train, [n])
    k = np.asarray(KERNEL(x))
    # One call instead of two, since JAX compiles a program for each shape.
    k_val, k_test = np.split(
        np.asarray(KERNEL(np.concatenate([x_val, points.x_test]), x)), [n // 4]
    )
    flow = regression.GradientFlow.fit(k, y)
    times = stopping_times(flow, k, y, k_val, y_val, scale)

    def risk(t):
        predictions = np.asarray(flow.predict(k_test, t), np.float64)
        return np.square(predictions - points.y_test).mean(axis=-1)

    grid = np.geomspace(1, 1e5, 60)
    return (grid, risk(grid)), {name: (time, float(risk(time))) for name, time in times.items()}


def draw_path(axes, path, rules, n):
    """Draw the excess risk of one flow against time, with the times of the rules."""
    axes.loglog(*path, color="0.4")
    for i, (name, (time, risk)) in enumerate(rules.items()):
        if math.isinf(time):
            axes.axhline(risk, color="k", ls=":", label=name)
        else:
            # Rules may agree: markers of several shapes and sizes show through each other.
            size = 12 - i
            axes.plot(
                time, risk, "osD^vP"[i], color=f"C{i}", ms=size, mfc="none", mew=2, label=name
            )
    axes.set(xlabel="training time t", ylabel="excess risk")
    axes.set_title(f"where to stop with {n} points")
    axes.legend(fontsize="small")


def draw_rates(axes, sizes, risks):
    """Draw the mean excess risk of each rule against the number of points."""
    for i, (name, values) in enumerate(risks.items()):
        style = {"color": "k", "ls": ":"} if name == "t = ∞" else {"color": f"C{i}", "alpha": 0.8}
        axes.loglog(sizes, values, marker="osD^vPx"[i], ms=5, label=name, **style)
    rate = theory.minimax_rate(DIM)
    start = 1.5 * max(values[0] for name, values in risks.items() if name != "t = ∞")
    guide = start * (np.array(sizes) / sizes[0]) ** -rate
    axes.loglog(sizes, guide, "--", color="0.5", label=f"n$^{{-{rate:g}}}$")
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="training points n", ylabel="excess risk")
    axes.set_title("what stopping in time is worth")
    axes.legend(fontsize="small")


def main(arguments=None):
    """Print the excess risk of each rule, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="early_stopping.png")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--seeds", type=int, default=6, help="data sets of each size")
    parser.add_argument("--quick", action="store_true", help="few, small data sets")
    options = parser.parse_args(arguments)
    sizes, seeds, n_test = options.sizes, options.seeds, 2000
    if options.quick:
        sizes, seeds, n_test = [80], 2, 200

    scale = scale_of_theory()
    risks = {}
    for n in tqdm(sizes, desc="sizes", leave=False):
        for seed in range(seeds):
            path, rules = run(n, scale, seed, n_test)
            for name, (_, risk) in rules.items():
                risks.setdefault(name, np.zeros(len(sizes)))[sizes.index(n)] += risk / seeds
    print("excess risk  " + "".join(f"{f'n = {n}':>10}" for n in sizes))
    for name, values in risks.items():
        print(f"{name:<13}" + "".join(f"{value:>10.4f}" for value in values))

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    draw_path(left, path, rules, sizes[-1])
    draw_rates(right, sizes, risks)
    figure.savefig(options.out, dpi=110)
    plt.close(figure)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
