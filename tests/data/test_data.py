import numpy as np
import pytest
import scipy.special

from nt_residual import data


def test_digits_come_split_scaled_and_labelled():
    digits = data.load("digits")
    assert digits.x_train.shape == (1437, 8, 8)
    assert digits.x_test.shape == (360, 8, 8)
    assert digits.x_train.dtype == np.float32
    assert digits.x_train.min() == 0
    assert digits.x_train.max() == 1
    assert set(digits.y_train) == set(range(10))


def test_the_split_depends_on_the_seed_alone():
    a, b, c = data.load("digits"), data.load("digits"), data.load("digits", seed=1)
    np.testing.assert_array_equal(a.x_train, b.x_train)
    assert not np.array_equal(a.x_train, c.x_train)


def test_a_subset_is_stratified_and_leaves_the_test_set_alone():
    small, whole = data.load("digits", n_train=200), data.load("digits")
    np.testing.assert_array_equal(small.x_test, whole.x_test)
    counts = np.bincount(small.y_train)
    assert counts.sum() == 200
    assert counts.min() >= 18


@pytest.mark.parametrize("n_train", [0, 5, 1430, 1438])
def test_a_subset_of_impossible_size_is_refused(n_train):
    with pytest.raises(
        ValueError, match=f"n_train must be 1437, or between 10 and 1427, .* got {n_train}"
    ):
        data.load("digits", n_train=n_train)


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match=r"name must be one of \['digits'\], got 'minst'"):
        data.load("minst")


def test_one_hot_targets_sum_to_zero_and_point_at_the_label():
    labels = np.array([2, 0, 1])
    targets = data.one_hot(labels, 3)
    np.testing.assert_allclose(targets.sum(axis=1), 0, atol=1e-15)
    np.testing.assert_array_equal(targets.argmax(axis=1), labels)


def test_bad_labels_are_refused():
    with pytest.raises(TypeError, match="labels must hold integers, got dtype float64"):
        data.one_hot([0.0, 1.0], 2)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\), got 0 to 2"):
        data.one_hot([0, 2], 2)
    with pytest.raises(ValueError, match=r"labels must have shape \(n,\), got shape \(1, 1\)"):
        data.one_hot([[0]], 2)


def test_unit_norm_flattens_and_projects():
    x = data.unit_norm(np.random.default_rng(0).standard_normal((4, 3, 2)))
    assert x.shape == (4, 6)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1)
    with pytest.raises(ValueError, match=r"got norm 0\.0 in row 1"):
        data.unit_norm([[1.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_points_are_uniform_on_the_sphere(dim):
    x = data.sphere.uniform(20000, dim, seed=1)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(x.T @ x / len(x), np.eye(dim) / dim, atol=0.02)


@pytest.mark.parametrize("dim", [2, 3, 4, 7])
def test_harmonics_of_different_degree_are_orthogonal_with_known_norm(dim):
    x = data.sphere.uniform(200000, dim)
    values = np.array([data.sphere.zonal(x, {k: 1.0}) for k in range(4)])
    # N(d, k) = C(d+k−1, k) − C(d+k−3, k−2)
    comb = scipy.special.comb
    multiplicity = [
        comb(dim + k - 1, k) - (comb(dim + k - 3, k - 2) if k > 1 else 0) for k in range(4)
    ]
    gram = values @ values.T / x.shape[0]
    np.testing.assert_allclose(gram, np.diag(1 / np.array(multiplicity)), atol=0.01)


def test_noise_is_added_to_training_targets_alone():
    options = {"dim": 3, "coefficients": {1: 1.0, 2: 0.5}}
    noisy = data.sphere.load(5000, 10, **options, noise=0.3)
    noise = noisy.y_train - data.sphere.zonal(noisy.x_train, options["coefficients"])
    assert np.std(noise) == pytest.approx(0.3, rel=0.05)
    clean = data.sphere.zonal(noisy.x_test, options["coefficients"])
    np.testing.assert_array_equal(noisy.y_test, clean)


def test_bad_sphere_arguments_are_refused():
    with pytest.raises(ValueError, match="dim must be at least 2, got 1"):
        data.sphere.uniform(5, 1)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        data.sphere.uniform(0, 3)
    with pytest.raises(ValueError, match="points of norm 1"):
        data.sphere.zonal(np.ones((2, 3)), {1: 1.0})
    with pytest.raises(ValueError, match="degree must be at least 0, got -1"):
        data.sphere.zonal(np.eye(3), {-1: 1.0})
    with pytest.raises(ValueError, match="noise must be finite and ≥ 0"):
        data.sphere.load(5, 5, 3, {1: 1.0}, noise=-1.0)
