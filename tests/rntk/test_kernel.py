import dataclasses
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import full, mainly, naive_kernel

from nt_residual import rntk, schedules
from nt_residual.rntk import ResidualKernel, tiles
from nt_residual.rntk import kernel as kernel_module

# Largest error of a kernel value, divided by the kernel of the inputs with themselves.
ERROR = {"float32": 2e-6, "float64": 2e-11}

# Kernels that differ in kind: steep near θ = 0, smooth, with a jump.
KERNELS = [
    ResidualKernel(1000, schedules.Constant(1.0)),
    ResidualKernel(20, schedules.PowerLaw(1.0), trained="all", normalize=False),
    ResidualKernel(math.inf, schedules.PowerLaw(0.25)),
]
# The options of those kernels.
MORE_KERNELS = [
    ResidualKernel(1, schedules.Constant(1.0)),
    ResidualKernel(50, schedules.PowerLaw(0.25), kind="nngp"),
    ResidualKernel(1000, schedules.PowerLaw(0.5), trained="all"),
    ResidualKernel(1000, schedules.PowerLaw(0.5), normalize=False),
    ResidualKernel(7, [0.0, 1.0, 0.5, 2.0, 0.1, 0.3, 1.0]),
    ResidualKernel(math.inf, schedules.PowerLaw(0.5, c=2.0)),
    ResidualKernel(math.inf, schedules.PowerLaw(0.5), kind="nngp", normalize=False),
    ResidualKernel(math.inf, schedules.PowerLaw(1.0)),
    ResidualKernel(math.inf, schedules.PowerLaw(1.0), trained="all"),
]


@pytest.fixture(params=[*KERNELS, *full(*MORE_KERNELS)], ids=str)
def kernel(request):
    return request.param


def _inputs(dtype, n=6, dim=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, dim))
    x[1] = 3 * x[0] + 1e-4 * rng.standard_normal(dim)  # Nearly parallel to the first.
    x[2] = -x[0]
    return jnp.asarray(x, dtype)


def _diagonal(kernel, x1, x2):
    norms = np.linalg.norm(x1, axis=1)[:, None] * np.linalg.norm(x2, axis=1)
    return norms * float(kernel.at_angle(0.0))


def _angles(x1, x2):
    """Angles between the numbers that inputs hold, in float64."""
    u1, u2 = (np.float64(x) / np.linalg.norm(np.float64(x), axis=1)[:, None] for x in (x1, x2))
    u1, u2 = u1[:, None], u2[None]
    return 2 * np.arctan2(np.linalg.norm(u1 - u2, axis=2), np.linalg.norm(u1 + u2, axis=2))


# Laws that every kernel obeys.


def test_values_are_those_of_the_recursion(kernel, dtype):
    x1, x2 = _inputs(dtype), _inputs(dtype, seed=1)
    for got, other in ((kernel(x1, x2), x2), (kernel(x1), x1)):
        expected = kernel.at_angle(_angles(x1, other)) / kernel.at_angle(0.0)
        error = np.abs(got / _diagonal(kernel, x1, other) - expected)
        if other is x1:
            np.fill_diagonal(error, 0)
        assert np.max(error) < ERROR[dtype.name]


def test_the_matrix_is_symmetric_positive_semi_definite_with_an_exact_diagonal(kernel, dtype):
    x = _inputs(dtype, n=40)
    gram = np.asarray(kernel(x))
    assert gram.dtype == dtype
    np.testing.assert_array_equal(gram, gram.T)
    scale = 1.0 if kernel.normalize else math.exp(kernel.log_diagonal)
    diagonal = np.sum(np.square(x, dtype=np.float64), axis=1) * scale
    np.testing.assert_allclose(np.diag(gram), diagonal, rtol=8 * jnp.finfo(dtype).eps)
    eigenvalues = np.linalg.eigvalsh(gram / np.sqrt(np.outer(diagonal, diagonal)))
    assert eigenvalues[0] > -len(x) * ERROR[dtype.name]


