import dataclasses
import errno
import json
import pickle
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import enable_x64, full, run_python

from nt_residual import _files, gram, memory
from nt_residual.gram import store


def _inputs(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 6)).astype(np.float32)


X = _inputs(8)
_IDENTITY = {"shape": [42, 42], "dtype": "float32", "tile_size": [4, 4], "symmetric": True}


def _dot(a, b):
    return a @ b.T


@dataclasses.dataclass(frozen=True)
class _Scaled:
    factor: float

    def __call__(self, a, b):
        return self.factor * a @ b.T


def _compute(path, kernel=_dot, x=X, x2=None, *, tile_size=3, **options):
    return gram.compute(kernel, x, x2, tile_size=tile_size, store=path, **options)


def _partly(path, count):
    """A store in which some of the six tiles are finished."""
    _compute(path)
    for i, j in [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)][count:]:
        (path / "c" / str(i) / str(j)).unlink()


def _contents(path):
    files = (file for file in (path / "c").rglob("*") if file.is_file())
    return {file.relative_to(path): file.read_bytes() for file in files}


# Reading.


@pytest.mark.parametrize("dtype", ["float32", *full("float64", "bfloat16")])
@pytest.mark.parametrize("n2", [None, 31])
def test_a_stored_matrix_is_that_in_memory_bit_for_bit(tmp_path, dtype, n2):
    with enable_x64(dtype == "float64"):
        x, x2 = _inputs(50).astype(dtype), n2 and _inputs(n2, seed=1).astype(dtype)
        stored = _compute(tmp_path / "k", _dot, x, x2, tile_size=16)
        expected = np.asarray(gram.compute(_dot, x, x2, tile_size=16))
    loaded = gram.load(tmp_path / "k")
    assert (loaded.path, loaded.identity) == (stored.path, stored.identity)
    assert loaded.symmetric == (n2 is None)
    np.testing.assert_array_equal(np.asarray(loaded), expected, strict=True)
    v = np.random.default_rng(1).standard_normal((loaded.shape[1], 3))
    found = loaded.product(v)
    assert found.dtype == ("float64" if dtype == "float64" else "float32")
    tol = 1e-13 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(found, expected.astype(float) @ v, rtol=tol, atol=100 * tol)
    np.testing.assert_allclose(loaded.product(v[:, 0]), found[:, 0], rtol=tol, atol=100 * tol)
    with pytest.raises(ValueError, match=rf"v must have shape \({len(v)},\)"):
        loaded.product(v[1:])


def test_a_stored_matrix_is_an_argument_of_compiled_functions_and_pickled_by_its_path(tmp_path):
    stored = _compute(tmp_path / "k")
    k, v = X @ X.T, jnp.ones((8, 2), jnp.float32)
    np.testing.assert_allclose(stored.diagonal(), np.diag(k), rtol=1e-6)
    twice = jax.jit(lambda k, v: jax.lax.fori_loop(0, 2, lambda _, u: k.product(u), v))
    found = twice(stored, stored.place(v))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, k @ (k @ v), rtol=1e-4, atol=1e-4)
    data = pickle.dumps(stored)
    np.testing.assert_array_equal(pickle.loads(data), stored)
    assert len(data) < 200 + len(str(stored.path))


def test_indices_are_those_of_numpy(tmp_path):
    stored, k = _compute(tmp_path / "k"), np.asarray(gram.compute(_dot, X))
    keys = np.s_[2], np.s_[-1, 3], np.s_[1:7, 2:5], np.s_[:, 0], np.s_[::3, ::-2], np.s_[5:5]
    for key in (*keys, np.s_[np.int64(2), -100:100]):
        np.testing.assert_allclose(stored[key], k[key], rtol=1e-5, atol=1e-6, strict=True)
    for key, error in ((8, IndexError), ([1, 2], TypeError), ((0,) * 3, IndexError)):
        with pytest.raises(error, match=r"out of range|slices, not list|two axes, got 3"):
            stored[key]


def test_a_matrix_that_does_not_fit_into_memory_is_not_read(tmp_path, monkeypatch):
    stored = _compute(tmp_path / "k")
    monkeypatch.setattr(memory, "available", lambda: 255)
    with pytest.raises(MemoryError, match="the stored matrix 256 bytes"):
        np.asarray(stored)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(stored, copy=False)


