import errno
import json
import pickle
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import run_python

from nt_residual import _files, memory
from nt_residual.gram import manifest, store

DTYPES = ["float32", "float64", "bfloat16"]
FINGERPRINT = {"kernel": "k", "x1": "x", "jax": "1"}


class Tiles:
    """The tiles of a known matrix, and which of them have been asked for."""

    def __init__(self, matrix, tile_size, *, stop=None):
        self.matrix, self.size, self.stop = matrix, np.broadcast_to(tile_size, 2), stop
        self.asked = []

    def __call__(self, i, j):
        if len(self.asked) == self.stop:
            raise KeyboardInterrupt
        self.asked.append((i, j))
        rows, columns = self.size
        return self.matrix[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]


def _matrix(shape, dtype, symmetric):
    matrix = np.random.default_rng(0).standard_normal(shape)
    return (matrix + matrix.T if symmetric else matrix).astype(jnp.dtype(dtype))


def _fill(path, tiles, *, symmetric=True, fingerprint=FINGERPRINT, **options):
    return store.fill(
        path,
        tiles,
        tiles.matrix.shape,
        tiles.matrix.dtype,
        tiles.size,
        fingerprint,
        symmetric=symmetric,
        **options,
    )


@pytest.fixture
def tiles():
    """Six tiles of a symmetric matrix, ragged."""
    return Tiles(_matrix((8, 8), "float32", True), 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "tile_size", "symmetric"),
    [((9, 9), 3, True), ((7, 7), 3, True), ((2, 2), 5, True), ((7, 4), (3, 2), False)],
)
def test_a_matrix_is_read_as_it_was_written(tmp_path, dtype, shape, tile_size, symmetric):
    tiles = Tiles(_matrix(shape, dtype, symmetric), tile_size)
    stored = _fill(tmp_path / "k", tiles, symmetric=symmetric)
    assert (stored.shape, stored.dtype, stored.complete) == (shape, tiles.matrix.dtype, True)
    loaded = store.load(tmp_path / "k")
    assert loaded == stored
    assert hash(loaded) == hash(stored)
    np.testing.assert_array_equal(np.asarray(loaded), tiles.matrix)
    np.testing.assert_array_equal(loaded.diagonal(), np.diagonal(tiles.matrix).astype(float))
    loaded.verify()
    if symmetric:
        assert all(i <= j for i, j in tiles.asked)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_products_are_those_of_the_matrix_in_memory(tmp_path, dtype, symmetric):
    shape = (11, 11) if symmetric else (11, 5)
    tiles = Tiles(_matrix(shape, dtype, symmetric), 4)
    stored = _fill(tmp_path / "k", tiles, symmetric=symmetric)
    v = np.random.default_rng(1).standard_normal((shape[1], 3))
    tol = 1e-13 if dtype == "float64" else 3e-6
    expected = tiles.matrix.astype(float) @ v
    found = stored.product(v)
    assert found.dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_allclose(found, expected, rtol=tol, atol=tol)
    np.testing.assert_allclose(stored.product(v[:, 0]), expected[:, 0], rtol=tol, atol=tol)
    with pytest.raises(ValueError, match=rf"v must have shape \({shape[1]},\)"):
        stored.product(np.ones((shape[1] + 1, 2)))


