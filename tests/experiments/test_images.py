"""Kernels and early-stopped regression on handwritten digits."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from helpers import full

from nt_residual import conv, data, regression, rntk, schedules
from nt_residual.experiments import classification, convolution, early_stopping


@pytest.fixture(scope="module")
def digits():
    return classification.run(
        gammas=[0.0, 1.0], depths=[math.inf], sizes=[200, 400], n_test=100, landmarks=200,
        label_noise=[0.0, 0.3], seed=1,
    )  # fmt: skip


def test_there_is_a_row_for_every_size_kernel_and_noise(digits):
    found = [(row.n_train, row.landmarks, row.gamma, row.label_noise) for row in digits.rows]
    sizes = ((150, 0), (300, 200))
    assert found == [(*size, g, noise) for size in sizes for g in (0.0, 1.0) for noise in (0, 0.3)]


def test_learnable_kernels_learn_and_gain_from_stopping_early(digits):
    for row in digits.of(gamma=1.0, n_train=300):
        assert row.regime == "learnable"
        assert row.test_accuracy > (0.75 if row.label_noise else 0.9)
        if row.label_noise:
            assert row.test_accuracy > row.test_accuracy_at_infinity + 0.03
    # The degenerate limit knows no more than the commonest digit.
    assert max(digits.of(gamma=0.0).test_accuracy) < 0.2


def test_each_noise_is_stopped_as_if_it_were_alone(digits):
    kernel = rntk.ResidualKernel(math.inf, schedules.PowerLaw(1.0))
    sets = early_stopping.split(data.load("digits", 200, 100, seed=1), [0.3], seed=1)
    x, x_val, x_test = map(data.unit_norm, (sets.x_train, sets.x_validation, sets.x_test))
    y, y_val = (data.centered_one_hot(a[:, 0], 10) for a in (sets.y_train, sets.y_validation))
    flow = regression.GradientFlow.fit(kernel(x), y)
    stopping = regression.holdout(flow, kernel(x_val, x), y_val, early_stopping.TIMES)
    (row,) = digits.of(gamma=1.0, n_train=150, label_noise=0.3)
    assert row.stopping_time == stopping.time
    right = flow.predict(kernel(x_test, x), stopping.time).argmax(axis=1) == sets.y_test
    assert row.test_accuracy == right.mean()


@pytest.mark.full
def test_one_block_is_the_limit_and_a_constant_alpha_has_none_of_use():
    found = convolution.run(gammas=[1.0], depths=[1, math.inf], n_flatten=[160])
    first, limit = found.of(network="flatten")
    assert first.test_accuracy == pytest.approx(limit.test_accuracy, abs=0.01)


@pytest.mark.full
def test_pooling_and_whitening_are_compared_on_the_same_images():
    options: dict[str, Any] = {
        "gammas": [1.0],
        "depths": [1],
        "preprocessing": ["center", "zca"],
        "label_noise": [0.0],
        "n_test": 40,
    }
    found = convolution.run(n_flatten=[40], n_gap=[80], **options)
    kinds = [("fully connected", 30), ("flatten", 30), ("fully connected", 60), ("gap", 60)]
    expected = [(*kind, how) for kind in kinds for how in ("center", "zca")]
    assert {(r.network, r.n_train, r.preprocessing) for r in found.rows} == set(expected)
    assert min(found.rows.test_accuracy) > 0.5
    assert len(convolution.findings(found)) == 4
    assert len(convolution.plot(found).axes) == 3


def test_finished_kernels_are_kept(tmp_path, monkeypatch):
    options: dict[str, Any] = {
        "gammas": [1.0],
        "depths": [2],
        "sizes": [60],
        "n_test": 40,
        "out": tmp_path / "out",
    }
    first = classification.run(**options)
    monkeypatch.setattr(early_stopping, "evaluate", None)
    assert classification.run(**options).rows.tolist() == first.rows.tolist()
    with pytest.raises(ValueError, match="differs in seed"):
        classification.run(seed=2, **options)


def test_findings_tell_apart_a_loss_of_accuracy_with_depth(digits):
    rows = np.rec.array(np.tile(digits.of(n_train=300), 2))
    rows.depth = [100] * 4 + [10**4] * 4
    for accuracy, kept, lost in ((0.8, True, False), (0.5, False, True)):
        rows.test_accuracy = [0.8] * 4 + [accuracy] * 4
        found = classification.findings(dataclasses.replace(digits, rows=rows))
        verdicts = {finding.claim.partition(":")[0]: finding.agrees for finding in found}
        assert verdicts["clean labels, γ = 1"] is kept
        assert verdicts["30% wrong labels, γ = 0"] is lost
        assert all("criterion" in finding.claim for finding in found)


def test_figures_have_a_panel_and_a_curve_for_each_kind(digits):
    by_depth, by_time = classification.plot(digits), classification.plot_times(digits)
    titles = ["clean labels, 300 images", "30% wrong labels, 300 images"]
    assert [axes.get_title() for axes in by_depth.axes[:2]] == titles
    # Stopped and interpolated, for each γ.
    assert [len(axes.lines) for axes in by_depth.axes] == [4, 4, 4, 4]
    curves = [sum(len(line.get_xdata()) > 1 for line in axes.lines) for axes in by_time.axes]
    assert curves == [2]


def test_noisy_labels_are_wrong_in_the_given_fraction():
    labels = np.arange(10).repeat(1000)
    noisy = early_stopping.with_noise(labels, 0.3, seed=0)
    assert np.mean(noisy != labels) == pytest.approx(0.3, abs=0.02)
    assert set(noisy) == set(labels)
    np.testing.assert_array_equal(early_stopping.with_noise(labels, 0.0, seed=0), labels)


@pytest.mark.parametrize("preprocessing", ["center", "zca"])
def test_sets_are_disjoint_and_of_mean_square_one(preprocessing):
    images = data.load("digits", 40, 20)
    sets = early_stopping.split(images, [0.3], 0, preprocessing)
    parts = sets.x_train, sets.x_validation, sets.x_test
    flat = np.concatenate([x.reshape(len(x), -1) for x in parts])
    np.testing.assert_allclose(np.mean(flat**2, axis=1), 1, rtol=1e-5)
    assert len(np.unique(flat.round(5), axis=0)) == 60
    np.testing.assert_array_equal(sets.y_test, images.y_test)
    with pytest.raises(ValueError, match=r"label_noise must be in \[0, 1\)"):
        early_stopping.split(images, [1.0], 0)


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
