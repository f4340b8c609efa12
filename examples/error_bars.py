"""Draw error bars of predictions on the circle, and choose a network by its evidence.

    uv run python examples/error_bars.py [--out FILE]

Inputs are points (cos φ, sin φ), and targets are noisy values of a function of φ on half of the
circle. The first three panels show an ensemble of infinitely wide networks trained for a time t:
its mean, and a band of two standard deviations. At an early time the networks differ everywhere.
Later they agree at the data, noise included, and still differ elsewhere. The last panel shows the
Bayesian network, which is given the noise level.

The program also prints the evidence of networks with γ = 1/2 and γ = 1, at infinite depth, given
targets with an odd harmonic. γ = 1 has no odd harmonics beyond degree 1, and can
explain the target only as noise, so its evidence is lower.

At the end it prints, for two data sets and both kinds of networks, the share of new targets that
lie in 90% intervals. The noise of the ensembles is the error on held-out data.
"""

import argparse
import math
import pathlib

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes, load_digits

from nt_residual import regression, rntk, schedules

NOISE = 0.15
TIMES = (3.0, 100.0, math.inf)


def kernels(gamma):
    """Return the NTK and the NNGP kernel of infinitely many blocks."""
    schedule = schedules.PowerLaw(gamma)
    return [rntk.ResidualKernel(math.inf, schedule, kind) for kind in ("ntk", "nngp")]


def on_circle(angles):
    """Return inputs of shape (n, 2)."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def bands(angles, y, grid):
    """Return mean and standard deviation on a grid: of ensembles by time, and of the posterior."""
    ntk, nngp = kernels(0.5)
    x, x_grid = on_circle(angles), on_circle(grid)
    prior = np.diag(nngp(x_grid))
    flow = regression.GradientFlow.fit(ntk(x), y)
    variances = regression.ensemble_covariance(
        flow,
        ntk(x_grid, x),
        TIMES,
        nngp_test=prior,
        nngp_test_train=nngp(x_grid, x),
        nngp_train=nngp(x),
    )
    means = flow.predict(ntk(x_grid, x), TIMES)
    bayesian = regression.GradientFlow.fit(nngp(x), y, ridge=NOISE**2)
    cross = nngp(x_grid, x)
    variance = regression.posterior_covariance(bayesian, cross, prior)
    names = [f"ensemble at t = {t:g}".replace("inf", "∞") for t in TIMES]
    found = dict(zip(names, zip(means, np.sqrt(variances), strict=True), strict=True))
    return {**found, "Bayesian network": (bayesian.predict(cross, math.inf), np.sqrt(variance))}


def evidence_by_gamma(n=60):
    """Return the largest log evidence over noise levels, for a target with an odd harmonic."""
    angles = np.random.default_rng(1).uniform(0, 2 * np.pi, n)
    noise = 0.1 * np.random.default_rng(2).standard_normal(n)
    x, y = on_circle(angles), np.cos(3 * angles) / 2 + noise
    levels = np.geomspace(1e-3, 1, 13)
    found = {}
    for gamma in (0.5, 1.0):
        k = kernels(gamma)[1](x)
        values = [float(regression.log_marginal_likelihood(k, y, level)) for level in levels]
        found[gamma] = max(values), math.sqrt(levels[np.argmax(values)])
    return found


def coverage(x, y):
    """Return the share of new targets in 90% intervals, by the kind of network."""
    order = np.random.default_rng(0).permutation(len(y))
    train, test = np.array_split(order, 2)

    def inside(model, noise):
        mean, spread = model.predict(x[test], return_std=True)
        return np.mean(np.abs(mean - y[test]) < 1.645 * np.sqrt(spread**2 + noise))

    ensemble = regression.RNTKRegressor(math.inf, stopping="holdout", random_state=0)
    ensemble.fit(x[train], y[train])
    found = {"ensemble": inside(ensemble, ensemble.stopping_.error)}
    # The noise of the Bayesian network is that with the largest evidence.
    unit = (y[train] - y[train].mean()) / y[train].std()
    k = kernels(0.5)[1](ensemble.x_train_)
    levels = np.geomspace(1e-3, 3, 21)
    values = [float(regression.log_marginal_likelihood(k, unit, level)) for level in levels]
    noise = levels[np.argmax(values)]
    options = {"kind": "nngp", "stopping": math.inf, "ridge": noise}
    bayesian = regression.RNTKRegressor(math.inf, **options).fit(x[train], y[train])
    return {**found, "Bayesian network": inside(bayesian, noise * y[train].var())}


def main(arguments=None):
    """Draw the bands, and print the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="error_bars.png")
    options = parser.parse_args(arguments)

    random = np.random.default_rng(0)
    angles = np.sort(random.uniform(-np.pi / 2, np.pi / 2, 12))
    target = lambda a: np.sin(2 * a) + 0.5 * np.cos(a)  # noqa: E731
    y = target(angles) + NOISE * random.standard_normal(len(angles))
    grid = np.linspace(-np.pi, np.pi, 400)
    figure, panels = plt.subplots(
        1, 4, figsize=(13, 3.4), sharey=True, sharex=True, layout="constrained"
    )
    for axes, (name, (mean, spread)) in zip(panels, bands(angles, y, grid).items(), strict=True):
        axes.fill_between(grid, mean - 2 * spread, mean + 2 * spread, alpha=0.25, lw=0)
        axes.plot(grid, mean, label="mean ± 2 standard deviations")
        axes.plot(grid, target(grid), "k:", lw=1, label="target")
        axes.plot(angles, y, "k.", ms=5, label="data")
        axes.set(title=name, xlabel="angle φ")
        axes.set_xticks([-np.pi, 0, np.pi], ["−π", "0", "π"])
        near, far = (spread[np.argmin(np.abs(grid - a))] for a in (angles[6], np.pi))
        print(f"{name}: standard deviation {near:.2f} at a data point, {far:.2f} opposite")
    panels[0].set_ylabel("prediction")
    panels[0].legend(fontsize="small", loc="lower left")
    figure.savefig(options.out, dpi=110)
    plt.close(figure)

    for gamma, (value, noise) in evidence_by_gamma().items():
        print(f"γ = {gamma:g}: log evidence {value:.1f}, with noise of {noise:.2f}")
    for name, load in (("diabetes", load_diabetes), ("digits", load_digits)):
        for kind, share in coverage(*load(return_X_y=True)).items():
            print(f"{name}, {kind}: intervals of 90% hold {100 * share:.1f}% of new targets")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
