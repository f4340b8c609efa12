"""Kernels and early-stopped regression on handwritten digits."""

import dataclasses
import math

import numpy as np
import pytest
from helpers import full

from nt_residual import data
from nt_residual.experiments import classification, conv_regimes, early_stopping


@pytest.fixture(scope="module")
def digits():
    return classification.run(
        gammas=[0.0, 1.0], depths=[math.inf], n_train=400, n_test=100,
        conv_gammas=[0.0, 1.0], conv_depths=[1], n_conv=160, label_noise=0.3, seed=1,
    )  # fmt: skip


def test_there_is_a_row_for_every_kernel(digits):
    pairs = [(math.inf, 0.0), (math.inf, 1.0)]
    expected = [("fully connected", *pair) for pair in pairs]
    expected += [("convolutional", 1, 0.0), ("convolutional", 1, 1.0)]
    assert [(row.network, row.depth, row.gamma) for row in digits.rows] == expected
    assert digits.sizes == {"train": 300, "validation": 100, "test": 100}


def test_learnable_kernels_learn_and_gain_from_stopping_early(digits):
    for row in digits.of("fully connected", 1.0) + digits.of("convolutional", 1.0):
        assert row.regime == "learnable"
        assert row.test_accuracy > 0.75
        assert row.test_accuracy > row.test_accuracy_at_infinity + 0.03


def test_the_degenerate_limit_knows_no_more_than_the_commonest_digit(digits):
    assert digits.of("fully connected", 0.0)[0].test_accuracy < 0.2


@pytest.mark.full
def test_one_block_is_the_limit_and_a_constant_alpha_has_none_of_use():
    found = classification.run(
        gammas=[], conv_gammas=[0.0, 1.0], conv_depths=[1, math.inf], n_train=40, n_conv=160
    )
    constant, falling = (found.of("convolutional", gamma) for gamma in (0.0, 1.0))
    assert [row.depth for row in constant] == [1]
    assert falling[0].test_accuracy == pytest.approx(falling[1].test_accuracy, abs=0.01)


def test_the_accuracy_of_a_row_is_that_of_its_curve_at_the_chosen_time(digits):
    for row, curve in zip(digits.rows, digits.test_accuracy, strict=True):
        chosen = np.flatnonzero(row.stopping_time == early_stopping.TIMES)[0]
        assert curve[chosen] == row.test_accuracy
        assert curve[-1] == row.test_accuracy_at_infinity


def test_findings_tell_apart_a_loss_of_accuracy_with_depth(digits):
    rows = [
        dataclasses.replace(row, depth=100, test_accuracy=0.8)
        for row in digits.rows
        if row.network == "fully connected"
    ]
    steady = rows + [dataclasses.replace(row, depth=10**4) for row in rows]
    falling = rows + [dataclasses.replace(row, depth=10**4, test_accuracy=0.5) for row in rows]
    for made, kept, lost in ((steady, True, False), (falling, False, True)):
        found = classification.findings(dataclasses.replace(digits, rows=made))
        verdicts = {finding.claim.partition(":")[0]: finding.agrees for finding in found}
        assert verdicts["Fully connected, γ = 1"] is kept
        assert verdicts["Fully connected, γ = 0"] is lost
        assert all("criterion" in finding.claim for finding in found)


def test_figures_have_a_panel_and_a_curve_for_each_kind(digits):
    by_depth, by_time = classification.plot(digits), classification.plot_times(digits)
    assert [axes.get_title() for axes in by_depth.axes] == ["fully connected", "convolutional"]
    curves = [sum(len(line.get_xdata()) > 1 for line in axes.lines) for axes in by_time.axes]
    assert curves == [2, 2]


def test_noisy_labels_are_wrong_in_the_given_fraction():
    labels = np.arange(10).repeat(1000)
    noisy = early_stopping._with_noise(labels, 0.3, seed=0)
    assert np.mean(noisy != labels) == pytest.approx(0.3, abs=0.02)
    assert set(noisy) == set(labels)
    np.testing.assert_array_equal(early_stopping._with_noise(labels, 0.0, seed=0), labels)


def test_sets_are_disjoint_and_of_mean_square_one():
    images = data.load("digits", 40, 20)
    sets = early_stopping.split(images, 0.3, 0)
    flat = np.concatenate([x.reshape(len(x), -1) for x, _ in sets.values()])
    np.testing.assert_allclose(np.mean(flat**2, axis=1), 1, rtol=1e-5)
    assert len(np.unique(flat.round(5), axis=0)) == 60
    np.testing.assert_array_equal(sets["test"][1], images.y_test)


@pytest.fixture(scope="module")
def regimes():
    return conv_regimes.run([8, 64], [0.0, 1.0], n_images=10)


def _column(result, gamma, name):
    return np.array([getattr(row, name) for row in result.rows if row.gamma == gamma])


def test_a_constant_alpha_makes_all_images_look_alike(regimes):
    assert [row.regime for row in regimes.rows[::2]] == ["degenerate", "learnable"]
    spread, distance = (_column(regimes, 0.0, name) for name in ("spread", "distance"))
    assert spread[-1] < spread[0] / 2
    assert distance[-1] < distance[0] / 2


@pytest.mark.parametrize("gamma", [1.0, *full(0.5)])
def test_faster_falling_alphas_lead_to_a_limit_like_one_over_depth(regimes, gamma):
    regimes = regimes if gamma == 1 else conv_regimes.run([8, 64], [gamma], n_images=10)
    distance = _column(regimes, gamma, "distance")
    assert distance[0] / distance[1] == pytest.approx(8, rel=0.15)
    assert np.all(_column(regimes, gamma, "spread") > 0.1)


def test_the_figure_has_a_mark_for_each_row(regimes):
    for axes in conv_regimes.plot(regimes).axes:
        marked = [line for line in axes.lines if line.get_marker() not in ("", "None", None)]
        assert [len(line.get_xdata()) for line in marked] == [2, 2]
