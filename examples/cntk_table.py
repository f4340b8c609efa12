"""The convolutional kernels of Arora et al. 2019 (arXiv 1904.11955), and residual ones beside them.

    uv run python examples/cntk_table.py --root FOLDER [--dataset cifar10] [--n-train 500]

It makes table 1 of that paper, from 500 images of CIFAR-10 in place of 50,000: the accuracy of
kernel regression with convolutional networks of some depths, with a last layer that sees all
pixels (CNTK-V), and with global average pooling (CNTK-GAP, of which the first and the last layer
are not trained). The kernels are those of neural-tangents. Beside them is the kernel of a residual
network of as many blocks as there are convolutions, α = 1/√L, and the published accuracy, from all
50,000 images. FOLDER has `cifar-10-binary.tar.gz`. With --dataset fashion_mnist nothing is
published to compare with.
"""

import argparse
import pathlib
import time

import numpy as np

from nt_residual import conv, data, gram, regression, schedules, stax
from nt_residual import neural_tangents as nt

# In percent, by depth: the number of convolutions and one.
PUBLISHED = {
    "flatten": {3: 64.47, 4: 65.52, 6: 66.03, 11: 65.90, 21: 64.09},
    "gap": {3: 70.47, 4: 75.93, 6: 76.73, 11: 77.43, 21: 77.08},
}


def plain_kernel(depth, pooling):
    """The NTK of a convolutional network without residual blocks, in layers of neural-tangents."""
    gap = pooling == "gap"
    convolution, dense = nt.stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5), nt.stax.Dense(1)
    first, last = (stax.Frozen(convolution), stax.Frozen(dense)) if gap else (convolution, dense)
    layers = [first, nt.stax.Relu(), *[convolution, nt.stax.Relu()] * (depth - 2)]
    end = nt.stax.GlobalAvgPool() if gap else nt.stax.Flatten()
    _, _, kernel_fn = nt.stax.serial(*layers, end, last)
    return lambda x1, x2=None: kernel_fn(x1, x2, "ntk")


def accuracy(kernel, images, n_classes, tile_size):
    """The test accuracy of kernel regression, in percent."""
    options = {"tile_size": tile_size, "progress": True}
    k_train = gram.compute(kernel, images.x_train, **options)
    k_test = gram.compute(kernel, images.x_test, images.x_train, **options)
    targets = data.centered_one_hot(images.y_train, n_classes)
    flow = regression.GradientFlow.fit(np.asarray(k_train), targets, solver="eigh")
    predicted = flow.predict(np.asarray(k_test), np.inf).argmax(axis=1)
    return 100 * np.mean(predicted == images.y_test)


def main(arguments=None):
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", default="cifar10", help="a name of data.load")
    parser.add_argument("--root", type=pathlib.Path, help="folder with the files of the data set")
    parser.add_argument("--pooling", default="flatten", choices=["flatten", "gap"])
    parser.add_argument("--depths", type=int, nargs="+", default=[3, 4, 6, 11, 21])
    parser.add_argument("--n-train", type=int, default=500)
    parser.add_argument("--n-test", type=int, default=500)
    args = parser.parse_args(arguments)
    images = data.load(args.dataset, args.n_train, args.n_test, root=args.root)
    n_classes = len(data.class_names(args.dataset))
    x_train, x_test = data.standardize(images.x_train, images.x_test, per="channel")
    images = images._replace(x_train=x_train, x_test=x_test)
    # A tile of average pooling has as many numbers for each pair of images as pairs of pixels.
    tile_size = 8 if args.pooling == "gap" else 50
    print(f"{args.dataset}, {args.n_train} images, {args.pooling}: test accuracy in percent")
    print("depth  without blocks  residual  published   seconds")
    for depth in args.depths:
        start = time.perf_counter()
        residual = conv.ResidualKernel(
            depth - 1, schedules.PowerLaw(0.5), x_train.shape[1:3], pooling=args.pooling
        )
        found = [
            accuracy(kernel, images, n_classes, tile_size)
            for kernel in (plain_kernel(depth, args.pooling), residual)
        ]
        known = PUBLISHED[args.pooling].get(depth) if args.dataset == "cifar10" else None
        seconds = time.perf_counter() - start
        print(
            f"{depth:>5}  {found[0]:>14.1f}  {found[1]:>8.1f}  {known or '–':>9}  {seconds:>8.0f}"
        )


if __name__ == "__main__":
    main()
