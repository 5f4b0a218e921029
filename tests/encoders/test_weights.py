import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.encoders.weights import find_weights, get_cache_folder
from pipeline.errors import WeightsError
from pipeline.utils.checkpoint import read_checkpoint

GE2E = "pypi://resemblyzer==0.1.4/resemblyzer/pretrained.pt"
GE2E_SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
CONTENT = b"tensors, say" * 1000
DIGEST = sha256(CONTENT).hexdigest()
WRONG = "0" * 64


def one_line(error: pytest.ExceptionInfo[WeightsError]) -> str:
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def cached_files(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server of one file, net.pt."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "net.pt").write_bytes(CONTENT)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one small wheel, the only place where pip looks."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    with zipfile.ZipFile(folder / "toynet-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toynet/__init__.py", "raise RuntimeError('imported')")
        wheel.writestr("toynet/net.pt", CONTENT)
        wheel.writestr("toynet-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toynet\nVersion: 1.0\n")
        wheel.writestr("toynet-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("toynet-1.0.dist-info/RECORD", "")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


class TestLocalPath:
    def test_used_in_place(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pt"
        path.write_bytes(CONTENT)
        assert find_weights(str(path)) == (path, DIGEST)
        assert find_weights(str(path), DIGEST.upper()) == (path, DIGEST)

    def test_wrong_digest(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pt"
        path.write_bytes(CONTENT)
        with pytest.raises(WeightsError) as error:
            find_weights(str(path), WRONG)
        assert all(text in one_line(error) for text in (str(path), DIGEST, WRONG))

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="no weights at") as error:
            find_weights(str(tmp_path / "net.pt"), None)
        one_line(error)


class TestRemote:
    def test_fetched_once_and_healed(self, site: str, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        path, _ = find_weights(f"{site}/net.pt?v=1", DIGEST, cache)
        assert path == cache / "weights" / DIGEST / "net.pt"
        assert path.read_bytes() == CONTENT
        (tmp_path / "site" / "net.pt").rename(tmp_path / "site" / "away.pt")
        assert find_weights(f"{site}/net.pt", DIGEST, cache) == (path, DIGEST)
        (tmp_path / "site" / "away.pt").rename(tmp_path / "site" / "net.pt")
        path.write_bytes(b"damaged")
        assert find_weights(f"{site}/net.pt", DIGEST, cache).path.read_bytes() == CONTENT
        assert cached_files(cache) == [f"weights/{DIGEST}/net.pt"]

    def test_two_at_once(self, site: str, tmp_path: Path) -> None:
        with ThreadPoolExecutor(4) as pool:
            paths = set(pool.map(lambda _: find_weights(f"{site}/net.pt", DIGEST, tmp_path / "cache"), range(8)))
        assert [path.read_bytes() for path, _ in paths] == [CONTENT]
        assert cached_files(tmp_path / "cache") == [f"weights/{DIGEST}/net.pt"]

    def test_wrong_digest_and_missing_file(self, site: str, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="expected") as error:
            find_weights(f"{site}/net.pt", WRONG, tmp_path / "cache")
        assert all(text in one_line(error) for text in ("net.pt", DIGEST, WRONG))
        with pytest.raises(WeightsError, match="404") as error:
            find_weights(f"{site}/none.pt", WRONG, tmp_path / "cache")
        one_line(error)
        assert cached_files(tmp_path / "cache") == []

    def test_cache_folder_that_cannot_be(self, site: str, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file")
        with pytest.raises(WeightsError, match="SEED_CACHE") as error:
            find_weights(f"{site}/net.pt", DIGEST, tmp_path / "cache")
        one_line(error)

    def test_default_cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("SEED_CACHE", str(tmp_path / "own"))
        assert get_cache_folder() == tmp_path / "own"
        monkeypatch.delenv("SEED_CACHE")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert get_cache_folder() == tmp_path / ".cache" / "speaker-seed"

    def test_unpinned_is_what_it_was_at_first(self, site: str, tmp_path: Path) -> None:
        cache, served = tmp_path / "cache", tmp_path / "site" / "net.pt"
        path, digest = find_weights(f"{site}/net.pt", None, cache)
        assert digest == DIGEST
        served.write_bytes(b"another version")
        assert find_weights(f"{site}/net.pt", None, cache) == (path, DIGEST)
        path.write_bytes(b"damaged")
        with pytest.raises(WeightsError, match=f"expected {DIGEST}") as error:
            find_weights(f"{site}/net.pt", None, cache)
        one_line(error)
        served.write_bytes(CONTENT)
        assert find_weights(f"{site}/net.pt", None, cache).path.read_bytes() == CONTENT

    @pytest.mark.parametrize(
        ("uri", "digest"),
        [
            ("https://example.org/net.pt", "../../evil"),
            ("https://example.org/", WRONG),
            ("https://example.org/a/%2e%2e", WRONG),
            ("ftp://example.org/net.pt", WRONG),
            ("pypi://toynet/toynet/net.pt", WRONG),
            ("pypi://-rlist==1/net.pt", WRONG),
            ("pypi://toynet==1.0", WRONG),
            ("hf://owner/net.pt", WRONG),
            ("hf://owner/repository/", WRONG),
        ],
    )
    def test_address_that_cannot_be(self, uri: str, digest: str, tmp_path: Path) -> None:
        with pytest.raises(WeightsError) as error:
            find_weights(uri, digest, tmp_path)
        assert uri in one_line(error)
        assert list(tmp_path.iterdir()) == []


class TestWheel:
    def test_member(self, shelf: Path, tmp_path: Path) -> None:
        path, _ = find_weights("pypi://toynet==1.0/toynet/net.pt", DIGEST, tmp_path / "cache")
        assert path.read_bytes() == CONTENT
        (shelf / "toynet-1.0-py3-none-any.whl").unlink()
        assert find_weights("pypi://toynet==1.0/toynet/net.pt", DIGEST, tmp_path / "cache") == (path, DIGEST)
        assert cached_files(tmp_path / "cache") == [f"weights/{DIGEST}/net.pt"]

    @pytest.mark.parametrize(
        ("uri", "match"),
        [
            ("pypi://toynet==1.0/toynet/net.pt", f"sha256 {DIGEST}, expected {WRONG}"),
            ("pypi://toynet==1.0/toynet/none.pt", "has no file toynet/none.pt"),
            ("pypi://toynet==2.0/toynet/net.pt", "No matching distribution found for toynet==2.0"),
        ],
    )
    def test_refused(self, shelf: Path, tmp_path: Path, uri: str, match: str) -> None:
        with pytest.raises(WeightsError, match=match) as error:
            find_weights(uri, WRONG, tmp_path / "cache")
        one_line(error)
        assert cached_files(tmp_path / "cache") == []

    def test_published_weights(self, tmp_path: Path) -> None:
        try:
            path, _ = find_weights(GE2E, GE2E_SHA256, tmp_path)
        except WeightsError as error:
            if str(error).startswith("pip could not download"):
                pytest.skip(f"the package registry cannot be reached: {error}")
            raise
        state = read_checkpoint(path)["model_state"]
        assert state["lstm.weight_ih_l0"].shape == (1024, 40)


class TestHub:
    def test_says_which_extra_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(WeightsError, match=r"\.\[hub\]") as error:
            find_weights("hf://owner/repository/net.pt", None, tmp_path)
        one_line(error)

    def test_fetched_through_the_hubs_client(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: type["HubHandler"]
    ) -> None:
        uri, cache = "hf://owner/repository@v1/folder/net.pt", tmp_path / "cache"
        path, digest = find_weights(uri, None, cache)
        assert (path.read_bytes(), digest) == (CONTENT, DIGEST)
        assert hub.seen == {"/owner/repository/resolve/v1/folder/net.pt"}
        assert find_weights(uri, DIGEST, cache).path.read_bytes() == CONTENT
        with pytest.raises(WeightsError, match=r"cannot fetch weights hf://owner/repository/none\.pt") as error:
            find_weights("hf://owner/repository/none.pt", None, cache)
        one_line(error)
        assert [name for name in cached_files(cache) if "none" in name or "fetch" in name] == []


class HubHandler(BaseHTTPRequestHandler):
    """As much of the hub as its client needs for one file."""

    seen: ClassVar[set[str]] = set()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        found = self.path.endswith("/net.pt")
        self.send_response(200 if found else 404)
        if found:
            self.seen.add(self.path)
            self.send_header("ETag", f'"{DIGEST}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(CONTENT) if found else 0))
        self.end_headers()
        if found and self.command == "GET":
            self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[HubHandler]]:
    """A server that the hub's client takes for the hub."""
    constants = pytest.importorskip("huggingface_hub.constants")
    HubHandler.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    yield HubHandler
    server.shutdown()
    server.server_close()