@mainly("float32")
@pytest.mark.parametrize("kernel", KERNELS[:2], ids=str)
def test_jit_vmap_and_single_entries_give_the_same(kernel, dtype):
    x1, x2 = _inputs(dtype), _inputs(dtype, n=4, seed=1)
    whole = np.asarray(kernel(x1, x2))
    scale = _diagonal(kernel, x1, x2)
    vmapped = jax.vmap(lambda a: kernel(a[None], x2)[0])(x1)
    entries = np.array([[float(kernel(a[None], b[None])[0, 0]) for b in x2] for a in x1])
    for other in (jax.jit(kernel)(x1, x2), vmapped, entries):
        assert np.max(np.abs(other - whole) / scale) < ERROR[dtype.name]


def test_a_second_call_compiles_nothing(kernel):
    x = _inputs(jnp.float32)
    kernel(x)
    compiled = tiles._compiled_gram._cache_size()
    kernel(x + 1)
    assert tiles._compiled_gram._cache_size() == compiled


@pytest.mark.parametrize("kernel", KERNELS[:1], ids=str)
def test_inputs_may_be_known_arrays_that_a_traced_function_closes_over(kernel):
    x = _inputs(jnp.float32)
    whole = np.asarray(kernel(x))
    column = jnp.ones(len(x))
    inside = jax.jit(lambda column: kernel(x) @ column)(column)
    np.testing.assert_allclose(inside, whole @ column, rtol=1e-5)
    mapped = jax.lax.map(lambda row: kernel(row[None], x)[0], x)
    np.testing.assert_allclose(mapped, kernel(x, x), rtol=1e-4, atol=1e-4)
    gradient = jax.jit(jax.grad(lambda y: kernel(y, x).sum()))(x + 1)
    assert np.all(np.isfinite(gradient))
    with pytest.raises(ValueError, match="x2 has a zero row"):
        jax.jit(lambda y: kernel(y, 0 * np.asarray(x)))(x)


def test_kernels_are_values():
    for kernel in (*KERNELS, ResidualKernel(5, harmonic)):
        same = dataclasses.replace(kernel)
        assert same == kernel
        assert hash(same) == hash(kernel)
        assert jax.tree.leaves(kernel) == []
        # Hashes of strings differ between processes, so that a hash must not travel.
        there = pickle.loads(pickle.dumps(kernel))
        assert "_hash" not in vars(there)
        assert there == kernel
    x = _inputs(jnp.float32)
    np.testing.assert_allclose(jax.jit(lambda k, x: k(x))(KERNELS[0], x), KERNELS[0](x), rtol=1e-5)


def test_few_coefficients_suffice_for_an_error_within_the_bound_at_any_angle(kernel):
    assert 1 <= len(kernel.coefficients) <= 24
    assert kernel.coefficients.dtype == np.float64
    angles = np.concatenate([np.geomspace(1e-7, 1, 40), np.linspace(1, np.pi, 40)])
    for seed, dim in enumerate((2, 50)):
        rng = np.random.default_rng(seed)
        q, _ = np.linalg.qr(rng.standard_normal((dim, 2)))
        x1 = (3 * q[:, 0]).astype(np.float32)[None]
        x2 = (np.cos(angles)[:, None] * q[:, 0] + np.sin(angles)[:, None] * q[:, 1]).astype("f")
        exact = _angles(x1, x2)
        expected = kernel.at_angle(exact) / kernel.at_angle(0.0)
        error = np.abs(kernel(x1, x2) / _diagonal(kernel, x1, x2) - expected)
        # A jump at θ = 0 has no bound for angles that float32 cannot tell from it.
        assert np.max(error[exact > 1e-6]) <= kernel.error_bound


