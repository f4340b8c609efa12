"""Early-stopped regression with the limiting kernels attains the minimax rate on the sphere."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg

from nt_residual import data, regression, rntk, schedules, theory
from nt_residual.experiments import figures, sphere_regression
from nt_residual.experiments.claim import Finding, Result, slope, table

TITLE = "Early stopping is minimax optimal, interpolation is not"
STATEMENT = (
    "Regression with the limiting kernels, stopped at a time ~ n^(d/(2d−1)), has an excess risk of "
    "order n^(−d/(2d−1)) on the sphere S^(d−1). This is the best rate for targets in the kernel's "
    "RKHS. If the targets are noisy, training to convergence does not generalize."
)
QUICK = {"sizes": (64, 128, 256, 512, 1024, 2048, 4096), "n_seeds": 3}
FULL = {"sizes": (64, 128, 256, 512, 1024, 2048, 4096, 8192), "n_seeds": 20}

_MAX_DEGREE = 40
# The constant of the stopping time is found with points of other seeds.
_FIRST_CALIBRATION_SEED = 10_000
# Added to the diagonal, against rounding of the kernel in float32: next to noise it is nothing.
_JITTER = 1e-5


def run(
    sizes: Sequence[int] = QUICK["sizes"],
    *,
    dims: Sequence[int] = (3, 5),
    gammas: Sequence[float] = (0.5, 1.0),
    depths: Sequence[int | float] = (math.inf, 1000),
    noise: float = 0.3,
    n_test: int = 1000,
    n_calibration: int = 512,
    n_seeds: int = 3,
) -> Result:
    """Measure the excess risk of early-stopped and of interpolating regression.

    The target has unit mean square and is as rough as targets in the RKHS are
    (`data.sphere.source` with smoothness 1). The constant of the stopping time c·n^(d/(2d−1)) is
    the one with the least mean excess risk at infinite depth on `n_calibration` points of other
    seeds, for each dimension and γ.

    Args:
      sizes: numbers of training points, two or more.
      dims: d, each at least 2.
      gammas: the exponents γ, at least 1/2.
      depths: the numbers of blocks, infinity among them.
      noise: σ, the standard deviation of the noise in training targets, positive.
      n_test: fresh points to measure the risk on.
      n_calibration: training points to calibrate with.
      n_seeds: the number of sets of points of each size.

    Returns:
      A row per dimension, γ, number of points, depth and seed:

      * `dim`, d, `gamma`, γ in α = L^(−γ), `n_train`, n, `depth` and `seed`, of points and noise;
      * `time`, the stopping time, and `stopped`, the excess risk E (f_t − f)² at that time over
        fresh inputs, without noise;
      * `interpolated`, the excess risk of the interpolant;
      * `expected`, the one at the stopping time that the limit's eigenvalues predict for large n.
    """
    if math.inf not in depths:
        raise ValueError(f"depths must have infinity among them, got {depths}. Add math.inf.")
    rows = []
    for dim in dims:
        for gamma in gammas:
            limit = rntk.ResidualKernel(math.inf, schedules.PowerLaw(gamma))
            spectrum = theory.spectrum(limit, dim, _MAX_DEGREE)
            target = data.sphere.source(spectrum, 1.0)
            options = {"n_test": n_test, "dim": dim, "coefficients": target, "noise": noise}
            sets = sphere_regression.draw_sets(
                n_seeds, n_calibration, first_seed=_FIRST_CALIBRATION_SEED, **options
            )
            scale = _calibrate(limit, sets, float(theory.stopping_time(n_calibration, dim)))
            for n in sorted(sizes):
                time = float(theory.stopping_time(n, dim, scale=scale))
                row = {"dim": dim, "gamma": float(gamma), "n_train": n, "time": time}
                row["expected"] = float(
                    sphere_regression.expected_risk(spectrum, target, noise, n, time)
                )
                for seed, points in enumerate(sphere_regression.draw_sets(n_seeds, n, **options)):
                    for depth in depths:
                        risks = _risks(limit.at_depth(depth), points, time)
                        rows.append(row | {"seed": seed, "depth": depth} | risks)
    return Result(table(rows))


def _calibrate(kernel: Any, sets: list[data.Dataset], unit: float) -> float:
    """Return the constant c for which the time c · unit has the least mean risk."""
    scales = np.geomspace(0.1, 1000, 81)
    risk = np.zeros(len(scales))
    for points in sets:
        flow = regression.GradientFlow.fit(kernel(points.x_train), points.y_train, solver="eigh")
        predictions = flow.predict(kernel(points.x_test, points.x_train), scales * unit)
        risk += np.square(predictions - points.y_test).mean(axis=1)
    return float(scales[np.argmin(risk)])


def _risks(kernel: Any, points: data.Dataset, time: float) -> dict[str, float]:
    """Return the excess risk at a time, and that of the interpolant."""
    k_train, k_test = kernel(points.x_train), kernel(points.x_test, points.x_train)
    flow = regression.GradientFlow.fit(k_train, points.y_train, solver="lanczos")
    matrix = np.asarray(k_train, np.float64) + _JITTER * np.eye(len(points.x_train))
    found = {
        "stopped": flow.predict(k_test, time),
        "interpolated": k_test @ scipy.linalg.solve(matrix, points.y_train, assume_a="pos"),
    }
    return {name: float(np.square(f - points.y_test).mean()) for name, f in found.items()}


def _mean_by_size(rows: np.recarray, name: str) -> dict[int, float]:
    return {n: rows[name][rows.n_train == n].mean() for n in dict.fromkeys(rows.n_train.tolist())}


def findings(result: Result) -> list[Finding]:
    """Return the predictions of the paper beside measurements.

    The minimax rate is that of the worst target. For the target here the risk may fall faster.
    """
    found = []
    for dim, gamma in _curves(result):
        rate = -theory.minimax_rate(dim)
        where = f"d = {dim}, γ = {gamma:g}"
        limit = result.of(dim=dim, gamma=gamma, depth=math.inf)
        first_order = slope(limit.n_train, limit.expected).value
        for depth in dict.fromkeys(result.rows.depth.tolist()):
            rows = result.of(dim=dim, gamma=gamma, depth=depth)
            measured = slope(rows.n_train, rows.stopped)
            name = "infinite depth" if depth == math.inf else f"depth {depth}"
            found.append(
                Finding(
                    claim=f"{where}, {name}: stopped at c·n^{-rate:.3f}, the excess risk falls at "
                    f"least as fast as n^({rate:.3f}) (criterion: the whole 95% interval of the "
                    f"slope is below {rate + 0.05:.2f}). For this target and these "
                    f"n, the eigenvalues of the limit predict n^({first_order:.2f}) "
                    "(criterion: within 0.15).",
                    measured=f"The slope is {measured}.",
                    agrees=measured.value + measured.margin < rate + 0.05
                    and abs(measured.value - first_order) < 0.15,
                )
            )
        found.append(_interpolation(where, rate, limit))
    return found


def _interpolation(where: str, rate: float, rows: Any) -> Finding:
    measured = slope(rows.n_train, rows.interpolated)
    stopped, interpolated = (_mean_by_size(rows, name) for name in ("stopped", "interpolated"))
    n = max(stopped)
    ratio = interpolated[n] / stopped[n]
    return Finding(
        claim=f"{where}: interpolating noisy targets does not attain that rate (criterion: the "
        f"whole 95% interval of the slope is above {rate:.3f}, and the risk at the largest n is "
        "over 3 times that of stopping).",
        measured=f"The slope is {measured}; with {n} points the excess risk is "
        f"{interpolated[n]:.2g}, {ratio:.3g} times that of stopped regression.",
        agrees=bool(measured.value - measured.margin > rate and ratio > 3),
    )


def _curves(result: Result) -> list[tuple[int, float]]:
    return list(dict.fromkeys(result.rows[["dim", "gamma"]].tolist()))


def plot(result: Result) -> Any:
    """Draw the excess risk against the number of points, a row per dimension, a column per γ.

    Dots are single sets of points, lines are their means. Dashed is the minimax rate.
    """
    curves, n_columns = _curves(result), len(set(result.rows.gamma))
    figure, panels = figures.panels(n_columns, len(curves) // n_columns)
    for axes, (dim, gamma) in zip(panels, curves, strict=True):
        for j, depth in enumerate(dict.fromkeys(result.rows.depth.tolist())):
            rows = result.of(dim=dim, gamma=gamma, depth=depth)
            for i, column in enumerate(("stopped", "interpolated")):
                means = _mean_by_size(rows, column)
                style = {**figures.style(j), "color": f"C{i}"}
                measured = slope(rows.n_train, rows[column])
                label = f"{column}, L = {figures.depth(depth)}: {measured}"
                axes.plot(*zip(*means.items(), strict=True), **style, label=label)
                if j == 0:
                    axes.plot(rows.n_train, rows[column], ".", color=f"C{i}", alpha=0.4)
        means, rate = (
            _mean_by_size(result.of(dim=dim, gamma=gamma), "stopped"),
            theory.minimax_rate(dim),
        )
        sizes = np.array(list(means))
        line = means[sizes[0]] * (sizes / sizes[0]) ** -rate
        axes.plot(sizes, line, "k--", lw=1.2, label=f"minimax rate: −{rate:.2f}")
        axes.set(xscale="log", yscale="log", xlabel="training points n", ylabel="excess risk")
        axes.set_title(f"d = {dim}, γ = {gamma:g}")
    return figures.finish(figure)
