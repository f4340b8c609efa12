"""The families of cases, by name."""

from collections.abc import Iterable

from benchmarks.suite import (
    conv_kernel,
    empirical_ntk,
    estimators,
    fc_kernel,
    gram,
    regression,
    scaling,
)
from benchmarks.suite.case import Case

FAMILIES = {
    "fc_kernel": fc_kernel,
    "conv_kernel": conv_kernel,
    "gram": gram,
    "regression": regression,
    "estimators": estimators,
    "empirical_ntk": empirical_ntk,
    "scaling": scaling,
}


def cases(names: Iterable[str], size: str, float64: bool) -> list[Case]:
    """All of the families named; with `float64` kernels in that, too."""
    result = []
    for name in names:
        result += FAMILIES[name].cases(size)
        if float64 and name == "fc_kernel":
            result += fc_kernel.cases(size, "float64")
    return result