def test_products_can_be_compiled_with_the_matrix_as_an_argument(tmp_path, tiles):
    stored = _fill(tmp_path / "k", tiles)
    v = jnp.ones((8, 2), jnp.float32)
    twice = jax.jit(lambda k, v: jax.lax.fori_loop(0, 2, lambda _, u: k.product(u), v))
    expected = tiles.matrix @ (tiles.matrix @ np.asarray(v))
    found = twice(stored, stored.place(v))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(stored.product(stored.product(v)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "key",
    [
        np.s_[2],
        np.s_[-1, 3],
        np.s_[1:7, 2:5],
        np.s_[:, 0],
        np.s_[::3, ::-2],
        np.s_[5:5],
        np.s_[np.int64(2), -100:100],
    ],
)
def test_indices_are_those_of_numpy(tmp_path, tiles, key):
    stored = _fill(tmp_path / "k", tiles)
    np.testing.assert_array_equal(stored[key], tiles.matrix[key], strict=True)


def test_indices_that_are_none_are_refused(tmp_path, tiles):
    stored = _fill(tmp_path / "k", tiles)
    for key, message in ((8, "index 8 is out of range"), ([1, 2], "got list"), ((0,) * 3, "got 3")):
        with pytest.raises(IndexError, match=message):
            stored[key]


def test_a_matrix_that_does_not_fit_into_memory_is_not_read(tmp_path, tiles, monkeypatch):
    stored = _fill(tmp_path / "k", tiles)
    monkeypatch.setattr(memory, "available", lambda: 255)
    with pytest.raises(MemoryError, match="the stored matrix 256 bytes"):
        np.asarray(stored)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(stored, copy=False)


def test_pickles_hold_the_path_only(tmp_path, tiles):
    stored = _fill(tmp_path / "k", tiles)
    data = pickle.dumps(stored)
    assert pickle.loads(data) == stored
    assert len(data) < 200 + len(str(stored.path))


def test_any_reader_of_zarr_opens_the_directory(tmp_path):
    import tensorstore

    # Zeros too must be written: nothing may be left to a fill value.
    tiles = Tiles(np.zeros((5, 5), np.float32), 2)
    path = _fill(tmp_path / "k", tiles).path
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    array = tensorstore.open(spec).result()
    np.testing.assert_array_equal(array.read().result(), tiles.matrix)
    metadata = json.loads((path / "zarr.json").read_text())
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [2, 2]
    assert [codec["name"] for codec in metadata["codecs"]] == ["bytes", "crc32c"]


def _contents(path):
    files = (file for file in (path / "c").rglob("*") if file.is_file())
    return {file.relative_to(path): file.read_bytes() for file in files}


_KILLED = """
import os, pathlib, random, signal, time
import numpy as np
from nt_residual.gram import store
from nt_residual.gram.journal import Journal

path, matrix, random = pathlib.Path({path!r}), np.load({matrix!r}), random.Random(0)

def fill(log, most):
    def tile(i, j):
        if log.read_bytes().count(b"\\n") == most:
            signal.pause()  # It must not be done before it is killed.
        with log.open("a") as file:
            file.write(f"{{i}} {{j}}\\n")
        return matrix[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
    store.fill(path, tile, matrix.shape, "float32", 4, {fingerprint!r}, symmetric=True)

for attempt, enough in enumerate((0, 0, 1, 9, 20, 40)):
    finished = Journal(path / "finished.txt").tiles()
    log = pathlib.Path(f"{{path}}.{{attempt}}")
    log.touch()
    child = os.fork()
    if not child:
        try:
            fill(log, enough + 8 - len(finished))
        finally:
            os._exit(0)
    while len(finished) + log.read_bytes().count(b"\\n") < enough:
        time.sleep(0.001)
    time.sleep(0.03 * random.random())
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    asked = {{tuple(map(int, line.split())) for line in log.read_text().splitlines()}}
    assert os.WIFSIGNALED(status)
    assert not asked & finished, "finished tiles were computed again"
print(len(Journal(path / "finished.txt").tiles()))
"""


def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes(tmp_path):
    matrix = _matrix((42, 42), "float32", True)
    np.save(tmp_path / "matrix.npy", matrix)
    path = tmp_path / "k"
    code = _KILLED.format(
        path=str(path), matrix=str(tmp_path / "matrix.npy"), fingerprint=FINGERPRINT
    )
    run = run_python(code)
    assert run.returncode == 0, run.stderr
    tiles, whole = Tiles(matrix, 4), Tiles(matrix, 4)
    stored = _fill(path, tiles)
    expected = _contents(_fill(tmp_path / "whole", whole).path)
    assert len(tiles.asked) + int(run.stdout) == len(whole.asked) == 66
    np.testing.assert_array_equal(stored, matrix)
    stored.verify()
    assert _contents(path) == expected


def test_after_ctrl_c_only_the_unfinished_tiles_are_computed(tmp_path, tiles, capsys):
    tiles.stop = 4
    with pytest.raises(KeyboardInterrupt) as caught:
        _fill(tmp_path / "k", tiles)
    assert "4 of 6 tiles are finished" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="not complete: 2 of 6 tiles are missing"):
        store.load(tmp_path / "k")
    again = Tiles(tiles.matrix, 3)
    stored = _fill(tmp_path / "k", again, progress=True)
    assert "4/6" in capsys.readouterr().err
    assert len(again.asked) == 2
    assert not set(again.asked) & set(tiles.asked)
    np.testing.assert_array_equal(stored, tiles.matrix)


