"""neural-tangents on this JAX against neural-tangents on the JAX that it was made for."""

import neural_tangents as nt
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


def test_every_case_is_stored_and_no_other():
    assert REFERENCE.keys() == nt_cases.CASES.keys()
    for quantities in REFERENCE.values():
        assert all(np.isfinite(value).all() for value in quantities.values())


def test_every_layer_is_among_the_cases():
    layers = {name for name in dir(nt.stax) if name[0].isupper()}
    no_layers = {
        "AggregateImplementation",
        "AttentionMechanism",
        "Bool",
        "Diagonal",
        "MaskedArray",
        "Padding",
        "PositionalEmbedding",
        "Slice",
        "FanOut",  # Within FanInSum, FanInProd and FanInConcat.
        "Flatten",
        "Dense",
        "Conv",
    }
    assert layers - no_layers <= {case.split("/")[1].split("_")[0] for case in REFERENCE} | {
        "Sigmoid_like"
    }
    assert "kernel/Sigmoid_like" in REFERENCE
