"""Kernel regression by gradient flow, and where to stop it."""

from nt_residual.regression.gradient_flow import GradientFlow as GradientFlow
from nt_residual.regression.stopping import Stopping as Stopping
from nt_residual.regression.stopping import holdout as holdout
from nt_residual.regression.stopping import time_grid as time_grid
