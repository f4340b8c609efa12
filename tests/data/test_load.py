import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from nt_residual import data

PUBLISHED = ["mnist", "fashion_mnist", "cifar10", "cifar100"]


@pytest.mark.parametrize(("n_train", "seed"), [(None, 0), (200, 0), (1000, 3)])
def test_digits_are_those_that_scikit_learn_draws(n_train, seed):
    digits = load_digits()
    images, labels = digits.images[..., None].astype(np.float32) / 16, digits.target
    x, x_test, y, y_test = train_test_split(
        images, labels, test_size=360, stratify=labels, random_state=seed
    )
    if n_train is not None:
        x, _, y, _ = train_test_split(x, y, train_size=n_train, stratify=y, random_state=seed)
    found = data.load("digits", n_train, seed=seed)
    for got, expected in zip(found, (x, y, x_test, y_test), strict=True):
        np.testing.assert_array_equal(got, expected, strict=True)


def test_a_subset_is_stratified_and_leaves_the_other_set_alone():
    small, whole = data.load("digits", n_train=200), data.load("digits")
    np.testing.assert_array_equal(small.x_test, whole.x_test)
    assert np.bincount(small.y_train).min() >= 18
    small = data.load("digits", n_test=100)
    np.testing.assert_array_equal(small.x_train, whole.x_train)
    assert set(np.bincount(small.y_test)) == {10}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[
            ({"n_train": n}, f"n_train must be 1437, or between 10 and 1427, .* got {n}")
            for n in (0, 5, 1430, 1438)
        ],
        ({"n_test": 5}, "n_test must be 360, or between 10 and 350, .* got 5"),
        ({"name": "minst"}, "name must be 'digits', .* or 'cifar100', got 'minst'"),
        ({"root": "/data"}, "root must be None for 'digits', .* got '/data'"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        data.load(**{"name": "digits", **options})


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_give_the_images_and_labels_in_them(name, files):
    x, y, x_test, y_test = files.arrays[name]
    found = data.load(name, root=files.root / name)
    for got, images in ((found.x_train, x), (found.x_test, x_test)):
        np.testing.assert_array_equal(got, images.astype(np.float32) / 255, strict=True)
        assert got.flags.c_contiguous
    for got, labels in ((found.y_train, y), (found.y_test, y_test)):
        np.testing.assert_array_equal(got, labels, strict=True)


def test_subsets_of_published_files_keep_images_with_their_labels(files):
    x, y, _, _ = files.arrays["cifar10"]
    label_of = {image.tobytes(): label for image, label in zip(x, y, strict=True)}
    found, other = (
        data.load("cifar10", 30, 20, root=files.root / "cifar10", seed=seed) for seed in (1, 2)
    )
    assert set(np.bincount(found.y_train)) == {3}
    assert set(np.bincount(found.y_test)) == {2}
    images = np.rint(255 * found.x_train).astype(np.uint8)
    assert [label_of[image.tobytes()] for image in images] == found.y_train.tolist()
    assert not np.array_equal(other.y_train, found.y_train)
