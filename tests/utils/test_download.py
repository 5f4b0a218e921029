import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.errors import FetchError
from pipeline.utils.download import CHUNK, download

BODY = random.Random(1).randbytes(4_000_000)
OTHER = random.Random(2).randbytes(3_000_000)


@dataclass
class Answer:
    """How the server treats one request; the last one of a script stands for all that follow."""

    status: int = 200
    body: bytes = BODY
    cut: int | None = None  # break the connection after so many bytes of the response's body
    ranges: bool = True
    if_range: bool = True  # False: the server answers 206 although the file has changed
    length: bool = True
    headers: dict[str, str] = field(default_factory=dict)


class Site:
    """A real HTTP server on 127.0.0.1 that follows a script."""

    def __init__(self) -> None:
        self.script: list[Answer] = [Answer()]
        self.requests: list[dict[str, str]] = []
        self.sent = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/corpus.tar.gz"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        answer = self.script[min(len(self.requests), len(self.script) - 1)]
        asked = dict(handler.headers.items())
        self.requests.append(asked)
        status, body, extra = answer.status, answer.body, dict(answer.headers)
        condition = asked.get("If-Range")
        valid = not answer.if_range or condition in (None, extra.get("ETag"), extra.get("Last-Modified"))
        if status == 200 and answer.ranges and "Range" in asked and valid:
            start = int(asked["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                status, extra["Content-Range"], body = 416, f"bytes */{len(body)}", b""
            else:
                status, extra["Content-Range"] = 206, f"bytes {start}-{len(body) - 1}/{len(body)}"
                body = body[start:]
        handler.send_response(status)
        if answer.length:
            extra["Content-Length"] = str(len(body))
        for name, value in extra.items():
            handler.send_header(name, value)
        handler.end_headers()
        body = body[: answer.cut]
        handler.wfile.write(body)
        self.sent += len(body)

    @property
    def ranges(self) -> list[str | None]:
        return [asked.get("Range") for asked in self.requests]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def digest(body: bytes) -> str:
    return sha256(body).hexdigest()


def fetch(site: Site, target: Path, body: bytes = BODY, **options: object) -> list[float]:
    """Download and return the waits that were asked for instead of waiting."""
    waits: list[float] = []
    assert download(site.url, target, digest(body), sleep=waits.append, **options) == target
    assert target.read_bytes() == body
    assert sorted(file.name for file in target.parent.iterdir()) == [target.name]
    return waits


def one_line(error: pytest.ExceptionInfo[FetchError]) -> str:
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def leave_part(target: Path, body: bytes, validator: str | None = None) -> None:
    target.with_name(f"{target.name}.part").write_bytes(body)
    if validator is not None:
        target.with_name(f"{target.name}.part.etag").write_text(validator)


class TestDownload:
    def test_whole_file_with_progress(self, site: Site, tmp_path: Path) -> None:
        seen: list[tuple[int, int | None]] = []
        fetch(site, tmp_path / "a" / "corpus", progress=lambda done, total: seen.append((done, total)))
        assert seen[0] == (0, len(BODY))
        assert seen[-1] == (len(BODY), len(BODY))
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    def test_present_file_needs_no_request(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "corpus").write_bytes(BODY)
        fetch(site, tmp_path / "corpus")
        assert site.requests == []

    def test_present_wrong_file_is_replaced(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "corpus").write_bytes(b"old")
        fetch(site, tmp_path / "corpus")

    @pytest.mark.parametrize("headers", [{}, {"ETag": '"1"'}, {"Last-Modified": "Tue, 01 Oct 2024 10:00:00 GMT"}])
    def test_broken_connection_is_resumed(self, site: Site, tmp_path: Path, headers: dict[str, str]) -> None:
        site.script = [Answer(cut=2_500_000, headers=headers), Answer(headers=headers)]
        assert len(fetch(site, tmp_path / "corpus")) == 1
        assert site.ranges[0] is None
        assert site.ranges[1] is not None
        assert site.requests[1].get("If-Range") == next(iter(headers.values()), None)
        assert site.sent <= len(BODY) + CHUNK

    def test_many_breaks_that_each_get_further_are_no_failure(self, site: Site, tmp_path: Path) -> None:
        site.script = [Answer(cut=600_000, headers={"ETag": '"1"'})]
        waits = fetch(site, tmp_path / "corpus", retries=1)
        assert len(waits) >= 6
        assert site.sent <= len(BODY) + CHUNK * len(waits)

    def test_part_of_an_earlier_process_is_resumed(self, site: Site, tmp_path: Path) -> None:
        leave_part(tmp_path / "corpus", BODY[:3_000_000], '"1"')
        site.script = [Answer(headers={"ETag": '"1"'})]
        fetch(site, tmp_path / "corpus")
        assert site.ranges == ["bytes=3000000-"]
        assert site.sent == 1_000_000

    def test_complete_part_is_only_verified(self, site: Site, tmp_path: Path) -> None:
        leave_part(tmp_path / "corpus", BODY)
        fetch(site, tmp_path / "corpus")
        assert site.sent == 0

    def test_part_of_another_file_without_a_validator_starts_anew(self, site: Site, tmp_path: Path) -> None:
        leave_part(tmp_path / "corpus", OTHER)
        fetch(site, tmp_path / "corpus")
        assert site.ranges == ["bytes=3000000-", None]

    def test_part_that_is_too_long_starts_anew(self, site: Site, tmp_path: Path) -> None:
        leave_part(tmp_path / "corpus", BODY + b"more")
        fetch(site, tmp_path / "corpus")
        assert site.ranges == ["bytes=4000004-", None]

    def test_server_without_range_starts_anew(self, site: Site, tmp_path: Path) -> None:
        site.script = [Answer(cut=2_000_000, ranges=False), Answer(ranges=False)]
        fetch(site, tmp_path / "corpus")
        assert site.ranges[1] is not None

    @pytest.mark.parametrize("if_range", [True, False])
    def test_file_changed_between_attempts_starts_anew(self, site: Site, tmp_path: Path, if_range: bool) -> None:
        new = Answer(headers={"ETag": '"2"'}, if_range=if_range)
        site.script = [Answer(body=OTHER, cut=2_000_000, headers={"ETag": '"1"'}), new]
        fetch(site, tmp_path / "corpus")
        assert site.requests[1]["If-Range"] == '"1"'
        assert site.ranges[2:] == ([] if if_range else [None])

    def test_weak_etag_is_not_used_for_resuming(self, site: Site, tmp_path: Path) -> None:
        site.script = [Answer(cut=2_000_000, headers={"ETag": 'W/"1"'}), Answer(headers={"ETag": 'W/"1"'})]
        fetch(site, tmp_path / "corpus")
        assert "If-Range" not in site.requests[1]

    def test_archive_labelled_as_gzip_encoding_is_kept_as_it_is(self, site: Site, tmp_path: Path) -> None:
        site.script = [Answer(headers={"Content-Encoding": "x-gzip"})]
        fetch(site, tmp_path / "corpus")

    def test_server_that_does_not_tell_the_length(self, site: Site, tmp_path: Path) -> None:
        site.script = [Answer(length=False)]
        seen: list[int | None] = []
        fetch(site, tmp_path / "corpus", progress=lambda _, total: seen.append(total))
        assert set(seen) == {None}

    def test_busy_server_is_asked_again_after_its_wish(self, site: Site, tmp_path: Path) -> None:
        site.script = [Answer(503, b"busy"), Answer(429, b"slow", headers={"Retry-After": "7"}), Answer()]
        assert fetch(site, tmp_path / "corpus") == [0.5, 7.0]

    def test_dead_server_gives_up(self, site: Site, tmp_path: Path) -> None:
        site.script = [Answer(503, b"busy")]
        with pytest.raises(FetchError, match=r"failed 3 times, at last: the server answered 503") as error:
            fetch(site, tmp_path / "corpus", retries=2)
        assert len(site.requests) == 3
        assert site.url in one_line(error)

    def test_refused_connection_is_one_line(self, site: Site, tmp_path: Path) -> None:
        site.server.server_close()
        with pytest.raises(FetchError, match="refused") as error:
            fetch(site, tmp_path / "corpus", retries=1)
        one_line(error)

    def test_hopeless_breaks_keep_the_part_for_later(self, site: Site, tmp_path: Path) -> None:
        site.script = [Answer(cut=1_000_000, ranges=False)]
        with pytest.raises(FetchError, match=r"IncompleteRead\(.* are kept in .*part, try again later"):
            fetch(site, tmp_path / "corpus", retries=2)
        assert (tmp_path / "corpus.part").stat().st_size > 0

    def test_not_found_fails_at_once(self, site: Site, tmp_path: Path) -> None:
        site.script = [Answer(404, b"no")]
        with pytest.raises(FetchError, match="answered 404 Not Found") as error:
            fetch(site, tmp_path / "corpus")
        assert len(site.requests) == 1
        assert site.url in one_line(error)

    def test_wrong_checksum_removes_the_part_and_keeps_the_target(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "corpus").write_bytes(b"old")
        site.script = [Answer(headers={"ETag": '"1"'})]
        with pytest.raises(FetchError) as error:
            fetch(site, tmp_path / "corpus", OTHER)
        message = one_line(error)
        assert all(text in message for text in (site.url, digest(BODY), digest(OTHER)))
        assert [file.name for file in tmp_path.iterdir()] == ["corpus"]
        assert (tmp_path / "corpus").read_bytes() == b"old"
        assert len(site.requests) == 1

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_full_disk_is_one_line(self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # The part is a link to a device without room; to keep it there it must not be begun anew.
        monkeypatch.setattr("pipeline.utils.download._begin", lambda *_: None)
        (tmp_path / "corpus.part").symlink_to("/dev/full")
        with pytest.raises(FetchError, match="No space left") as error:
            fetch(site, tmp_path / "corpus")
        assert "free some space and run again to resume" in one_line(error)
        assert (tmp_path / "corpus.part").is_symlink()
        assert len(site.requests) == 1

    def test_folder_in_the_way(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "corpus").mkdir()
        with pytest.raises(FetchError, match="is a folder"):
            fetch(site, tmp_path / "corpus")

    def test_file_address(self, tmp_path: Path) -> None:
        source = tmp_path / "a file.bin"
        source.write_bytes(BODY)
        target = tmp_path / "out" / "corpus"
        assert download(source.as_uri(), target, digest(BODY).upper()).read_bytes() == BODY
        with pytest.raises(FetchError, match="expected"):
            download(source.as_uri(), target, digest(OTHER))
        with pytest.raises(FetchError, match="no such file"):
            download(f"{source.as_uri()}x", tmp_path / "x", digest(BODY))
        assert [file.name for file in target.parent.iterdir()] == ["corpus"]

    @pytest.mark.parametrize("url", ["ftp://127.0.0.1/a", "corpus.zip", "http://", "http://127.0.0.1:port/a"])
    def test_address_that_cannot_be(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(FetchError) as error:
            download(url, tmp_path / "a", digest(BODY), retries=0)
        assert url in one_line(error)
