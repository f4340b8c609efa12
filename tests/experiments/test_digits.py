import math

import numpy as np
import pytest

from nt_residual.experiments import digits, early_stopping


@pytest.fixture(scope="module")
def result():
    return digits.run(depth=300, gammas=[0.0, 1.0], n_train=800, label_noise=0.3, seed=1)


def test_there_is_a_row_per_depth_and_exponent(result):
    assert [(row.depth, row.gamma) for row in result.rows] == [
        (300, 0.0),
        (300, 1.0),
        (math.inf, 0.0),
        (math.inf, 1.0),
    ]
    assert result.sizes == {"train": 600, "validation": 200, "test": 360}
    assert result.test_accuracy.shape == (4, len(result.times))


def test_the_degenerate_limit_knows_no_more_than_the_commonest_digit(result):
    assert result.rows[2].test_accuracy < 0.15


def test_a_learnable_kernel_learns_and_gains_from_stopping_early(result):
    for row in (result.rows[1], result.rows[3]):
        assert row.regime == "learnable"
        assert row.test_accuracy > 0.9
        assert row.test_accuracy > row.test_accuracy_at_infinity + 0.03


def test_the_accuracy_of_a_row_is_that_of_its_curve_at_the_chosen_time(result):
    for row, curve in zip(result.rows, result.test_accuracy, strict=True):
        assert curve[np.flatnonzero(result.times == row.stopping_time)[0]] == row.test_accuracy
        assert curve[-1] == row.test_accuracy_at_infinity


def test_the_figure_has_a_panel_per_depth_and_a_curve_per_exponent(result):
    figure = digits.plot(result)
    assert len(figure.axes) == 2
    for axes in figure.axes:
        curves = [line for line in axes.lines if len(line.get_xdata()) > 1]
        assert len(curves) == 2


def test_clean_labels_stay_as_they_are():
    labels = np.arange(10)
    np.testing.assert_array_equal(early_stopping._with_noise(labels, 0.0, seed=0), labels)


def test_noisy_labels_are_wrong_in_the_given_fraction():
    labels = np.arange(10).repeat(1000)
    noisy = early_stopping._with_noise(labels, 0.3, seed=0)
    assert np.mean(noisy != labels) == pytest.approx(0.3, abs=0.02)
    assert set(noisy) == set(labels)


def test_a_noise_level_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"label_noise must be in \[0, 1\), got 1.0"):
        digits.run(label_noise=1.0)
