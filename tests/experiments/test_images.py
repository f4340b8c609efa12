"""Kernels and early-stopped regression on handwritten digits."""

import dataclasses
import math

import numpy as np
import pytest
from helpers import full

from nt_residual import conv, data, schedules
from nt_residual.experiments import classification, early_stopping


@pytest.fixture(scope="module")
def digits():
    return classification.run(
        gammas=[0.0, 1.0], depths=[math.inf], n_train=400, n_test=100,
        conv_gammas=[0.0, 1.0], conv_depths=[1], n_conv=160, label_noise=0.3, seed=1,
    )  # fmt: skip


def test_there_is_a_row_for_every_kernel(digits):
    kinds = (("fully connected", math.inf), ("convolutional", 1))
    expected = [(*kind, gamma) for kind in kinds for gamma in (0.0, 1.0)]
    assert [(row.network, row.depth, row.gamma) for row in digits.rows] == expected
    assert digits.sizes == {"train": 300, "validation": 100, "test": 100}


def test_learnable_kernels_learn_and_gain_from_stopping_early(digits):
    for row in digits.of(gamma=1.0):
        assert row.regime == "learnable"
        assert row.test_accuracy > 0.75
        assert row.test_accuracy > row.test_accuracy_at_infinity + 0.03
    # The degenerate limit knows no more than the commonest digit.
    assert digits.of(network="fully connected", gamma=0.0)[0].test_accuracy < 0.2


@pytest.mark.full
def test_one_block_is_the_limit_and_a_constant_alpha_has_none_of_use():
    found = classification.run(
        gammas=[], conv_gammas=[0.0, 1.0], conv_depths=[1, math.inf], n_train=40, n_conv=160
    )
    constant, falling = (found.of(gamma=gamma) for gamma in (0.0, 1.0))
    assert list(constant.depth) == [1]
    assert falling[0].test_accuracy == pytest.approx(falling[1].test_accuracy, abs=0.01)


def test_findings_tell_apart_a_loss_of_accuracy_with_depth(digits):
    rows = np.rec.array(np.tile(digits.of(network="fully connected"), 2))
    rows.depth = [100, 100, 10**4, 10**4]
    for accuracy, kept, lost in ((0.8, True, False), (0.5, False, True)):
        rows.test_accuracy = [0.8, 0.8, accuracy, accuracy]
        found = classification.findings(dataclasses.replace(digits, rows=rows))
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


@pytest.mark.parametrize("gamma", [0.0, *full(0.5, 1.0)])
def test_convolutional_kernels_have_the_limits_of_fully_connected_ones(gamma):
    images = early_stopping.normalized(np.random.default_rng(0).standard_normal((5, 3, 3, 1)))
    kernel = conv.ResidualKernel(8, schedules.PowerLaw(gamma), (3, 3), padding="CIRCULAR")
    pairs = np.triu_indices(5, 1)
    limit = np.asarray(kernel.at_depth(math.inf)(images))[pairs] if gamma else 0.25
    near, far = (
        np.abs(np.asarray(kernel.at_depth(d)(images))[pairs] - limit).max() for d in (64, 8)
    )
    # Like 1/L, or log(L)/L for γ = 0.
    assert far / near == pytest.approx(8 if gamma else 4, rel=0.15)
