"""neural-tangents on this JAX against neural-tangents on the JAX that it was made for."""

import nt_cases
import numpy as np
import pytest
from helpers import full

REFERENCE = nt_cases.stored()

# What compat replaces, and a few others.
CHANGED = [
    case
    for case in nt_cases.CASES
    if case.startswith(("empirical/FanInSum/ntk", "predict/"))
    or case.endswith("/masked")
    or case in ("kernel/Relu", "kernel/ElementwiseNumerical", "kernel/repeat", "output/Erf")
]
OTHERS = [case for case in nt_cases.CASES if case not in CHANGED]


# neural-tangents warns of choices that these cases make on purpose.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", [*CHANGED, *full(*OTHERS)])
def test_the_numbers_are_those_of_jax_0_4_20(case, x64):
    actual = nt_cases.compute(case)
    assert actual.keys() == REFERENCE[case].keys()
    for quantity, expected in REFERENCE[case].items():
        # The NTK of an input with itself is good to the root of the machine epsilon: its
        # angle comes from 1 - cos².
        rtol = 1e-8 if quantity == "ntk_within" else 1e-12
        assert actual[quantity].dtype == expected.dtype
        atol = rtol * np.abs(expected).max()
        np.testing.assert_allclose(actual[quantity], expected, rtol=0, atol=atol)
