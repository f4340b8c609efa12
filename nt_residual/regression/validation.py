"""When to stop gradient flow, from held-out data."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks, gram
from nt_residual.gram.sharded import no_mesh
from nt_residual.regression.arguments import check_centering, check_targets, check_times
from nt_residual.regression.gradient_flow import GradientFlow
from nt_residual.regression.stopping import Stopping, least, mean_squares, times_or_grid


@no_mesh()
def holdout(
    flow: GradientFlow, k_val_train: ArrayLike, y_val: ArrayLike, times: ArrayLike | None = None
) -> Stopping:
    """Choose the time with the least squared error on held-out data.

    Args:
      flow: a fitted flow.
      k_val_train: kernel between held-out and training inputs, shape (n_val, n).
      y_val: targets of the held-out inputs, shape (n_val,) or (n_val, n_outputs).
      times: the times to try, shape (T,); `None` for `time_grid(flow)`.

    Returns:
      The first listed of the best times, with the error at every time.

    Raises:
      TypeError: if an argument does not hold real numbers.
      ValueError: as `GradientFlow.predict`, if `y_val` is empty or holds NaN, or if its
        shape is not that of the predictions.

    Example:
      >>> flow = GradientFlow.fit(np.eye(2), np.array([1.0, -1.0]))
      >>> holdout(flow, np.eye(2), np.array([0.5, -0.5]), times=[0.0, 1.4, np.inf]).time
      1.4
    """
    targets = _checks.real_array(y_val, "y_val")
    if targets.size == 0:
        raise ValueError(f"y_val must hold at least one target, got shape {targets.shape}.")
    times = times_or_grid(flow, times)
    predictions = flow._predict(k_val_train, check_times(times), "k_val_train")
    if targets.shape != predictions.shape[1:]:
        raise ValueError(
            f"y_val must have the shape of the predictions, {predictions.shape[1:]}, got shape "
            f"{targets.shape}. Pass one target per row of k_val_train, encoded as y was."
        )
    return least(times, mean_squares(predictions.astype(np.float64), targets))


def kfold(
    k_train: ArrayLike,
    y: ArrayLike,
    n_splits: int = 5,
    *,
    times: ArrayLike | None = None,
    seed: int = 0,
    solver: Literal["auto", "eigh", "lanczos"] = "auto",
    ridge: float = 0.0,
    center_targets: bool | None = None,
) -> Stopping:
    """Choose the time with the least squared error in cross-validation.

    The inputs are divided at random into `n_splits` parts. Each part is predicted by a flow that
    is trained on all others, with the blocks of one kernel matrix. The time found also serves a
    flow on all n inputs: at a time t the eigenfunctions of an eigenvalue of K/n are learned
    equally far for any n.

    Args:
      k_train: kernel of the training inputs, an array of shape (n, n).
      y: targets, shape (n,) or (n, n_outputs).
      n_splits: the number of parts, from 2 to n.
      times: the times to try, shape (T,); `None` for `time_grid` of the first flow.
      seed: of the division.
      solver: as in `GradientFlow.fit`.
      ridge: likewise.
      center_targets: likewise, for the targets of each flow.

    Returns:
      The first listed of the best times, with the error at every time, averaged over all inputs.

    Raises:
      TypeError: if an argument does not hold real numbers, or `n_splits` is not an integer.
      ValueError: as `GradientFlow.fit` and `predict`, or if `n_splits` is out of range.

    Example:
      >>> x = np.linspace(-1, 1, 20)
      >>> stopping = kfold(1 + np.outer(x, x), 3 * x, times=[0.0, 1.0, np.inf])
      >>> stopping.time
      inf
    """
    if isinstance(k_train, gram.MatrixFree):
        raise TypeError(
            "k_train must be an array, got a gram.MatrixFree, which has no blocks. Pass "
            "gram.compute(kernel, x_train), or use holdout."
        )
    matrix = np.asarray(k_train)
    n = len(matrix) if matrix.ndim == 2 else 0
    if matrix.shape != (n, n) or n < 2:
        raise ValueError(
            f"k_train must have shape (n, n), n ≥ 2, got shape {matrix.shape}. Pass "
            "kernel(x_train)."
        )
    targets = check_targets(y, n)
    advice = f"Pass one from 2 to n = {n}."
    n_splits = _checks.integer(n_splits, "n_splits", 2, advice)
    if n_splits > n:
        raise ValueError(f"n_splits must be at most n = {n}, got {n_splits}. {advice}")
    order = np.random.default_rng(_checks.integer(seed, "seed", 0)).permutation(n)
    options: Any = {"solver": solver, "ridge": ridge}
    options["center_targets"] = check_centering(targets, center_targets, stacklevel=3)
    total: np.ndarray | float = 0.0
    for part in np.array_split(order, n_splits):
        others = np.setdiff1d(np.arange(n), part)
        flow = GradientFlow.fit(matrix[np.ix_(others, others)], targets[others], **options)
        times = times_or_grid(flow, times)
        found = holdout(flow, matrix[np.ix_(part, others)], targets[part], times)
        total = total + len(part) * found.errors
    return least(np.asarray(times), np.asarray(total) / n)
