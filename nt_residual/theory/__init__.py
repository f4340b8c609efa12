"""Limits of deep residual kernels, their spectra, and learning curves."""

from nt_residual.theory import plots as plots
from nt_residual.theory.decay import Decay as Decay
from nt_residual.theory.harmonics import multiplicity as multiplicity
from nt_residual.theory.harmonics import zonal_power as zonal_power
from nt_residual.theory.learning import LearningCurve as LearningCurve
from nt_residual.theory.learning import learning_curve as learning_curve
from nt_residual.theory.minimax import minimax_rate as minimax_rate
from nt_residual.theory.minimax import stopping_scale as stopping_scale
from nt_residual.theory.minimax import stopping_time as stopping_time
from nt_residual.theory.rates import Convergence as Convergence
from nt_residual.theory.rates import Rate as Rate
from nt_residual.theory.rates import convergence as convergence
from nt_residual.theory.rates import rate as rate
from nt_residual.theory.regimes import Regime as Regime
from nt_residual.theory.regimes import regime as regime
from nt_residual.theory.regimes import suitable_schedule as suitable_schedule
from nt_residual.theory.spectra import Spectrum as Spectrum
from nt_residual.theory.spectra import spectrum as spectrum
