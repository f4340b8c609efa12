import gzip
import http.server
import pathlib
import sys
import threading

import numpy as np
import pytest

from nt_residual import data
from nt_residual.data import files as published

INSTALLED = pathlib.Path(published.DATASETS["fashion_mnist"].installed)
LABELS, ARCHIVE = "train-labels-idx1-ubyte", "cifar-10-binary.tar.gz"


def altered(content):
    return content[:-1] + bytes([content[-1] ^ 1])


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a file whole, half of it, or altered: as the folder says that is asked for."""

    def do_GET(self):
        _, how, dataset, name = self.path.split("/")
        content = (self.server.root / dataset / name).read_bytes()
        self.server.asked.append(how)
        if how == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        sent = {"whole": content, "half": content[: len(content) // 2], "altered": altered(content)}
        self.wfile.write(sent[how])

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def server(files, tmp_path, monkeypatch):
    """Serves the small files, to an empty cache."""
    monkeypatch.setenv("NT_RESIDUAL_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.root, running.asked, running.cache = files.root, [], tmp_path / "cache"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def use_sources(server, dataset, *folders):
    sources = tuple(f"http://127.0.0.1:{server.server_port}/{each}/{dataset}/" for each in folders)
    published.DATASETS[dataset] = published.DATASETS[dataset]._replace(sources=sources)


def test_files_are_downloaded_once_into_the_cache_and_again_if_damaged(files, server):
    use_sources(server, "mnist", "whole")
    found = data.load("mnist")
    np.testing.assert_array_equal(found.y_train, files.arrays["mnist"][1])
    names = set(published.sums(published.DATASETS["mnist"].archives))
    assert {path.name for path in server.cache.rglob("*") if path.is_file()} == names
    data.load("mnist")
    assert len(server.asked) == 4
    (path,) = server.cache.rglob(f"{LABELS}.gz")
    path.write_bytes(altered(path.read_bytes()))
    np.testing.assert_array_equal(data.load("mnist").y_train, found.y_train)
    assert len(server.asked) == 5


def test_the_next_source_is_tried_when_one_fails(server):
    use_sources(server, "cifar10", "missing", "half", "altered", "whole")
    assert len(data.load("cifar10").x_train) == 60
    assert server.asked == ["missing", "half", "altered", "whole"]


def test_a_failed_download_leaves_nothing_and_says_what_to_put_where(server):
    use_sources(server, "cifar10", "whole")
    use_sources(server, "mnist", "missing", "half", "altered")
    with pytest.raises(OSError, match="'mnist' could not be downloaded") as caught:
        data.load("mnist")
    text = str(caught.value)
    assert all(f"/{how}/mnist/train-images" in text for how in ("missing", "half", "altered"))
    assert "pass it as root=: " in text
    assert all(name in text for name in published.sums(published.DATASETS["mnist"].archives))
    assert not [path for path in server.cache.rglob("*") if path.is_file()]
    server.server_close()
    with pytest.raises(OSError, match=rf"(?s)could not be downloaded.* root=: {ARCHIVE}"):
        data.load("cifar10")


def test_with_root_nothing_is_downloaded_or_written(files, server):
    use_sources(server, "cifar10", "whole")
    before = sorted(files.root.rglob("*"))
    data.load("cifar10", root=files.root / "cifar10")
    assert sorted(files.root.rglob("*")) == before
    with pytest.raises(FileNotFoundError, match=rf"a folder with {ARCHIVE}, got .* Get the file"):
        data.load("cifar10", root=server.cache)
    assert server.asked == []


def test_a_file_that_is_not_the_published_one_is_refused_by_name(files):
    def refused(name, content, message, dataset="mnist"):
        path = files.root / dataset / name
        before = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} must {message}.* Delete it and get it"):
            data.load(dataset, root=path.parent)
        path.write_bytes(before)

    archive = (files.root / "cifar10" / ARCHIVE).read_bytes()
    refused(ARCHIVE, altered(archive), "have the SHA-256 sum", "cifar10")
    labels = gzip.decompress((files.root / "mnist" / f"{LABELS}.gz").read_bytes())
    refused(f"{LABELS}.gz", gzip.compress(altered(labels)), "have content with the SHA-256 sum")
    refused(f"{LABELS}.gz", gzip.compress(labels)[:-9], "be a gzip file")
    refused(f"{LABELS}.gz", labels, "be a gzip file")


def test_files_may_be_compressed_in_any_way_or_not_at_all(files):
    folder = files.root / "fashion_mnist"
    expected = data.load("fashion_mnist", root=folder)
    for i, path in enumerate(sorted(folder.iterdir())):
        content = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(content, compresslevel=9))
        if i % 2:
            path.unlink()
            path.with_suffix("").write_bytes(content)
    for found, array in zip(data.load("fashion_mnist", root=folder), expected, strict=True):
        np.testing.assert_array_equal(found, array)
    path.with_suffix("").unlink()
    with pytest.raises(FileNotFoundError, match=f"a folder with {path.name}, compressed or not,"):
        data.load("fashion_mnist", root=folder)


def test_an_installed_package_is_read_if_it_is_whole(files, server):
    use_sources(server, "fashion_mnist", "whole")
    installed = files.root / "fashion_mnist"
    published.DATASETS["fashion_mnist"] = published.DATASETS["fashion_mnist"]._replace(
        installed=str(installed)
    )
    assert len(data.load("fashion_mnist").x_train) == 60
    assert server.asked == []
    kept = (installed / f"{LABELS}.gz").rename(files.root / "kept")
    server.root = files.root / "served"
    (server.root / "fashion_mnist").mkdir(parents=True)
    for path in installed.iterdir():
        (server.root / "fashion_mnist" / path.name).write_bytes(path.read_bytes())
    kept.rename(server.root / "fashion_mnist" / f"{LABELS}.gz")
    assert len(data.load("fashion_mnist").x_train) == 60
    assert server.asked == 4 * ["whole"]


@pytest.mark.skipif(not INSTALLED.exists(), reason="dataset-fashion-mnist is not installed")
def test_the_package_of_debian_has_the_published_images():
    found = data.load("fashion_mnist", root=INSTALLED)
    assert found.x_train.shape == (60_000, 28, 28, 1)
    assert found.flat.x_test.shape == (10_000, 784)
    assert set(np.bincount(found.y_train)) == {6000}
    # Ankle boots are dark above the toe, and trousers have a gap between the legs.
    mean = {k: found.x_train[found.y_train == k].mean(axis=0)[..., 0] for k in (1, 9)}
    assert mean[9][20:, :14].mean() > 2 * mean[9][:8, :14].mean()
    assert mean[1][24, 14] < mean[1][24, 10]


def test_files_of_ones_own_need_neither_pooch_nor_scikit_learn(files, monkeypatch):
    for name in ("pooch", "sklearn.datasets", "sklearn.model_selection"):
        monkeypatch.setitem(sys.modules, name, None)
    assert len(data.load("cifar10", root=files.root / "cifar10").x_train) == 60
    with pytest.raises(ImportError, match=r"downloads need pooch, .* or pass root="):
        data.load("cifar10")
    with pytest.raises(ImportError, match="stratified subsets need scikit-learn, which is not"):
        data.load("cifar10", 20, root=files.root / "cifar10")
    with pytest.raises(ImportError, match="the digits come with scikit-learn, which is not"):
        data.load("digits")
