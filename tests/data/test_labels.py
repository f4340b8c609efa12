import numpy as np
import pytest

from nt_residual import data


def test_targets_point_at_the_label_and_if_centered_sum_to_zero():
    labels = np.array([2, 0, 1], np.uint8)
    targets = data.centered_one_hot(labels, 3)
    np.testing.assert_allclose(targets, np.eye(3)[labels] - 1 / 3, atol=1e-15)
    targets = data.signs(labels, 3)
    assert targets.dtype == np.float64
    np.testing.assert_array_equal(targets, [[-1, -1, 1], [1, -1, -1], [-1, 1, -1]])


def test_bad_labels_are_refused():
    for labels, error, message in (
        ([0.0, 1.0], TypeError, "labels must hold integer labels, got dtype float64"),
        ([0, 2], ValueError, r"labels must lie in \[0, 2\), got 0 to 2"),
        ([-1, 1], ValueError, r"labels must lie in \[0, 2\), got -1 to 1"),
        ([[0]], ValueError, r"labels must have shape \(n,\), got shape \(1, 1\)"),
    ):
        with pytest.raises(error, match=message):
            data.signs(labels, 2)


def test_every_data_set_has_a_word_for_each_label():
    counts = [len(set(data.class_names(name))) for name in data.NAMES]
    assert counts == [100 if name == "cifar100" else 10 for name in data.NAMES]
    # Labels of CIFAR-100 are in the order of the alphabet.
    assert list(data.class_names("cifar100")) == sorted(data.class_names("cifar100"))
    with pytest.raises(ValueError, match=r"name must be 'digits', .*got 'minst'"):
        data.class_names("minst")