def test_any_reader_of_zarr_opens_the_folder(tmp_path):
    import tensorstore

    # Zeros too must be written.
    path = _compute(tmp_path / "k", lambda a, b: 0 * (a @ b.T)).path
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    np.testing.assert_array_equal(tensorstore.open(spec).result(), np.zeros((8, 8)))
    assert len(_contents(path)) == 9
    metadata = json.loads((path / "zarr.json").read_text())
    assert [codec["name"] for codec in metadata["codecs"]] == ["bytes", "crc32c"]


# Resuming.


def test_chunks_equal_to_the_fill_value_are_finished(tmp_path):
    nan = np.full((4, 4), np.nan, np.float32)
    stored = store.fill(tmp_path / "k", lambda i, j: nan, _IDENTITY | {"shape": [8, 8]})
    assert not stored.missing()


_KILLED = """
import os, pathlib, random, signal, sys, time
import numpy as np
from nt_residual.gram import store

path, matrix, random = pathlib.Path(sys.argv[1]), np.load(sys.argv[2]), random.Random(0)

def tile(i, j):
    time.sleep(0.003)  # It must not be done before it is killed.
    return matrix[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]

def finished():
    return len(list(path.glob("c/*/[0-9]*")))

for enough in (0, 0, 1, 20, 60):
    child = os.fork()
    if not child:
        store.fill(path, tile, {identity})
        os._exit(0)
    while finished() < enough:
        time.sleep(0.001)
    time.sleep(0.03 * random.random())
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
print(finished())
"""


def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes(tmp_path):
    matrix = np.random.default_rng(0).standard_normal((42, 42)).astype(np.float32)
    matrix += matrix.T
    np.save(tmp_path / "matrix.npy", matrix)
    path, asked = tmp_path / "k", []

    def tile(i, j):
        asked.append((i, j))
        return matrix[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]

    code = _KILLED.replace("{identity}", repr(_IDENTITY))
    run = run_python(code, str(path), str(tmp_path / "matrix.npy"))
    assert run.returncode == 0, run.stderr
    stored = store.fill(path, tile, _IDENTITY)
    assert 60 <= int(run.stdout) < 121
    assert len(asked) < 66 - (60 - 11) / 2 + 3
    np.testing.assert_array_equal(stored, matrix)
    assert _contents(path) == _contents(store.fill(tmp_path / "whole", tile, _IDENTITY).path)


def test_after_ctrl_c_only_the_unfinished_tiles_are_computed(tmp_path, capsys):
    def stopped(i, j):
        if (i, j) == (1, 1):
            raise KeyboardInterrupt
        return np.ones((4, 4), np.float32)

    identity = _IDENTITY | {"shape": [12, 12]}
    with pytest.raises(KeyboardInterrupt):
        store.fill(tmp_path / "k", stopped, identity)
    with pytest.raises(ValueError, match=r"not complete: 3 of 6 tiles are missing, .*c/1/1"):
        gram.load(tmp_path / "k")
    asked, ones = [], np.ones((4, 4), np.float32)
    store.fill(tmp_path / "k", lambda *k: asked.append(k) or ones, identity, progress=True)
    assert "3/6" in capsys.readouterr().err
    # The first one is computed to compare it.
    assert asked == [(0, 0), (1, 1), (1, 2), (2, 2)]


def test_a_matrix_is_resumed_in_its_own_tiles_whatever_memory_there_is(tmp_path, monkeypatch):
    first = _compute(tmp_path / "k", x=_inputs(50), tile_size=16)
    monkeypatch.setattr(memory, "available", lambda device=None: 10**6)
    again = _compute(tmp_path / "k", x=_inputs(50), tile_size=None)
    assert again.tile_shape == first.tile_shape == (13, 13)


def _flip(file):
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)


def _truncate(file):
    file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [_flip, _truncate, lambda file: file.unlink()])
@pytest.mark.parametrize("chunk", [(1, 2), (2, 1)])
def test_a_damaged_tile_is_named_and_computed_again_once_it_is_deleted(tmp_path, damage, chunk):
    stored, v = _compute(tmp_path / "k"), np.ones(8)
    expected, file = np.asarray(stored), stored.chunk_file(*chunk)
    damage(file)
    readers = [lambda: stored[:], lambda: stored[3 * chunk[0] + 1], lambda: np.asarray(stored)]
    # A product does not read what is below the diagonal.
    readers += [lambda: stored.product(v)] if chunk == (1, 2) else []
    for read in readers:
        with pytest.raises(OSError, match=rf"(?s){file}.*Delete that file if.*gram\.compute"):
            read()
    assert stored[:3].shape == (3, 8)
    file.unlink(missing_ok=True)
    np.testing.assert_array_equal(_compute(tmp_path / "k"), expected)


