import dataclasses
import functools

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
import pytest
from helpers import counting, enable_x64, full, mainly

from nt_residual import gram, memory, rntk, schedules

KERNEL = rntk.ResidualKernel(100, schedules.PowerLaw(0.5))


def _inputs(n, dtype=np.float32, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, 6)).astype(dtype)
    if n > 40:
        # A copy and a near copy, in different tiles.
        x[3], x[4] = x[n - 2], x[n - 5] * (1 + 1e-6)
    return x


def _dot(a, b):
    return jnp.matmul(a, b.T, precision="highest")


class _Rbf:
    """A kernel that does not hash, of inputs of any shape."""

    __hash__ = None

    def __call__(self, a, b):
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        return jnp.exp(-jnp.sum((a[:, None] - b[None]) ** 2, axis=-1))


@functools.cache
def _neural_tangents():
    _, _, kernel_fn = nt.stax.serial(nt.stax.Dense(1), nt.stax.Erf(), nt.stax.Dense(1))
    return functools.partial(kernel_fn, get="ntk")


@pytest.mark.parametrize(
    ("kernel", "tile_size"), [(_neural_tangents(), 23), (_Rbf(), None), (_Rbf(), 7)]
)
@mainly("float32")
def test_the_matrix_is_the_kernel_and_exactly_symmetric(kernel, tile_size, dtype):
    x = _inputs(60, dtype)
    k = gram.compute(kernel, x, tile_size=tile_size)
    assert k.dtype == dtype
    np.testing.assert_array_equal(k, k.T)
    rtol = {"float32": 1e-5, "float64": 1e-12}[dtype.name]
    expected = np.asarray(kernel(x, x))
    np.testing.assert_allclose(k, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize(("n2", "tile_size"), [(1, 16), (23, None), (50, 16), (23, 1)])
def test_two_batches_of_any_sizes(n2, tile_size):
    x1, x2 = _inputs(17), _inputs(n2, seed=1)
    k = gram.compute(_dot, x1, x2, tile_size=tile_size)
    np.testing.assert_allclose(k, x1 @ x2.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [20, 23])
def test_only_tiles_on_and_above_the_diagonal_are_computed(n, capsys):
    kernel, sizes = counting(_dot)
    gram.compute(kernel, _inputs(n), tile_size=6, progress=True).block_until_ready()
    assert len(sizes) == 4 * 5 / 2
    assert "10/10" in capsys.readouterr().err


def test_one_program_is_compiled_however_many_tiles_there_are():
    shapes = []

    def kernel(a, b):
        shapes.append((a.shape, b.shape))
        return _dot(a, b)

    gram.compute(kernel, _inputs(47), tile_size=9)
    # Once to look at its result, once to compile it.
    assert len(shapes) == 2
    assert shapes[1] == ((8, 6), (8, 6))


@pytest.mark.parametrize("kernel", [KERNEL, *full(functools.partial(_dot)), _Rbf()])
def test_a_kernel_is_compiled_once_for_inputs_of_one_shape(kernel, caplog):
    x = _inputs(20)
    gram.compute(kernel, x, tile_size=7)
    gram.MatrixFree(kernel, x, tile_size=7).product(x)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        equal = dataclasses.replace(KERNEL) if kernel is KERNEL else kernel
        gram.compute(equal, x + 1, tile_size=7)
        gram.MatrixFree(equal, x + 1, tile_size=7).product(x)
    assert not [r for r in caplog.messages if "Finished XLA compilation" in r]


def test_a_kernel_is_computed_with_the_settings_there_are_now():
    def epsilon(a, b):
        return jnp.full((len(a), len(b)), jnp.finfo(jnp.zeros((), float).dtype).eps, jnp.float32)

    x = _inputs(4)
    assert gram.compute(epsilon, x)[0, 0] > 1e-8
    with enable_x64():
        assert gram.compute(epsilon, x)[0, 0] < 1e-15


# Memory.


def test_what_cannot_fit_is_refused_before_it_is_allocated():
    x = np.broadcast_to(np.float32(1), (2_000_000, 1))
    message = (
        r"needs 1.6e\+04 GB of memory \(the matrix .*this machine has .* free. Keep the matrix on "
        r"disk \(store=PATH\).*mesh=.*MatrixFree"
    )
    with pytest.raises(MemoryError, match=message):
        gram.compute(_dot, x)


def test_tiles_are_smaller_where_memory_is_short(monkeypatch):
    x = _inputs(60)
    expected = gram.compute(_dot, x)
    shapes = []

    def kernel(a, b):
        shapes.append(len(a))
        return jnp.sum(a[:, None] * b[None], axis=-1) + 0 * a.sum()

    monkeypatch.setattr(memory, "available", lambda device=None: 60 * 60 * 4 + 20_000)
    k = gram.compute(kernel, x)
    assert shapes[-1] < 40
    np.testing.assert_allclose(k, expected, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(memory, "available", lambda device=None: 60 * 60 * 4 + 2_000)
    with pytest.raises(MemoryError, match="tiles of 60 × 60"):
        gram.compute(kernel, x, tile_size=60)


# Bad input.


@pytest.mark.parametrize(
    ("x1", "x2", "message"),
    [
        (np.ones((0, 3), np.float32), None, "x1 must hold at least one input"),
        (np.float32(1), None, "x1 must hold at least one input"),
        (jnp.array([[1, 2], [3, jnp.inf]]), None, "x1 must be finite.*in input 1"),
        (np.ones((2, 3), np.float32), np.ones((2, 4), np.float32), "inputs of the same shape"),
        (np.array([[1, 0], [0, 0]], np.float32), None, "NaN or infinity at row 0, column 1"),
    ],
)
def test_bad_inputs_are_refused(x1, x2, message):
    def cosine(a, b):
        norms = jnp.linalg.norm(a, axis=1)[:, None] * jnp.linalg.norm(b, axis=1)
        return _dot(a, b) / norms

    with pytest.raises(ValueError, match=message):
        gram.compute(cosine, x1, x2)


def test_one_bad_value_among_many_is_found():
    # XLA's maximum of this many leaves NaN out.
    x = np.random.default_rng(0).standard_normal((100, 64)).astype(np.float32)
    x[37, 5] = np.nan
    for array in (x, jnp.asarray(x)):
        with pytest.raises(ValueError, match=r"x1 must be finite.*in input 37"):
            gram.compute(_dot, array)


def test_inputs_and_kernels_of_other_kinds_are_refused():
    x = _inputs(4)
    with pytest.raises(TypeError, match=r"x1 must hold real floats, got dtype int64\. Convert it"):
        gram.compute(_dot, np.eye(2, dtype=int))
    with pytest.raises(TypeError, match="x1 must have known values, got a value traced"):
        jax.jit(lambda x: gram.compute(_dot, x))(jnp.eye(2))
    with pytest.raises(TypeError, match="kernel must be a function of two batches, got int"):
        gram.compute(3, x)
    with pytest.raises(TypeError, match=r"kernel must return one matrix, got Kernel.*get='ntk'"):
        gram.compute(_neural_tangents().func, x)
    with pytest.raises(TypeError, match="kernel must be a JAX function"):
        gram.compute(lambda a, b: np.asarray(a) @ np.asarray(b).T, x)
    with pytest.raises(ValueError, match=r"kernel must return shape \(n1, n2\).*got shape \(3,\)"):
        gram.compute(lambda a, b: a[:, 0], x)
    with pytest.raises(TypeError, match="kernel must return real floats, got dtype complex64"):
        gram.compute(lambda a, b: a @ b.T * 1j, x)
    with pytest.raises(TypeError, match=r"mesh must be a jax\.sharding\.Mesh, got int"):
        gram.compute(_dot, x, mesh=8)
