import jax.numpy as jnp
import numpy as np
import pytest
from helpers import REFERENCE, REFERENCE_NETWORKS, naive_kernel

from nt_residual.rntk import arc_cosine, doubling, limits, recursion


def _limit(theta, effective_time):
    return limits.sums_of_blocks(*recursion.half_angle(theta), effective_time)


def _equal_blocks(theta, alpha, depth):
    return doubling.sums_of_equal_blocks(*recursion.half_angle(theta), alpha, depth)


def _expected(rows, name):
    return np.array([float(row[name]) for row in rows])


def test_the_reference_is_complete():
    assert [len(rows) for _, rows in REFERENCE_NETWORKS] == [11] * 7 + [8] * 2
    assert len(REFERENCE["critical_limit"]) == 8


@pytest.mark.parametrize(("alphas", "rows"), REFERENCE_NETWORKS, ids=lambda value: str(len(value)))
def test_numpy_and_jax_agree_with_every_row_of_the_reference(alphas, rows, dtype):
    theta = np.array([row["theta"] for row in rows])
    # The rounding errors of up to 1000 blocks add up.
    errors = {"float32": 3e-5, "float64": 1e-12}
    for angles, atol in ((theta, 1e-12), (jnp.asarray(theta, dtype), errors[dtype.name])):
        sums = recursion.block_sums(angles, np.array(alphas))
        assert sums.blocks.dtype == angles.dtype
        np.testing.assert_allclose(sums.blocks, _expected(rows, "ntk"), rtol=0, atol=atol)
        correlation = _expected(rows, "nngp_correlation")
        np.testing.assert_allclose(sums.correlation, correlation, rtol=0, atol=atol)
    if len(set(alphas)) == 1:
        sums = _equal_blocks(theta, alphas[0], len(alphas))
        np.testing.assert_allclose(sums.blocks, _expected(rows, "ntk"), rtol=0, atol=1e-14)
        np.testing.assert_allclose(sums.correlation, correlation, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("depth", "alpha"), [(10_000, 1.0), (9999, 0.01), (7, 1e100), (1, 1.0)])
def test_equal_blocks_composed_by_doubling_agree_with_the_recursion(depth, alpha):
    theta = np.concatenate([[0], np.geomspace(1e-12, 1, 50), np.linspace(1, np.pi, 50)])
    expected = recursion.block_sums(theta, np.full(depth, alpha))
    for got, sums in zip(_equal_blocks(theta, alpha, depth), expected, strict=True):
        np.testing.assert_allclose(got, sums, rtol=0, atol=1e-12)
        assert got[0] == 1


def test_many_blocks_composed_by_doubling_are_a_continuum():
    theta = np.linspace(0, np.pi, 50).reshape(5, 10)
    for got, sums in zip(_equal_blocks(theta, 1e-6, 10**12), _limit(theta, 1.0), strict=True):
        np.testing.assert_allclose(got, sums, rtol=0, atol=1e-12)


@pytest.mark.parametrize("row", REFERENCE["critical_limit"], ids=lambda row: f"{row['theta']}")
def test_the_critical_limit_agrees_with_the_reference_to_1e_10(row):
    sums = _limit(np.array([row["theta"]]), row["effective_time"])
    assert abs(sums.blocks[0] - float(row["ntk"])) < 1e-10


@pytest.mark.parametrize("effective_time", [0.25, 1.0, 9.0])
def test_every_sum_converges_to_the_critical_limit_at_rate_one_over_depth(effective_time):
    theta = np.linspace(0, np.pi, 9)
    limit = _limit(theta, effective_time)
    errors = []
    for depth in (1000, 4000):
        alphas = np.full(depth, (effective_time / depth) ** 0.5)
        sums = recursion.block_sums(theta, alphas)
        errors.append([np.abs(a - b).max() for a, b in zip(sums, limit, strict=True)])
    ratio = np.divide(*errors)
    np.testing.assert_allclose(ratio, 4, rtol=0.15)


def test_the_critical_limit_joins_the_other_two():
    theta = np.linspace(0, np.pi, 9)
    short = _limit(theta, 1e-10)
    for a, b in zip(short, _limit(theta, 0.0), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    long = _limit(theta, 1e6)
    for a, b in zip(long, _limit(theta, np.inf), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_learnable_limit_is_the_kernel_of_one_hidden_layer():
    u = np.array([-0.5, 0.0, 0.5, 0.9])
    sums = _limit(np.arccos(u), 0.0)
    np.testing.assert_allclose(sums.blocks, [-0.0288, 0.1592, 0.4712, 0.8402], atol=5e-5)


def test_the_recursion_agrees_with_a_naive_loop():
    alphas = np.array([0.3, 1.0, 0.0, 2.0])
    for u in (-0.9, 0.1, 0.95):
        x1, x2 = np.array([1.0, 0.0]), np.array([u, (1 - u * u) ** 0.5])
        sums = recursion.block_sums(np.array(np.arccos(u)), alphas)
        gain, shares = np.prod(1 + alphas**2), recursion.branch_share(alphas)
        blocks = gain * 2 * shares.sum() * sums.blocks
        np.testing.assert_allclose(blocks, naive_kernel(x1, x2, alphas), rtol=1e-13)
        nngp = gain * sums.correlation
        np.testing.assert_allclose(nngp, naive_kernel(x1, x2, alphas, kind="nngp"), rtol=1e-13)
        everything = blocks + nngp + gain * sums.input_layer
        expected = naive_kernel(x1, x2, alphas, trained="all")
        np.testing.assert_allclose(everything, expected, rtol=1e-13)


def test_what_a_block_adds_keeps_its_relative_accuracy_near_zero(dtype):
    theta = jnp.array([1e-6, 1e-3, 0.1, 0.999, 1.001], dtype)
    exact = np.array(theta, np.longdouble)
    # θ³/3 − θ⁵/30 + …, summed in extended precision.
    series = sum(
        (-1) ** (k + 1) * 2 * k * exact ** (2 * k + 1) / np.prod(np.arange(1.0, 2 * k + 2))
        for k in range(1, 12)
    )
    gain = arc_cosine.kappa1_gain(theta)
    np.testing.assert_allclose(
        np.asarray(gain, float), (series / np.pi).astype(float), rtol=8 * jnp.finfo(dtype).eps
    )
