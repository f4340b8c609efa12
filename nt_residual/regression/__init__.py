"""Kernel regression by gradient flow, rules for the stopping time, and error bars."""

import typing

from nt_residual.regression.gradient_flow import GradientFlow as GradientFlow
from nt_residual.regression.gradient_steps import steps_of_time as steps_of_time
from nt_residual.regression.gradient_steps import time_of_steps as time_of_steps
from nt_residual.regression.solution import Solution as Solution
from nt_residual.regression.stopping import Stopping as Stopping
from nt_residual.regression.stopping import discrepancy as discrepancy
from nt_residual.regression.stopping import (
    generalized_cross_validation as generalized_cross_validation,
)
from nt_residual.regression.stopping import holdout as holdout
from nt_residual.regression.stopping import kfold as kfold
from nt_residual.regression.stopping import leave_one_out as leave_one_out
from nt_residual.regression.stopping import time_grid as time_grid
from nt_residual.regression.uncertainty import ensemble_covariance as ensemble_covariance
from nt_residual.regression.uncertainty import (
    log_marginal_likelihood as log_marginal_likelihood,
)
from nt_residual.regression.uncertainty import posterior_covariance as posterior_covariance

if typing.TYPE_CHECKING:
    from nt_residual.regression.estimators import RNTKClassifier as RNTKClassifier
    from nt_residual.regression.estimators import RNTKRegressor as RNTKRegressor


def __getattr__(name: str) -> typing.Any:
    # These need scikit-learn, an extra.
    if name in ("RNTKClassifier", "RNTKRegressor"):
        from nt_residual.regression import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module 'nt_residual.regression' has no attribute {name!r}")
