"""Gram matrices and products over 1, 2, 4, … devices, with strong and weak scaling.

`strong` has the same n for all numbers p of devices. `weak` has n ~ √p, so that each device has the
same number of entries. Devices compute entries on both sides of the diagonal: 2·784·n² operations.
A product with ten vectors reads the matrix. Simulated devices of a CPU share its cores: they show
the overhead of several devices, not a speed-up.
"""

import functools

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks import networks
from benchmarks.suite import gram as on_one_device
from benchmarks.suite.case import Case, Counts
from nt_residual import gram
from nt_residual.gram.operators import as_operator

SIZES = {"quick": 1024, "standard": 8192, "large": 32_768}


def cases(size: str, devices: int) -> list[Case]:
    """Return strong and weak scaling of the matrix, and strong scaling of products with it."""
    n, result = SIZES[size], []
    for p in device_counts(devices):
        result += [matrix("matrix, strong", n, p), product(n, p)]
        if p > 1:
            result.append(matrix("matrix, weak", round(n * p**0.5 / p) * p, p))
    return result


def device_counts(available: int) -> list[int]:
    """Return the powers of two up to the number of devices."""
    return [2**k for k in range(available.bit_length())]


def matrix(kind: str, n: int, p: int) -> Case:
    """Return the case of a matrix whose rows are spread over p devices."""
    counts = Counts(n * n, networks.matrix_bytes(n, 4), 2 * networks.FEATURES * n * n)
    return Case(
        family="scaling",
        who="gram.compute",
        sizes={"kind": kind, "devices": p, "n": n, "dtype": "float32"},
        build=lambda: (functools.partial(_matrix, n, p), ()),
        check=lambda matrix: networks.error(matrix, n, on_one_device.DEPTH),
        tolerance=on_one_device.TOLERANCE,
        counts=lambda _: counts,
        jit=False,
    )


def product(n: int, p: int) -> Case:
    """Return the case of K v, with the rows of K spread over p devices, and the result on all."""
    size = n * on_one_device.VECTORS
    counts = Counts(n * n, 4 * (n * n + 2 * size), 2 * n * size)

    def build():
        k = as_operator(_matrix(n, p))
        return lambda k, v: k.product(v), (k, k.place(on_one_device.vectors(n)))

    def absent(devices):
        mesh = jax.make_mesh((p,), ("rows",), axis_types=(AxisType.Auto,), devices=devices[:p])
        shape = functools.partial(jax.ShapeDtypeStruct, dtype="float32")
        rows, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("rows",), ()))
        k = gram.Sharded(shape((n, n), sharding=rows), mesh, n)
        v = shape((n, on_one_device.VECTORS), sharding=everywhere)
        return lambda k, v: k.product(v), (k, v)

    return Case(
        family="scaling",
        who="Operator.product",
        sizes={"kind": "product, strong", "devices": p, "n": n, "dtype": "float32"},
        build=build,
        check=lambda product: on_one_device.product_error(product, n),
        tolerance=on_one_device.TOLERANCE,
        counts=lambda _: counts,
        program=absent,
    )


def _matrix(n, p):
    mesh = jax.make_mesh((p,), ("rows",), axis_types=(AxisType.Auto,), devices=jax.devices()[:p])
    return gram.compute(networks.kernel(on_one_device.DEPTH), networks.inputs(n), mesh=mesh)
