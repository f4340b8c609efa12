import math

import numpy as np
import pytest

from nt_residual import rntk, schedules
from nt_residual.experiments import conv_digits, early_stopping


@pytest.fixture(scope="module")
def result():
    return conv_digits.run([1], [0.0, 1.0], n_train=200, label_noise=0.3)


def test_convolutions_learn_and_gain_from_stopping_early(result):
    for row in result.rows:
        assert row.test_accuracy > 0.75
        assert row.test_accuracy > row.test_accuracy_at_infinity + 0.03


def test_beside_each_row_is_that_of_the_fully_connected_network(result):
    sets = early_stopping.split(200, label_noise=0.3, seed=0)
    for row, gamma in zip(result.fully_connected, (0.0, 1.0), strict=True):
        kernel = rntk.ResidualKernel(1, schedules.PowerLaw(gamma))
        assert row == early_stopping.evaluate(kernel, sets)[0]


def test_the_accuracy_of_a_row_is_that_of_its_curve_at_the_chosen_time(result):
    for row, curve in zip(result.rows, result.test_accuracy, strict=True):
        assert curve[np.flatnonzero(result.times == row.stopping_time)[0]] == row.test_accuracy


def test_the_figure_has_two_curves_per_exponent(result):
    assert len(conv_digits.plot(result).axes[0].lines) == 4


def test_options_reach_the_kernels_and_what_has_no_limit_is_left_out(monkeypatch):
    kernels = []

    def evaluate(kernel, sets):
        kernels.append((kernel, sets["train"][0].shape))
        return None, np.zeros(1)

    monkeypatch.setattr(early_stopping, "evaluate", evaluate)
    conv_digits.run([3, math.inf], [0.0, 1.0], n_train=40, pooling="gap", padding="CIRCULAR")
    pairs = [(3, 0.0), (3, 1.0), (math.inf, 1.0)]
    assert [(k.depth, k.schedule.gamma) for k, _ in kernels] == pairs + pairs
    assert [shape for _, shape in kernels] == [(30, 8, 8, 1)] * 3 + [(30, 64)] * 3
    assert {(k.pooling, k.padding) for k, _ in kernels[:3]} == {("gap", "CIRCULAR")}


def test_it_is_refused_if_nothing_is_left_to_compute():
    with pytest.raises(ValueError, match="Pass a finite depth"):
        conv_digits.run([math.inf], [0.0, 0.25])
