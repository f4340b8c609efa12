"""Labels in words, and as the targets of a regression."""

import numpy as np
from numpy.typing import ArrayLike

from nt_residual import _checks

_DIGITS = "0 1 2 3 4 5 6 7 8 9"
_WORDS = {
    "digits": _DIGITS,
    "mnist": _DIGITS,
    "fashion_mnist": "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle_boot",
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "cifar100": """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
        butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
        crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
        keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
        mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
        plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
        television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
        """,
}


def class_names(name: str) -> tuple[str, ...]:
    """Return the words for the labels 0, 1, … of a data set that `load` knows.

    Raises:
      TypeError, ValueError: if there is no such data set.

    Example:
      >>> class_names("fashion_mnist")[9]
      'Ankle boot'
    """
    words = _WORDS[_checks.choice(name, "name", tuple(_WORDS))].split()
    return tuple(word.replace("_", " ") for word in words)


def centered_one_hot(labels: ArrayLike, n_classes: int) -> np.ndarray:
    """Return labels as regression targets that sum to zero over the classes.

    They are one-hot vectors minus their mean 1/n_classes, for `GradientFlow` starts from zero.

    Args:
      labels: shape (n,), integers in [0, n_classes).
      n_classes: the number of classes, at least 2.

    Returns:
      Shape (n, n_classes), float64.

    Raises:
      TypeError: if `labels` does not hold integers, or `n_classes` is not one.
      ValueError: if a label is out of range, the shape is not (n,) or `n_classes` < 2.

    Example:
      >>> centered_one_hot([1, 0], n_classes=2)
      array([[-0.5,  0.5],
             [ 0.5, -0.5]])
    """
    return _one_hot(labels, n_classes) - 1 / n_classes


def signs(labels: ArrayLike, n_classes: int) -> np.ndarray:
    """Return labels as ±1, each class against all others.

    The result has the shape (n, n_classes), float64. For two classes the last column is enough.
    Arguments and errors are those of `centered_one_hot`.

    Example:
      >>> signs([1, 0], n_classes=2)
      array([[-1.,  1.],
             [ 1., -1.]])
    """
    return 2 * _one_hot(labels, n_classes) - 1


def _one_hot(labels: ArrayLike, n_classes: int) -> np.ndarray:
    _checks.integer(n_classes, "n_classes", 2, "Pass the number of classes.")
    return np.eye(n_classes)[_checks.labels(labels, "labels", n_classes)]
