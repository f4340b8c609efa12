"""What the kernel of a residual network becomes as its depth grows."""

from nt_residual.theory.regimes import Regime as Regime
from nt_residual.theory.regimes import regime as regime
