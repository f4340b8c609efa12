import http.server
import threading

import numpy as np
import pytest

from nt_residual import data
from nt_residual.data import published

ARCHIVE = "cifar-10-binary.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a file whole, half of it, or altered: as the folder says that is asked for."""

    def do_GET(self):
        _, how, name = self.path.split("/")
        content = (self.server.root / name).read_bytes()
        self.server.asked.append(self.path)
        if how == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        sent = {"whole": content, "half": content[: len(content) // 2], "altered": content[::-1]}
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


def use_sources(files, server, dataset, *folders):
    address = f"http://127.0.0.1:{server.server_port}"
    for file in published.DATASETS[dataset]:
        files.register(dataset, file.name, sources=tuple(f"{address}/{each}/" for each in folders))


def test_files_are_downloaded_once(files, server):
    use_sources(files, server, "mnist", "whole")
    found = data.load("mnist")
    np.testing.assert_array_equal(found.y_train, files.arrays["mnist"][1])
    names = {file.name for file in published.DATASETS["mnist"]}
    assert {path.name for path in server.cache.iterdir()} == names
    assert len(server.asked) == 4
    data.load("mnist")
    assert len(server.asked) == 4


def test_the_next_source_is_tried_when_one_fails(files, server):
    use_sources(files, server, "cifar10", "missing", "half", "altered", "whole")
    assert len(data.load("cifar10").x_train) == 60
    assert [path.split("/")[1] for path in server.asked] == ["missing", "half", "altered", "whole"]


@pytest.mark.parametrize("how", ["missing", "half", "altered"])
def test_a_failed_download_leaves_nothing_and_says_what_to_put_where(how, files, server):
    use_sources(files, server, "cifar10", how)
    with pytest.raises(
        OSError, match=rf"(?s){ARCHIVE} of .*'cifar10' could not .* pass root=, .*{ARCHIVE}\."
    ) as caught:
        data.load("cifar10")
    assert f"/{how}/{ARCHIVE}: " in str(caught.value)
    assert list(server.cache.iterdir()) == []


def test_offline_every_file_is_named(files, server):
    use_sources(files, server, "mnist", "whole")
    server.server_close()
    with pytest.raises(OSError, match="could not be downloaded") as caught:
        data.load("mnist")
    for file in published.DATASETS["mnist"]:
        assert file.name in str(caught.value)


def test_a_download_that_is_interrupted_leaves_nothing(files, server, monkeypatch):
    import pooch

    def interrupted(self, url, output_file, pooch):
        with open(output_file, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.load("cifar10")
    assert list(server.cache.iterdir()) == []


def test_with_root_nothing_is_downloaded(files, server):
    use_sources(files, server, "cifar10", "whole")
    data.load("cifar10", root=files.root)
    with pytest.raises(FileNotFoundError, match="root must be a folder"):
        data.load("cifar10", root=server.cache)
    assert server.asked == []
