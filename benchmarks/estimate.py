"""What a million points on 256 chips would take, from what one device was measured to do."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from matplotlib.ticker import EngFormatter

POINTS, CHIPS, FEATURES, OUTPUTS, TIMES = 10**6, 256, 784, 10, 50
ITEM = 4
# Lanczos' products: 32, 48 and 63 for 4000, 10,000 and 60,000 points (results/regression_cpu.json).
PRODUCTS = 100
# The basis has room for a power of two vectors, and is read four times in each product.
ROOM, PASSES = 2 ** math.ceil(math.log2(PRODUCTS)), 4
# Assumed, not measured: bytes per second that reach a chip from the others.
LINK = 1e10

TEXT = """\
### How the cost would grow to 10⁶ points on 256 chips

**An estimate, not a measurement**: {points:,} points, {features} features, {outputs} outputs, \
{products} products with K in float32, on {chips} devices each as fast as the one measured above. \
For another device put its numbers into the formulas. Measured here:

- E = {entries} entries/s of `gram.compute` over a mesh of one device, n = {n} (`scaling`), \
with what a call costs at any n, which weighs less where n is larger;
- B = {bandwidth} of the copy, taken for what a product reads, too.

Assumed: W = {link} reach each chip from the others; {products} products for the path of stopping \
times, since 4000, 10,000 and 60,000 points took 32, 48 and 63 \
([regression_cpu.json](results/regression_cpu.json)); and perfect scaling, because making K sends \
nothing but the inputs.

| on each chip | formula | |
|---|---|---|
{rows}

K has n² = 10¹² entries, {matrix} in all. Lanczos' basis is on every chip: with few rows of K on \
each, reading it takes as long as reading K, or longer. Memory is the sum of K, the inputs, \
the coefficients, and the basis while it grows, when there are its predecessor of half the size, \
itself, and the result of the step: too much for a chip of 32 GB, unless outputs are solved a few \
at a time. Time for test points, and for input and output, is not counted.
"""


class Costs(NamedTuple):
    """Bytes and seconds on each chip, in the order of the table."""

    matrix: float
    inputs: float
    basis: float
    coefficients: float
    memory: float
    make_s: float
    read_s: float
    sent: float
    send_s: float
    basis_s: float
    product_s: float
    total_s: float


def costs(entries_per_s: float, bytes_per_s: float, link: float = LINK) -> Costs:
    """The cost on each chip.

    Args:
      entries_per_s: of the kernel matrix, that one chip makes, both sides of the diagonal.
      bytes_per_s: that a chip reads from its memory.
      link: bytes per second that reach a chip from the others.
    """
    matrix, inputs = POINTS**2 * ITEM / CHIPS, POINTS * FEATURES * ITEM
    vectors = POINTS * OUTPUTS * ITEM
    basis, coefficients = ROOM * vectors, TIMES * vectors
    make, read = POINTS**2 / (CHIPS * entries_per_s), matrix / bytes_per_s
    sent = vectors * (CHIPS - 1) / CHIPS
    orthogonal = PASSES * basis / bytes_per_s
    product = read + sent / link + orthogonal
    return Costs(
        matrix=matrix,
        inputs=inputs,
        basis=basis,
        coefficients=coefficients,
        memory=matrix + inputs + 2.5 * basis + coefficients,
        make_s=make,
        read_s=read,
        sent=sent,
        send_s=sent / link,
        basis_s=orthogonal,
        product_s=product,
        total_s=make + PRODUCTS * product,
    )


def text(result: Mapping[str, Any]) -> str | None:
    """The section of README.md, if the rate that it needs was measured."""
    rows = [
        row
        for row in result["cases"]
        if row["family"] == "scaling" and row["who"] == "gram.compute" and "failed" not in row
    ]
    alone = next((row for row in rows if row["devices"] == 1), None)
    # Devices that are simulated on one processor share its memory.
    if alone is None or (result["platform"] == "cpu" and result["devices"] > 1):
        return None
    bandwidth = result["peaks"]["bytes_per_s"]
    found = costs(alone["entries_per_s"], bandwidth)
    return TEXT.format(
        points=POINTS,
        features=FEATURES,
        outputs=OUTPUTS,
        products=PRODUCTS,
        chips=CHIPS,
        n=alone["n"],
        entries=si(alone["entries_per_s"], ""),
        bandwidth=si(bandwidth, "B/s"),
        link=si(LINK, "B/s"),
        matrix=si(found.matrix * CHIPS, "B"),
        rows="\n".join(f"| {' | '.join(row)} |" for row in _rows(found)),
    )


def _rows(found):
    return (
        ("K", "4 n²/p", si(found.matrix, "B")),
        ("inputs", "4 n d", si(found.inputs, "B")),
        (f"Lanczos' basis, with room for m = {ROOM} vectors", "4 m n o", si(found.basis, "B")),
        (f"coefficients at T = {TIMES} times", "4 T n o", si(found.coefficients, "B")),
        ("memory, at most", "4 n²/p + 4 n d + (2.5 m + T) 4 n o", si(found.memory, "B")),
        ("making K", "n²/(p E)", _time(found.make_s)),
        ("reading K in a product", "4 n²/(p B)", _time(found.read_s)),
        ("received in a product", "4 n o (p − 1)/p", si(found.sent, "B")),
        ("receiving it", "4 n o (p − 1)/(p W)", _time(found.send_s)),
        ("orthogonalizing after a product", f"{PASSES} · 4 m n o/B", _time(found.basis_s)),
        ("a product, all of it", "the last three times", _time(found.product_s)),
        ("the whole path", f"making K, and {PRODUCTS} products", _time(found.total_s)),
    )


def _time(seconds):
    return si(seconds, "s") if seconds < 600 else f"{seconds / 60:.0f} min"


def si(value: float, unit: str) -> str:
    """A number with a prefix of the unit: `1.5 GB`."""
    return EngFormatter(unit, places=1)(value).strip()