@pytest.mark.parametrize("offset", [0.15, *full(-0.15, 0.3)])
def test_what_all_inputs_share_does_not_take_the_error_beyond_the_bound(offset):
    rng = np.random.default_rng(0)
    background = np.arange(784) >= rng.integers(100, 500, (30, 1))
    x = (np.where(background, 0, rng.random((30, 784))) + offset).astype(np.float32)
    kernel = ResidualKernel(10, schedules.Constant(1.0))
    expected = kernel.at_angle(_angles(x, x))
    norms = _diagonal(kernel, x, x)
    for got in (
        kernel(x),
        kernel(x, x),
        kernel(x[:1], x),
        rntk.recursive_kernel(x, schedule=np.ones(10)),
    ):
        error = np.abs(got / norms[: len(got)] - expected[: len(got)])
        assert np.max(error) <= kernel.error_bound


# Values.


@pytest.mark.parametrize(("kind", "trained"), [("ntk", "all"), ("ntk", "blocks")])
def test_the_unnormalized_kernel_is_that_of_the_network_as_written(kind, trained, x64):
    alphas = [0.3, 1.0, 0.0, 0.7]
    kernel = ResidualKernel(4, schedules.Explicit(alphas), kind, trained, normalize=False)
    x1, x2 = np.random.default_rng(0).standard_normal((2, 3, 5))
    expected = [[naive_kernel(a, b, alphas, kind=kind, trained=trained) for b in x2] for a in x1]
    np.testing.assert_allclose(kernel(x1, x2), expected, rtol=1e-8, atol=1e-9)


def test_a_degenerate_limit_is_a_quarter_but_for_equal_inputs():
    kernel = ResidualKernel(math.inf, schedules.Constant(1.0))
    x = jnp.array([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    np.testing.assert_array_equal(kernel(x), [[1, 0.5, 1], [0.5, 4, 0.5], [1, 0.5, 1]])


@pytest.mark.parametrize("low", [jnp.bfloat16, *full(jnp.float16)])
def test_low_precision_inputs_are_computed_in_float32_and_returned_as_they_came(low):
    kernel = ResidualKernel(10, schedules.PowerLaw(0.5))
    x = _inputs(low)
    gram = kernel(x)
    assert gram.dtype == low
    np.testing.assert_array_equal(gram, kernel(x.astype(jnp.float32)).astype(low))


def test_norms_do_not_overflow_or_underflow():
    kernel = ResidualKernel(10, schedules.PowerLaw(0.5))
    large, small = jnp.array([[1e25, 0.0]]), jnp.array([[0.0, 1e-30], [1e-30, 1e-30]])
    expected = [1e-5 * kernel.at_angle(np.pi / 2), 2**0.5 * 1e-5 * kernel.at_angle(np.pi / 4)]
    np.testing.assert_allclose(kernel(large, small)[0], expected, rtol=1e-5)


def test_a_kernel_that_overflows_is_refused(dtype):
    x = jnp.eye(2, dtype=dtype) * float(jnp.finfo(dtype).max) ** 0.7
    with pytest.raises(ValueError, match=r"beyond the range of float.*Scale the inputs down\."):
        ResidualKernel(10, schedules.PowerLaw(0.5))(x)
    with pytest.raises(ValueError, match=r"Scale the inputs down, or pass normalize=True\."):
        ResidualKernel(10, schedules.PowerLaw(0.5), normalize=False)(x)


def test_what_overflows_in_the_dtype_of_the_result_or_by_a_cast_is_refused(x64):
    kernel = ResidualKernel(10, schedules.PowerLaw(0.5))
    x = np.eye(2)
    with pytest.raises(ValueError, match="beyond the range of float16"):
        kernel(jnp.asarray(500 * x, jnp.float16))
    with pytest.raises(ValueError, match="x2, converted to float32, must be finite"):
        kernel(jnp.asarray(x, jnp.float32), jnp.asarray(1e200 * x))


def test_lengths_of_very_different_size_leave_the_angle_as_it_is():
    kernel = ResidualKernel(1000, schedules.Constant(1.0))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 3)).astype(np.float32)
    near = (x * (1 + 1e-5 * rng.standard_normal(x.shape))).astype(np.float32)
    for exponent in (30, 60):
        got = kernel(np.ldexp(x, exponent), np.ldexp(near, -exponent))
        np.testing.assert_allclose(got, kernel(x, near), rtol=1e-6)