def test_a_complete_matrix_is_opened_at_once(tmp_path, tiles):
    _fill(tmp_path / "k", tiles)
    again = Tiles(tiles.matrix, 3)
    np.testing.assert_array_equal(_fill(tmp_path / "k", again), tiles.matrix)
    assert again.asked == []


@pytest.mark.parametrize("keep", [1, 5, -1])
def test_a_torn_or_altered_line_is_a_tile_that_is_not_finished(tmp_path, tiles, keep):
    journal = _fill(tmp_path / "k", tiles).path / "finished.txt"
    *lines, last = journal.read_text().splitlines(keepends=True)
    altered = lines[1].replace("0 1", "0 7")
    journal.write_text("".join([lines[0], altered, *lines[2:], last[:keep]]))
    again = Tiles(tiles.matrix, 3)
    np.testing.assert_array_equal(_fill(tmp_path / "k", again), tiles.matrix)
    assert again.asked == [(0, 1), (2, 2)]
    assert len(journal.read_text().splitlines()) == 6


def _flip(file):
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)


def _truncate(file):
    file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [_flip, _truncate, lambda file: file.unlink()])
@pytest.mark.parametrize("chunk", [(1, 2), (2, 1)])
def test_a_damaged_tile_is_named_and_can_be_computed_again(tmp_path, tiles, damage, chunk):
    stored = _fill(tmp_path / "k", tiles)
    file = tmp_path / "k" / "c" / str(chunk[0]) / str(chunk[1])
    damage(file)
    named = rf"(?s)tile \({chunk[0]}, {chunk[1]}\), {file} .*forget_damaged"
    readers = [lambda: stored[:], stored.verify, lambda: stored[3 * chunk[0] + 1]]
    # A product does not read what is below the diagonal.
    readers += [lambda: stored.product(np.ones(8))] if chunk == (1, 2) else []
    for read in readers:
        with pytest.raises(OSError, match=named):
            read()
    assert stored[:3].shape == (3, 8)
    assert stored.forget_damaged() == [chunk]
    assert not stored.complete
    again = Tiles(tiles.matrix, 3)
    repaired = _fill(tmp_path / "k", again)
    assert again.asked == [(1, 2)]
    np.testing.assert_array_equal(repaired, tiles.matrix)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": FINGERPRINT | {"kernel": "other"}}, "the kernel"),
        ({"fingerprint": FINGERPRINT | {"x1": "other"}}, "x1"),
        ({"fingerprint": FINGERPRINT | {"jax": "2"}}, r"the version of jax \(1, now 2\)"),
        ({"symmetric": False}, r"whether it is symmetric \(True, now False\)"),
        ({"tile_size": 4}, r"the tile size \(\[3, 3\], now \[4, 4\]\)"),
        ({"dtype": "float64"}, r"the dtype \(float32, now float64\)"),
        ({"n": 9}, r"the shape \(\[8, 8\], now \[9, 9\]\)"),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_another_matrix_is_refused_and_left_as_it_is(tmp_path, tiles, change, message, complete):
    if not complete:
        tiles.stop = 2
        with pytest.raises(KeyboardInterrupt):
            _fill(tmp_path / "k", tiles)
    else:
        _fill(tmp_path / "k", tiles)
    before = _contents(tmp_path / "k")
    change = dict(change)
    n, dtype = change.pop("n", 8), change.pop("dtype", "float32")
    other = Tiles(_matrix((n, n), dtype, True), change.pop("tile_size", 3))
    remedy = "gram.load" if complete else "Finish what is there"
    with pytest.raises(ValueError, match=rf"What differs: {message}\. .*{remedy}.*delete it"):
        _fill(tmp_path / "k", other, **change)
    assert other.asked == []
    assert _contents(tmp_path / "k") == before


