"""Computes the cases of `nt_cases` with the JAX that neural-tangents 0.6.5 was made for.

It runs where nt_residual cannot, in an environment of its own with Python 3.10:

    pip install 'jax==0.4.20' 'jaxlib==0.4.20' 'numpy<2' 'scipy<1.12' 'ml_dtypes<0.4' frozendict
    pip install --no-deps 'neural-tangents==0.6.5'
    python tests/reference/make_neural_tangents.py

Only the module that needs TensorFlow is left out of neural-tangents.
"""

import pathlib
import sys
import types

import jax
import numpy as np

TESTS = pathlib.Path(__file__).parent.parent


def main():
    jax.config.update("jax_enable_x64", True)
    sys.modules["neural_tangents.experimental"] = types.ModuleType("experimental")
    sys.path.insert(0, str(TESTS))
    import nt_cases

    arrays = {
        f"{case}/{quantity}": value
        for case in nt_cases.CASES
        for quantity, value in nt_cases.compute(case).items()
    }
    np.savez_compressed(nt_cases.STORED, **arrays)
    print(f"{len(arrays)} arrays, JAX {jax.__version__}")


if __name__ == "__main__":
    main()
