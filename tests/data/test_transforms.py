import numpy as np
import pytest
import scipy.linalg
from sklearn.preprocessing import StandardScaler

from nt_residual import data


def correlated(n, *shape, seed=0, dtype=np.float64):
    """Inputs with eigenvalues of the covariance from 1 down to 1e-3, and a mean."""
    rng = np.random.default_rng(seed)
    width = int(np.prod(shape))
    mix = np.linalg.qr(np.random.default_rng(9).standard_normal((width, width)))[0]
    x = rng.standard_normal((n, width)) * np.geomspace(1, 1e-3, width) ** 0.5 @ mix + 3
    return x.reshape(n, *shape).astype(dtype)


def naive_zca(x_train, x, regularization):
    """By the formula, with the root of a matrix from SciPy."""
    flat, mean = x_train.reshape(len(x_train), -1), x_train.reshape(len(x_train), -1).mean(axis=0)
    covariance = np.cov(flat.T, bias=True)
    width = len(covariance)
    ridge = regularization * np.trace(covariance) / width * np.eye(width)
    matrix = np.linalg.inv(scipy.linalg.sqrtm(covariance + ridge))
    return ((x.reshape(len(x), -1) - mean) @ matrix).reshape(x.shape)


def test_unit_norm_flattens_and_projects():
    x = data.unit_norm(np.random.default_rng(0).standard_normal((4, 3, 2)))
    assert x.shape == (4, 6)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1)
    with pytest.raises(ValueError, match=r"got norm 0\.0 in input 1"):
        data.unit_norm([[1.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_standardize_by_feature_is_that_of_scikit_learn(dtype):
    x, x_test = correlated(30, 5, dtype=dtype), correlated(9, 5, seed=1, dtype=dtype)
    scaler = StandardScaler().fit(x.astype(np.float64))
    for got, raw in zip(data.standardize(x, x_test), (x, x_test), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, scaler.transform(raw), atol=10 * np.finfo(dtype).eps)


def test_standardize_by_channel_keeps_the_pixels_of_a_channel_comparable():
    x, x_test = correlated(20, 4, 4, 3), correlated(6, 4, 4, 3, seed=1)
    got, got_test = data.standardize(x, x_test, per="channel")
    np.testing.assert_allclose(got.mean(axis=(0, 1, 2)), 0, atol=1e-14)
    np.testing.assert_allclose(got.std(axis=(0, 1, 2)), 1)
    np.testing.assert_allclose(got_test, (x_test - x.mean(axis=(0, 1, 2))) / x.std(axis=(0, 1, 2)))


def test_what_is_constant_in_training_is_zero_everywhere():
    x = correlated(30, 3, dtype=np.float32)
    # A value whose mean over 30 rows rounds to another.
    x[:, 1] = 0.1
    x_test = correlated(5, 3, seed=1, dtype=np.float32)
    for got in data.standardize(x, x_test):
        np.testing.assert_array_equal(got[:, 1], 0)
        assert np.all(np.isfinite(got))
        assert np.all(got[:, 0] != 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [12, 48, 200])  # Fewer than features, as many, and more.
def test_zca_is_the_inverse_root_of_the_regularized_covariance(n, dtype):
    x, x_test = correlated(n, 4, 4, 3, dtype=dtype), correlated(9, 4, 4, 3, seed=1, dtype=dtype)
    for regularization in (0.1, 1e-6):
        found = data.zca(x, x_test, regularization=regularization)
        for got, raw in zip(found, (x, x_test), strict=True):
            assert got.dtype == dtype
            expected = naive_zca(x.astype(np.float64), raw.astype(np.float64), regularization)
            tolerance = {np.float32: 1e-6, np.float64: 1e-9}[dtype] * np.abs(expected).max()
            np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("transform", [data.standardize, data.zca])
def test_statistics_are_those_of_the_training_set(transform):
    x, x_test = correlated(20, 4), correlated(10, 4, seed=1)
    alone = transform(x)[0]
    together, of_test, of_train = transform(x, 100 * x_test, x)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(of_train, alone)
    assert np.abs(of_test).max() > 100


def test_bad_inputs_are_refused():
    x = correlated(5, 3)
    with pytest.raises(ValueError, match=r"others\[1\] must be finite"):
        data.standardize(x, x, x + np.inf)
    with pytest.raises(ValueError, match=r"others\[0\] must have shape \('n', 3\).*\(5, 2\)"):
        data.zca(x, x[:, :2])
    with pytest.raises(ValueError, match=r"x_train must have shape .*, got shape \(5,\)"):
        data.standardize(x[:, 0])
    with pytest.raises(ValueError, match="x_train must hold inputs that differ, got 4"):
        data.zca(np.ones((4, 3)))
