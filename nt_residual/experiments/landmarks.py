"""Early-stopped regression with √n log n landmarks, compared with the whole kernel matrix."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nt_residual import data, gram, regression, rntk, schedules, theory
from nt_residual.experiments import figures, sphere_regression
from nt_residual.experiments.claim import Finding, Result, slope, table

TITLE = "With √n log n landmarks, early stopping keeps the rate of the whole kernel"
STATEMENT = (
    "Projected onto M ~ √n log n of the inputs, the kernel learns from n noisy points as fast as "
    "the whole kernel, if held-out points choose the time (Rudi, Camoriano & Rosasco 2015, arXiv "
    "1507.04717; Camoriano et al. 2016, arXiv 1510.05684). Trained to convergence it learns more "
    "slowly. The paper does not use landmarks."
)
QUICK = {"sizes": (1000, 6000, 36_000), "n_seeds": 6}
FULL = {"sizes": (1000, 3162, 10_000, 31_623, 100_000, 316_228, 1_000_000), "n_seeds": 3}

_DIM, _MAX_DEGREE = 3, 100
_KERNEL = rntk.ResidualKernel(math.inf, schedules.PowerLaw(0.5))
# The whole kernel has n² entries. It is measured up to this number of points.
_LARGEST_WHOLE = 4000
# Above this number of points one set is used: sets hardly differ, and each takes minutes.
_LARGEST_REPEATED = 100_000


def run(
    sizes: Sequence[int] = QUICK["sizes"],
    *,
    share: float = 1 / 3,
    noise: float = 0.3,
    validation_fraction: float = 0.2,
    n_test: int = 5000,
    n_seeds: int = 3,
) -> Result:
    """Measure the excess risk with M landmarks, with early stopping and at t = ∞.

    The points lie on the sphere in three dimensions, γ is 1/2 and the depth is infinite. The target
    is the one of the claim `minimax`: of unit mean square, and as rough as functions in the RKHS.

    Args:
      sizes: numbers of training points, two or more.
      share: the factor in M = share · √n log n.
      noise: σ, the standard deviation of the noise in training and held-out targets.
      validation_fraction: the number of held-out points, in units of n. They are not among the n.
      n_test: the number of test points that the risk is measured on.
      n_seeds: the number of sets of points of each size; it is one for more than 100,000 points.

    Returns:
      A row per number of points and seed:

      * `n_train` (n), `landmarks` (M), and `seed`, the seed of points, noise and landmarks;
      * `time`, the stopping time, and `stopped`, the excess risk E (f_t − f)² at that time over
        test inputs, without noise;
      * `trained`, the excess risk at t = ∞;
      * `whole`, the excess risk with the whole kernel and the same way of stopping, for up to 4000
        points, else NaN;
      * `expected`, the risk that the eigenvalues of the whole kernel predict for the best time.
    """
    spectrum = theory.spectrum(_KERNEL, _DIM, _MAX_DEGREE)
    target = data.sphere.source(spectrum, 1.0)
    rows = []
    for n in sorted(sizes):
        count = min(n, math.ceil(share * math.sqrt(n) * math.log(n)))
        times = np.geomspace(1, 1e6, 200)
        expected = sphere_regression.expected_risk(spectrum, target, noise, n, times).min()
        options = {"n_test": n_test, "dim": _DIM, "coefficients": target, "noise": noise}
        with_held_out = n + math.ceil(validation_fraction * n)
        repeated = n_seeds if n <= _LARGEST_REPEATED else 1
        sets = sphere_regression.draw_sets(repeated, with_held_out, **options)
        for seed, points in enumerate(sets):
            row = {"n_train": n, "landmarks": count, "seed": seed, "expected": float(expected)}
            risks = _risks(points, n, gram.LowRank(_KERNEL, points.x_train[:n], count, seed=seed))
            whole = math.nan
            if n <= _LARGEST_WHOLE:
                whole = _risks(points, n, _KERNEL(points.x_train[:n]))["stopped"]
            rows.append(row | risks | {"whole": whole})
    return Result(table(rows))


def _risks(points: data.Dataset, n: int, k_train: Any) -> dict[str, float]:
    """Train on the first n points, and return the time chosen on the others and the risks."""
    flow = regression.GradientFlow.fit(k_train, points.y_train[:n], center_targets=False)
    centers = points.x_train[:n] if flow.landmarks is None else flow.landmarks
    # All inputs at once, since each number of inputs compiles another program.
    inputs = np.concatenate([points.x_train[n:], points.x_test])
    kernel: Any = gram.MatrixFree(_KERNEL, inputs, centers)
    times = regression.time_grid(flow)
    predictions = flow.predict(kernel, times)
    errors = np.square(predictions - np.concatenate([points.y_train[n:], points.y_test]))
    held_out, fresh = np.split(errors, [len(points.x_train) - n], axis=1)
    best, risks = held_out.mean(axis=1).argmin(), fresh.mean(axis=1)
    found = {"time": times[best], "stopped": risks[best], "trained": risks[-1]}
    return {name: float(value) for name, value in found.items()}


def findings(result: Result) -> list[Finding]:
    """Compare the predictions with the measurements."""
    rows: Any = result.rows
    rate = -theory.minimax_rate(_DIM)
    stopped, trained = (slope(rows.n_train, rows[name]) for name in ("stopped", "trained"))
    expected = slope(rows.n_train, rows.expected).value
    whole: Any = rows[~np.isnan(rows.whole)]
    ratio = float(whole.stopped.mean() / whole.whole.mean())
    last: Any = rows[rows.n_train == rows.n_train.max()]
    gain = float(last.trained.mean() / last.stopped.mean())
    return [
        Finding(
            claim="Stopped by held-out points, the excess risk falls at least as fast as "
            f"n^({rate:.2f}) (criterion: a slope below {rate + 0.05:.2f} with its whole interval), "
            f"and like n^({expected:.2f}), as the eigenvalues of the whole kernel lead one to "
            "expect (criterion: within 0.1).",
            measured=f"From {rows.n_train.min():,} to {rows.n_train.max():,} points the slope is "
            f"{stopped}.",
            agrees=bool(
                stopped.value + stopped.margin < rate + 0.05 and abs(stopped.value - expected) < 0.1
            ),
        ),
        Finding(
            claim="Up to 4000 points, landmarks do not cost accuracy (criterion: at most 1.2 times "
            "the mean excess risk of the whole kernel).",
            measured=f"The mean excess risk is {ratio:.3g} times that of the whole kernel.",
            agrees=ratio <= 1.2,
        ),
        Finding(
            claim="Trained to convergence, the projected kernel fits the noise in M dimensions, "
            f"and its risk falls like M/n, more slowly than n^({rate:.2f}) (criterion: a slope "
            f"above {rate:.2f} with its whole interval, and over 2 times the risk of stopping at "
            "the largest n).",
            measured=f"The slope is {trained}; with {last[0].n_train:,} points the excess risk is "
            f"{gain:.3g} times that of stopping.",
            agrees=bool(trained.value - trained.margin > rate and gain > 2),
        ),
    ]


def plot(result: Result) -> Any:
    """Draw the excess risk against the number of points. Dots are single sets of points."""
    figure, (axes,) = figures.panels(1)
    rows = result.rows
    sizes = np.unique(rows.n_train)
    labels = {
        "stopped": "landmarks, stopped",
        "trained": "landmarks, t = ∞",
        "whole": "whole kernel, stopped",
    }
    for i, (name, label) in enumerate(labels.items()):
        known: Any = rows[~np.isnan(rows[name])]
        measured = np.unique(known.n_train)
        means = [known[name][known.n_train == n].mean() for n in measured]
        if len(measured) > 1:
            label += f": {slope(known.n_train, known[name])}"
        axes.plot(measured, means, label=label, **figures.style(i))
        axes.plot(known.n_train, known[name], ".", color=f"C{i}", alpha=0.4)
    expected = [rows.expected[rows.n_train == n][0] for n in sizes]
    axes.plot(sizes, expected, "k:", label="whole kernel, from its eigenvalues")
    rate = theory.minimax_rate(_DIM)
    line = rows.stopped[rows.n_train == sizes[0]].mean() * (sizes / sizes[0]) ** -rate
    axes.plot(sizes, line, "k--", lw=1.2, label=f"minimax rate: −{rate:.2f}")
    axes.set(xscale="log", yscale="log", xlabel="training points n", ylabel="excess risk")
    axes.set_title("d = 3, γ = 1/2, infinite depth")
    return figures.finish(figure)
