"""neural-tangents 0.6.5 on today's JAX, without TensorFlow.

neural-tangents was last released for the JAX of late 2023. It asks for names
that JAX has since moved or removed, calls JAX's internals in ways that have
changed, and imports TensorFlow for one experimental function. `install` puts
a finder in front of Python's import system that acts on `neural_tangents` and
on nothing else:

* `finder` gives each of its modules an import statement of its own, one that
  sees JAX through the overlay built in `jax_names`;
* `jax_names` lists what neural-tangents expects and where it is now, and
  `scipy_names` does so for SciPy;
* `experimental` stands in for the module that needs TensorFlow;
* `replacements` lists the functions of neural-tangents that are replaced: in
  `empirical` and `rules` for structured derivatives, which work on the
  `linear_program` that JAX's public functions give, in `parallel` for
  `batch` on several devices, and in `layers` for masks and inputs of two sizes;
* `precision` turns double precision on for a while.

Neither JAX nor SciPy is ever written to, not even while neural-tangents is
being imported, so other packages and other threads see them as they are.

This is the only package of ours that touches JAX internals.
"""

from nt_residual.compat.finder import KNOWN_JAX as KNOWN_JAX
from nt_residual.compat.finder import NEURAL_TANGENTS_VERSION as NEURAL_TANGENTS_VERSION
from nt_residual.compat.finder import install as install
from nt_residual.compat.precision import enable_x64 as enable_x64