@pytest.mark.parametrize("alpha", [1e-160, 1e-20, 1e200])
def test_alphas_of_any_size_give_a_kernel(alpha):
    kernel = ResidualKernel(2, schedules.Constant(alpha))
    limit = 0.50224301 if alpha < 1 else 0.47093048  # Of s = 0 and of s = 1.
    np.testing.assert_allclose(kernel.at_angle([0.0, 1.0]), [1, limit], rtol=1e-7)


@pytest.mark.parametrize("dim", [64, *full(3, 784)])
def test_parallel_inputs_stay_parallel_in_a_degenerate_limit(dim, dtype):
    kernel = ResidualKernel(math.inf, schedules.Constant(1.0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((20, dim)), dtype)
    row_by_row = np.array([kernel(x[i : i + 1], 3 * x)[0] for i in range(len(x))])
    np.testing.assert_allclose(row_by_row, 3 * kernel(x), rtol=1e-5)


def test_gradients_are_finite_on_the_diagonal(dtype):
    kernel = ResidualKernel(10, schedules.PowerLaw(0.5))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((100, 20)), dtype)
    assert np.all(np.isfinite(jax.grad(lambda x: kernel(x).sum())(x)))
    # The kernel of an input with itself is |x|².
    gradient = jax.grad(lambda x: jnp.trace(kernel(x)))(x)
    np.testing.assert_allclose(gradient, 2 * x, rtol=1e-5, atol=1e-5)


# Infinite depth.


def harmonic(depth):
    """α_ℓ = 1/ℓ: blocks that stay as they are when more are added."""
    return 1 / np.arange(1, depth + 1)


HARMONIC_TIME = math.log(math.sinh(math.pi) / math.pi)  # Σ log(1 + 1/ℓ²)


@pytest.mark.parametrize("options", [{}, *full({"trained": "all"}, {"kind": "nngp"})])
def test_blocks_that_stay_keep_their_place_in_the_limit(options):
    limit = ResidualKernel(math.inf, harmonic, effective_time=HARMONIC_TIME, **options)
    theta = np.linspace(0, np.pi, 7)
    shallow, deep = (ResidualKernel(n, harmonic, **options).at_angle(theta) for n in (1500, 3000))
    # The rest falls like 1/L.
    np.testing.assert_allclose(limit.at_angle(theta), 2 * deep - shallow, atol=1e-7)
    assert np.max(np.abs(limit.at_angle(theta) - deep)) > 1e-6


def test_an_effective_time_stands_for_a_schedule_that_does_not_know_it():
    limit = ResidualKernel(math.inf, lambda n: np.full(n, 2 * n**-0.5), effective_time=4.0)
    known = ResidualKernel(math.inf, schedules.PowerLaw(0.5, c=2.0))
    theta = np.linspace(0, np.pi, 5)
    np.testing.assert_array_equal(limit.at_angle(theta), known.at_angle(theta))
    degenerate = ResidualKernel(math.inf, lambda n: harmonic(n) ** 0.5, effective_time=math.inf)
    np.testing.assert_array_equal(degenerate.at_angle([0.0, 1.0]), [1, 0.25])