# What is refused.


def _other_data():
    other = X.copy()
    other[7, 3] = np.nextafter(other[7, 3], np.float32(9))
    return other


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"kernel": lambda a, b: 1.0001 * a @ b.T}, r"the kernel \(an entry is .* there, .* now\)"),
        ({"kernel": _Scaled(2.0)}, r"kernel \(stored None, now _Scaled\(factor=2\.0\)\)"),
        ({"x": _other_data()}, "x1"),
        ({"x2": X}, r"x2, symmetric \(stored True, now False\)"),
        ({"tile_size": 4}, r"tile_size \(stored \[3, 3\], now \[4, 4\]\)"),
        ({"kernel": lambda a, b: _dot(a, b).astype("float16")}, r"dtype \(stored .*float16\)"),
        ({"x": X[:6]}, r"x1, shape \(stored \[8, 8\], now \[6, 6\]\)"),
    ],
)
@pytest.mark.parametrize("count", [2, *full(6)])
def test_another_matrix_is_refused_and_left_as_it_is(tmp_path, change, differs, count):
    _partly(tmp_path / "k", count)
    before = _contents(tmp_path / "k")
    remedy = "gram.load" if count == 6 else "Finish it"
    with pytest.raises(ValueError, match=rf"differs in {differs}\. .*{remedy}.*delete it"):
        _compute(tmp_path / "k", **change)
    assert _contents(tmp_path / "k") == before


def test_kernels_that_are_nearly_equal_differ_by_their_fields(tmp_path):
    for _ in range(2):
        _compute(tmp_path / "k", _Scaled(1.0))
    with pytest.raises(ValueError, match=r"factor=1\.0\), now _Scaled\(factor=1\.000000001\)"):
        _compute(tmp_path / "k", _Scaled(1.000000001))


def test_what_is_not_a_stored_matrix_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="something else than a stored matrix"):
        _compute(tmp_path / "notes")
    assert [file.name for file in (tmp_path / "notes").iterdir()] == ["a.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="file is or holds"):
        _compute(tmp_path / "file")
    for name in ("notes", "file"):
        with pytest.raises(ValueError, match=f"{name} is not a matrix stored"):
            gram.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no stored matrix"):
        gram.load(tmp_path / "absent")
    with pytest.raises(ValueError, match="path on this machine"):
        _compute("gs://bucket/k")


def test_what_a_kill_before_the_first_tile_leaves_is_taken_over(tmp_path):
    path = tmp_path / "k"
    path.mkdir()
    for name in ("lock", "zarr.json.__lock"):
        (path / name).write_text("")
    np.testing.assert_allclose(_compute(path), X @ X.T, rtol=1e-5, atol=1e-5)


def test_an_altered_zarr_array_is_refused(tmp_path):
    path = _compute(tmp_path / "k").path
    metadata = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(metadata | {"data_type": "float1"}))
    for use in (gram.load, _compute):
        with pytest.raises(OSError, match=r"data_type.*float1.*delete the folder"):
            use(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match="is not a matrix stored"):
        gram.load(path)
    with pytest.raises(FileExistsError, match="something else"):
        _compute(path)


def test_two_cannot_fill_one_matrix_at_once(tmp_path):
    _partly(tmp_path / "k", 2)
    with (
        _files.exclusive(tmp_path / "k" / "lock"),
        pytest.raises(BlockingIOError, match=r"being written by process \d+"),
    ):
        _compute(tmp_path / "k")
    _compute(tmp_path / "k")


def test_what_does_not_fit_on_the_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    with pytest.raises(OSError, match=r"need 1\.09 MB on the disk.*has 1\.05 MB free") as caught:
        _compute(tmp_path / "k")
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "k").exists()


def test_on_a_full_disk_nothing_half_written_counts_as_finished(tmp_path):
    x, path = _inputs(128), tmp_path / "k"
    expected = np.asarray(_compute(path, x=x, tile_size=64))
    for i, j in ((0, 1), (1, 1)):
        (path / "c" / str(i) / str(j)).unlink()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(OSError, match=r"writing.*c/.*Free some space.*again") as caught:
            _compute(path, x=x, tile_size=64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert caught.value.errno == errno.EFBIG
    assert [file.name for file in path.rglob("c/*/[0-9]") if file.stat().st_size < 10] == []
    np.testing.assert_array_equal(_compute(path, x=x, tile_size=64), expected)
