"""All ways to find the time at which to stop, and what a time is in steps of training.

`holdout` and `kfold` look at data that were held out; `generalized_cross_validation`,
`leave_one_out` and `discrepancy` at the training data alone; `stopping_time` at no data, only at
their number and dimension.
"""

from nt_residual.regression.criteria import discrepancy as discrepancy
from nt_residual.regression.criteria import (
    generalized_cross_validation as generalized_cross_validation,
)
from nt_residual.regression.criteria import leave_one_out as leave_one_out
from nt_residual.regression.held_out import Stopping as Stopping
from nt_residual.regression.held_out import holdout as holdout
from nt_residual.regression.held_out import kfold as kfold
from nt_residual.regression.held_out import time_grid as time_grid
from nt_residual.regression.steps import steps_of_time as steps_of_time
from nt_residual.regression.steps import time_of_steps as time_of_steps
from nt_residual.theory.minimax import stopping_time as stopping_time