def test_an_effective_time_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"less than .* of the first 16384 blocks alone, 1\.30"):
        ResidualKernel(math.inf, harmonic, effective_time=1.0)
    with pytest.raises(ValueError, match=r"effective_time must be that of .* use at_depth"):
        ResidualKernel(10, schedules.PowerLaw(0.5), effective_time=2.0)
    with pytest.raises(ValueError, match="effective_time must be ≥ 0"):
        ResidualKernel(math.inf, harmonic, effective_time=math.nan)
    first = lambda n: np.append(1.0, np.full(n - 1, n**-0.5))  # noqa: E731
    with pytest.raises(ValueError, match="α must fall in all blocks as depth grows"):
        ResidualKernel(math.inf, first, effective_time=1 + math.log(2)).at_angle(1.0)


@pytest.mark.parametrize("time", [1e6, *full(1e4, 1e8)])
def test_a_long_time_is_resolved_between_the_closest_inputs(time):
    kernel = ResidualKernel(math.inf, schedules.PowerLaw(0.5, c=time**0.5))
    rng = np.random.default_rng(0)
    x1 = rng.standard_normal((30, 5)).astype(np.float32)
    x2 = 1.7 * x1 + np.geomspace(1e-7, 1e-1, 30)[:, None] * rng.standard_normal((30, 5))
    x2 = x2.astype(np.float32)
    # The distance of unit vectors in float64 is good to 1e-16, relative to 3π/T that is 1e-9.
    expected = kernel.at_angle(np.diag(_angles(x1, x2)))
    assert np.ptp(expected) > 0.3
    got = np.diag(kernel(x1, x2)) / np.sqrt(np.sum(np.float64(x1) ** 2, 1) * np.sum(x2**2, 1))
    np.testing.assert_allclose(got, expected, rtol=0, atol=kernel.error_bound)


def test_an_effective_time_beyond_what_can_be_resolved_is_refused(monkeypatch):
    kernel = ResidualKernel(math.inf, schedules.PowerLaw(0.5, c=1e7))
    monkeypatch.setattr(kernel_module, "_LARGEST_ERROR", 0.0)
    kernel_module.device_profile.cache_clear()
    with pytest.raises(ValueError, match=r"T = 1e\+14 is more than can be resolved"):
        kernel(_inputs(jnp.float32))


def test_a_limit_of_zero_time_is_linear_whatever_leads_to_it():
    theta = np.array([0.0, 1.0, 3.0])
    limit = ResidualKernel(math.inf, schedules.PowerLaw(1.0)).at_angle(theta)
    zero = ResidualKernel(math.inf, np.zeros, effective_time=0.0)
    np.testing.assert_array_equal(zero.at_angle(theta), limit)
    both = ResidualKernel(math.inf, np.zeros, "ntk", "all", False, effective_time=0.0)
    np.testing.assert_allclose(both(np.eye(2, dtype="float32")), 2 * np.eye(2), atol=1e-6)
    tiny = ResidualKernel(math.inf, lambda n: 1e-170 * 0.5 ** np.arange(n), effective_time=0.0)
    np.testing.assert_allclose(tiny.at_angle(theta), limit, rtol=1e-12)


def test_at_depth_changes_nothing_else():
    kernel = ResidualKernel(10, schedules.PowerLaw(0.5), trained="all", normalize=False)
    assert kernel.at_depth(20) == ResidualKernel(
        20, schedules.PowerLaw(0.5), trained="all", normalize=False
    )
    assert kernel.at_depth(math.inf).effective_time == 1.0


# Bad input.


