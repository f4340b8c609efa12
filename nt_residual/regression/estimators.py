"""Early-stopped regression with the kernels of residual networks, for scikit-learn.

Needs scikit-learn 1.6 or newer, the extra 'estimators'.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks

# This comes first, since it says what to do where scikit-learn is missing.
from nt_residual.regression.kernel_estimator import KernelEstimator

# isort: split
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d


class RNTKRegressor(RegressorMixin, KernelEstimator):
    """Regression with an infinitely wide residual network, trained with early stopping.

    The network of L blocks with α = c·L^(−γ) is trained by gradient flow on the squared error,
    from zero, on centered targets: `GradientFlow` with a `rntk.ResidualKernel`.

    Inputs are centered, divided by the root mean square length of the training rows, and get a
    constant feature, `bias`, which acts as a bias of the first layer. Without it the network sees
    only angles around the mean. Bring features of different units to one scale first.

    Save a fitted estimator with joblib, or with skops, which asks which types to trust: the class
    of the estimator, and `nt_residual.regression.stopping.Stopping`.

    Args:
      depth: the number of blocks L ≥ 1, or `math.inf`, where c and γ matter only through the
        limit of the effective time: see `theory.regime`.
      gamma: γ ≥ 0.
      c: positive.
      kind: 'ntk', or 'nngp' for training of the output layer alone.
      trained: as for `rntk.ResidualKernel`.
      stopping: the rule for the time, or the time itself, ≥ 0, `math.inf` for the interpolant.
        'holdout' holds out a random part of the data, chooses the time with the least error there,
        and then trains on all data for that time; 'kfold' holds out five parts in turn. 'gcv'
        (`generalized_cross_validation`) and 'loo' (`leave_one_out`) need the solver 'eigh'.
        'theory' is `theory.stopping_time` for n and d with constant 1. 'auto' is 'loo' for up to
        500 rows and 'holdout' for more. All outputs stop at one time, that of the least error
        summed over them: bring outputs of different units to one scale.
      validation_fraction: of the data, for 'holdout', in (0, 1).
      ridge: δ ≥ 0, of K + δI.
      bias: the value of the constant feature, ≥ 0, in units of the root mean square length of the
        training inputs; 0 for none: then a row equal to the mean raises `ValueError`.
      center: whether to subtract the mean of the training inputs.
      normalize_inputs: whether to divide inputs, with the constant feature, by their lengths, as
        for inputs with heavy tails.
      solver: as for `GradientFlow.fit`.
      landmarks: the number of rows onto which the kernel is projected (`gram.LowRank`), for more
        rows than a matrix allows; `None` for the whole matrix. 'auto' takes the whole matrix up to
        20,000 rows, if the memory allows, and 4000 landmarks beyond. Landmarks are rows drawn at
        random. They need the solver 'auto', and a rule other than 'kfold'.
      dtype: the precision of kernels. 'float32' has an error of 2e-6, less than noise; 'float64'
        takes twice the memory, for interpolation of data without noise.
      random_state: the seed of splits and landmarks, as in scikit-learn.

    Attributes:
      stopping_time_: the training time.
      stopping_: the `Stopping` of the rule, or `None` for 'theory' and a given time.
      network_: a dict of depth, gamma, c, kind and trained, as fitted.
      kernel_: the `rntk.ResidualKernel` with these.
      solver_: 'eigh', 'lanczos' or 'landmarks'.
      x_train_: the prepared inputs, shape (n, d + 1), or (n, d) if `bias` is 0; with landmarks,
        only these.
      x_all_: with landmarks, all prepared inputs, shape (n, d + 1) or (n, d), else None. Only
        standard deviations and covariances need them: set it to None to save a smaller model.
      dual_coef_: the coefficients of the kernel with them, shape (n,) or (n, n_outputs).
      offset_: the mean target, a scalar or shape (n_outputs,).
      target_scale_: the standard deviation of the targets, likewise.
      preparation_: a dict of mean, scale, bias and normalize, applied to inputs.
      n_features_in_: the number of features.
      feature_names_in_: their names, if X has them.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> X = rng.standard_normal((200, 3))
      >>> y = np.sin(X[:, 0]) + 0.1 * rng.standard_normal(200)
      >>> model = RNTKRegressor().fit(X[:150], y[:150])
      >>> bool(model.score(X[150:], y[150:]) > 0.9)
      True

    Reference: arXiv 2403.04545.
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> "RNTKRegressor":
        """Train on inputs X, shape (n, d), and targets y, shape (n,) or (n, n_outputs).

        Raises:
          MemoryError: if the kernel matrix does not fit.
          TypeError: if a parameter has the wrong type, or X is sparse.
          ValueError: if X or y hold NaN or infinity, their lengths differ, there are fewer than 2
            rows, one has no direction, or a parameter is out of range.

        Warns:
          ConvergenceWarning: if the solver 'lanczos' did not converge.
        """
        X, y = self._validated(X, y, multi_output=True, y_numeric=True, ensure_min_samples=2)
        y = np.asarray(y, np.float64)
        self.target_scale_ = y.std(axis=0)
        rows = self._fit(X, y)
        self.x_all_ = rows if self.solver_ == "landmarks" else None
        return self

    def predict(self, X: ArrayLike, return_std: bool = False, return_cov: bool = False) -> Any:
        """Return the predictions for inputs of shape (n, d): (n,) or (n, n_outputs), float64.

        Args:
          X: the inputs.
          return_std: whether to return the standard deviations of the predictions, too: of the
            same shape.
          return_cov: whether to return their covariances, too: (n, n), or (n, n, n_outputs).

        Both take about as long as `fit`, with landmarks up to three times as long, for any number
        of inputs. They describe networks that start at random, with outputs scaled by the standard
        deviation of the training targets, and are trained for `stopping_time_`
        (`ensemble_covariance`). With `kind='nngp'`, `stopping=math.inf` and a
        ridge they are those of the posterior of a Gaussian process (`posterior_covariance`), with
        noise whose variance is the ridge, in the same units. The noise of new targets is not
        part of them. With landmarks the variance that the projected kernel cannot describe is
        that of networks without training.

        Raises:
          ValueError: if both are asked for.
        """
        mean = self._estimate(X)
        if not (
            _checks.boolean(return_std, "return_std") or _checks.boolean(return_cov, "return_cov")
        ):
            return mean
        if return_std and return_cov:
            raise ValueError("return_std and return_cov cannot both be True. Pass one of them.")
        covariance = self._covariance(X, full=bool(return_cov))
        scale = np.square(self.target_scale_)
        found = covariance[..., None] * scale if np.ndim(scale) else covariance * scale
        return mean, found if return_cov else np.sqrt(found)

    def sample_y(self, X: ArrayLike, n_samples: int = 1, random_state: Any = 0) -> np.ndarray:
        """Return predictions of networks drawn at random, as `predict` describes them.

        Args:
          X: inputs, shape (n, d).
          n_samples: the number of networks.
          random_state: of the draws, as in scikit-learn.

        Returns:
          Shape (n, n_samples), or (n, n_outputs, n_samples), float64.
        """
        count = _checks.integer(n_samples, "n_samples", 1)
        mean = self._estimate(X)
        covariance = self._covariance(X, full=True)
        outputs = mean.reshape(len(mean), -1)
        random = check_random_state(random_state)
        # The eigenvalues of a covariance may be negative by rounding.
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        draws = np.tensordot(root, random.standard_normal((len(mean), outputs.shape[1], count)), 1)
        samples = outputs[:, :, None] + draws * np.reshape(self.target_scale_, (-1, 1))
        return samples if mean.ndim > 1 else samples[:, 0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class RNTKClassifier(ClassifierMixin, KernelEstimator):
    """Classification with an infinitely wide residual network, trained with early stopping.

    The network of `RNTKRegressor` is trained on one-hot codes of the classes, centered by their
    frequencies, with the squared error. Its outputs s_k, one for each class, estimate the
    probabilities of the classes. They sum to 1, but may lie outside [0, 1]; `predict_proba` returns
    the closest probabilities

        p = argmin { Σ_k (p_k − s_k)² : p_k ≥ 0, Σ_k p_k = 1 } = max(s − τ, 0)

    which have the same order. Zeros occur. For calibrated probabilities use
    `sklearn.calibration.CalibratedClassifierCV`.

    Args:
      All are those of `RNTKRegressor`. 'holdout' takes the same fraction of each class, and the
      time is that of the least squared error.

    Attributes:
      classes_: the labels, sorted, shape (n_classes,).
      offset_: the frequencies of the classes, shape (n_classes,).
      stopping_time_: and all others of `RNTKRegressor`.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> X = rng.standard_normal((200, 3))
      >>> y = np.where(X[:, 0] > X[:, 1], "left", "right")
      >>> model = RNTKClassifier(stopping="kfold", random_state=0).fit(X[:150], y[:150])
      >>> bool(model.score(X[150:], y[150:]) > 0.9)
      True
      >>> model.predict_proba(X[:5]).shape
      (5, 2)

    Reference: arXiv 2403.04545; for the projection Duchi et al. 2008.
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> "RNTKClassifier":
        """Train on inputs X, shape (n, d), and labels y, shape (n,), of any sortable type.

        Raises:
          MemoryError, TypeError: as `RNTKRegressor.fit`.
          ValueError: as `RNTKRegressor.fit`, if y does not hold labels, or those of one class only.
        """
        X, y = self._validated(X, y, ensure_min_samples=2)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y must hold at least two classes, got one class, {self.classes_[0]!r}, only. "
                "Check how the data were divided."
            )
        self._fit(X, np.eye(len(self.classes_))[labels], strata=labels)
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return the outputs s_k, shape (n, n_classes), or s_1 − s_0 of two classes, (n,)."""
        scores = self._estimate(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the probabilities of the classes, shape (n, n_classes)."""
        return _closest_probabilities(self._estimate(X))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return the most probable classes, shape (n,)."""
        scores = self._estimate(X)
        return self.classes_[np.argmax(scores, axis=1)]


def _closest_probabilities(scores: np.ndarray) -> np.ndarray:
    """Return the Euclidean projection of each row to the simplex."""
    descending = -np.sort(-scores, axis=1)
    count = np.arange(1, scores.shape[1] + 1)
    # τ for each number of positive probabilities. The right number is the largest for which all of
    # these are positive.
    thresholds = (np.cumsum(descending, axis=1) - 1) / count
    most = np.sum(descending > thresholds, axis=1)
    return np.maximum(scores - thresholds[np.arange(len(scores)), most - 1, None], 0)