def test_what_is_not_a_stored_matrix_is_refused_and_left_as_it_is(tmp_path, tiles):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="something else than a stored matrix"):
        _fill(tmp_path / "notes", tiles)
    assert [file.name for file in (tmp_path / "notes").iterdir()] == ["a.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        _fill(tmp_path / "file", tiles)
    for name in ("notes", "file"):
        with pytest.raises(ValueError, match=f"{name} is no matrix stored"):
            store.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no stored matrix"):
        store.load(tmp_path / "absent")
    with pytest.raises(ValueError, match="path on this machine"):
        _fill("gs://bucket/k", tiles)
    assert tiles.asked == []


def test_what_a_kill_before_the_first_tile_leaves_is_taken_over(tmp_path, tiles):
    path = tmp_path / "k"
    path.mkdir()
    (path / "lock").write_text("")
    left = path / "manifest.json.0123456789ab.tmp"
    left.write_text("{")
    np.testing.assert_array_equal(_fill(path, tiles), tiles.matrix)
    assert not left.exists()


def test_of_two_writers_of_one_file_the_last_to_end_has_all_of_its_bytes_there(tmp_path):
    path = tmp_path / "file"
    with _files.replacing(path) as first, _files.replacing(path) as second:
        second.write(b"2" * 5)
        first.write(b"1" * 9)
        second.flush()
        assert len(_files.leftovers(path)) == 2
    assert path.read_bytes() == b"1" * 9
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "nt_residual.gram", "version": 99}'])
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path, tiles, text):
    path = _fill(tmp_path / "k", tiles).path
    (path / "manifest.json").write_text(text)
    for use in (lambda: store.load(path), lambda: _fill(path, tiles)):
        with pytest.raises(ValueError, match=r"must be a manifest of format 'nt_residual\.gram'"):
            use()


def test_a_missing_or_altered_zarr_array_is_refused(tmp_path, tiles):
    path = _fill(tmp_path / "k", tiles).path
    metadata = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(metadata | {"data_type": "float64"}))
    with pytest.raises(OSError, match=r"zarr array in .* cannot be opened: .*float64"):
        store.load(path)
    (path / "zarr.json").unlink()
    with pytest.raises(OSError, match=r"zarr\.json is missing or damaged"):
        store.load(path)


def test_two_cannot_fill_one_matrix_at_once(tmp_path, tiles):
    def meanwhile(i, j):
        with pytest.raises(BlockingIOError, match=r"being written by process \d+"):
            _fill(tmp_path / "k", Tiles(tiles.matrix, 3))
        return tiles(i, j)

    meanwhile.matrix, meanwhile.size = tiles.matrix, tiles.size
    stored = _fill(tmp_path / "k", meanwhile)
    with _files.exclusive(tmp_path / "k" / "lock"), pytest.raises(BlockingIOError):
        stored.forget_damaged()
    np.testing.assert_array_equal(stored, tiles.matrix)


def test_what_does_not_fit_on_the_disk_is_refused_before_anything_is_written(
    tmp_path, tiles, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    with pytest.raises(OSError, match=r"need 1\.09 MB on the disk.*has 1\.05 MB free") as caught:
        _fill(tmp_path / "k", tiles)
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "k").exists()


def test_on_a_full_disk_nothing_half_written_counts_as_finished(tmp_path):
    matrix = _matrix((128, 128), "float32", True)
    tiles = Tiles(matrix, 64, stop=1)
    with pytest.raises(KeyboardInterrupt):
        _fill(tmp_path / "k", tiles)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(OSError, match=r"tile .* cannot be written.*to go on") as caught:
            _fill(tmp_path / "k", Tiles(matrix, 64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert caught.value.errno == errno.EFBIG
    again = Tiles(matrix, 64)
    np.testing.assert_array_equal(_fill(tmp_path / "k", again), matrix)
    assert again.asked == [(0, 1), (1, 1)]


def test_a_tile_of_another_shape_or_dtype_is_refused(tmp_path, tiles):
    tiles.matrix = tiles.matrix.astype(np.float64)
    with pytest.raises(ValueError, match=r"tile\(0, 0\) must have shape \(3, 3\) and dtype"):
        store.fill(tmp_path / "k", tiles, (8, 8), "float32", 3, {}, symmetric=True)


@pytest.mark.parametrize(
    ("shape", "dtype", "tile_shape", "message"),
    [
        ((4, 5), "float32", (2, 2), "must be square"),
        ((4, 4), "float32", (2, 1), "must be square"),
        ((4, 4), "int32", (2, 2), "dtype must be one of"),
        ((4, 4), "float32", (0, 0), "at least 1"),
    ],
)
def test_a_matrix_that_cannot_be_stored_is_refused(shape, dtype, tile_shape, message):
    with pytest.raises(ValueError, match=message):
        manifest.Manifest(shape, dtype, tile_shape, True, {})


def test_the_tile_size_of_an_unfinished_matrix_is_known(tmp_path, tiles):
    assert store.tile_size_of(tmp_path / "k") is None
    tiles.stop = 1
    with pytest.raises(KeyboardInterrupt):
        _fill(tmp_path / "k", tiles)
    assert store.tile_size_of(tmp_path / "k") == 3