def test_bad_inputs_are_refused_with_what_came_and_what_to_do():
    kernel = ResidualKernel(10, schedules.PowerLaw(0.5))
    good = np.ones((3, 2), np.float32)
    bad, zero = good.copy(), good.copy()
    bad[1, 0], zero[2] = np.nan, 0
    for message, *inputs in (
        (r"x1 must have shape \(n, d\).*got shape \(2,\).*x1\[None, :\]", good[0]),
        (r"x1 must hold at least one input, got shape \(0, 2\)", good[:0]),
        (r"x1 must hold at least one input, got shape \(3, 0\)", good[:, :0]),
        (r"x1 must be finite, got NaN or infinity in row 1 \(1 such rows\)", bad),
        ("x2 must be finite", good, bad),
        ("x1 has a zero row, row 2 .*angle .*undefined", zero),
        ("x2 has a zero row", good, zero),
        (r"same number of features, got shapes \(3, 2\) and \(3, 1\)", good, good[:, :1]),
    ):
        with pytest.raises(ValueError, match=message):
            kernel(*inputs)
    for wrong in (good.astype(int), good + 1j, [["a", "b"]], [[1.0, 2.0], [3.0]]):
        with pytest.raises(TypeError, match=r"x1 must (hold real floats, got dtype|be an array)"):
            kernel(wrong)
    with pytest.raises(ValueError, match="same number of features"):
        jax.jit(kernel)(jnp.ones((3, 2)), jnp.ones((3, 1)))


def test_schedules_without_a_kernel_are_refused():
    def entry(gamma):
        return ResidualKernel(3, schedules.PowerLaw(gamma))(np.eye(2, dtype="float32"))[0, 1]

    with pytest.raises(TypeError, match=r"got one with values traced by JAX.*recursive_kernel"):
        jax.grad(entry)(0.5)

    class Mutable(list):
        def __call__(self, depth):
            return np.ones(depth)

    with pytest.raises(TypeError, match=r"schedule must be hashable.*frozen=True"):
        ResidualKernel(2, Mutable())
    with pytest.raises(ValueError, match=r"needs a schedule whose limit is known.*effective_time="):
        ResidualKernel(math.inf, np.ones)
    with pytest.raises(ValueError, match="every α is zero"):
        ResidualKernel(2, schedules.Explicit([0.0, 0.0]))
    with pytest.raises(ValueError, match=r"the NTK of the blocks is zero.*normalize=True"):
        ResidualKernel(math.inf, schedules.PowerLaw(1.0), normalize=False)


@pytest.mark.parametrize("options", [{"trained": "all"}, *full({"kind": "nngp"})])
@pytest.mark.parametrize("normalize", [False, *full(True)])
def test_without_any_branch_the_kernel_is_linear(options, normalize, dtype):
    kernel = ResidualKernel(3, schedules.Explicit([0.0] * 3), normalize=normalize, **options)
    x1, x2 = _inputs(dtype), _inputs(dtype, seed=1)
    layers = 2 if "trained" in options and not normalize else 1
    scale = _diagonal(kernel, x1, x2)
    assert np.max(np.abs(kernel(x1, x2) - layers * x1 @ x2.T) / scale) < ERROR[dtype.name]


def test_an_unnormalized_kernel_that_overflows_is_refused(dtype):
    kernel = ResidualKernel(2000, schedules.Constant(1.0), normalize=False)
    with pytest.raises(ValueError, match=r"beyond the range of float64.*normalize=True"):
        kernel.at_angle(1.0)
    with pytest.raises(ValueError, match=r"beyond the range of float.*normalize=True"):
        kernel(jnp.ones((2, 2), dtype))


def test_a_matrix_that_does_not_fit_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr("nt_residual.memory.available", lambda *_: 2**28)
    monkeypatch.setattr("nt_residual.rntk.tiles.evaluate", None)
    monkeypatch.setattr("nt_residual.rntk.recursive._kernel", None)
    kernel, x = ResidualKernel(5, schedules.PowerLaw(0.5)), np.ones((20_000, 2), np.float32)
    for call in (
        lambda: kernel(x),
        lambda: kernel(x, x),
        lambda: rntk.recursive_kernel(x, schedule=np.ones(3)),
    ):
        with pytest.raises(MemoryError, match=r"GB of memory \(the matrix .* 268 MB .* store="):
            call()
    # A traced call is left to the program it becomes part of.
    monkeypatch.undo()
    monkeypatch.setattr("nt_residual.memory.available", lambda *_: 2**28)
    assert jax.eval_shape(kernel, x).shape == (20_000, 20_000)
