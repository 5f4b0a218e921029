"""Downloads that resume after interruptions and are verified before they get their name."""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
import urllib3

from pipeline.errors import FetchError
from pipeline.utils.atomic import sha256_of

Progress = Callable[[int, int | None], None]

CHUNK = 1 << 18  # bytes; at most this much is lost when a connection is reset
TIMEOUT = (15.0, 60.0)  # seconds to connect, seconds of silence
FIRST_WAIT = 0.5  # seconds before the first retry; doubles with each further one
LONGEST_WAIT = 30.0  # seconds; also the longest Retry-After of a server that is respected


class _BrokenError(Exception):
    """The transfer failed in a way that may pass; `wait` is the server's Retry-After in seconds, or 0."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def download(
    url: str,
    target: Path,
    sha256: str | None,
    progress: Progress | None = None,
    retries: int = 5,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Download `url` to `target`, which appears only if its SHA-256 is correct; resume an interrupted download.

    Bytes are collected in `<target>.part`, with the server's ETag or Last-Modified in `<target>.part.etag`. Only one
    process at a time may download to the same target. A target that already has this SHA-256 is kept; None accepts any
    content. `progress` is called with the bytes received and the total (None if the server does not report it).
    `retries` is the number of consecutive retries without a single new byte.

    Raises:
        FetchError: the file is not available or is not the expected one, or the disk is full.
    """
    expected = sha256 and sha256.lower()
    if target.is_dir():
        raise FetchError(f"{target} is a folder, so {url} cannot be saved there; remove it or choose another target")
    if target.is_file() and sha256_of(target) == expected:
        return target
    part = target.with_name(f"{target.name}.part")
    with disk_errors(f"cannot save {url} to {part}", "run again to resume"):
        target.parent.mkdir(parents=True, exist_ok=True)
        certain = _transfer(url, part, progress, retries, sleep)
        found = sha256_of(part)
        if found != expected and not certain:
            # The resumed part may belong to another version of the file: start once from scratch.
            _discard(part)
            _transfer(url, part, progress, retries, sleep)
            found = sha256_of(part)
        if expected is not None and found != expected:
            _discard(part)
            raise FetchError(
                f"{url} has sha256 {found}, expected {expected}: it changed at its source or on the way; "
                "try again, or correct the checksum where it is defined"
            )
        os.replace(part, target)
        _discard(part)
    return target


def _transfer(url: str, part: Path, progress: Progress | None, retries: int, sleep: Callable[[float], None]) -> bool:
    """Complete `part` from `url`; return True if all of it certainly comes from the same version of the file."""
    scheme = urlsplit(url).scheme.lower()
    if scheme == "file":
        _copy(url, part, progress)
        return True
    if scheme not in ("http", "https"):
        raise FetchError(f"cannot download {url}: only http://, https:// and file:// addresses are supported")
    failures, reached = 0, 0
    while True:
        try:
            return _attempt(url, part, progress)
        except _BrokenError as error:
            size = _size(part)
            # Only attempts that got no further than earlier ones are counted.
            failures = 1 if size > reached else failures + 1
            reached = max(reached, size)
            if failures > retries:
                raise FetchError(
                    f"{url} failed {failures} times, at last: {error}; {size:,} bytes are kept in {part}, "
                    "try again later to resume"
                ) from None
            sleep(min(LONGEST_WAIT, max(error.wait, FIRST_WAIT * 2 ** (failures - 1))))


def _attempt(url: str, part: Path, progress: Progress | None) -> bool:
    """Append the missing bytes of `url` to `part`; return as `_transfer` does."""
    have = _size(part)
    validator = _validator_of(part) if have else None
    with _request(url, have, validator) as response:
        if response.status_code == 206 and _continues(response, have, validator):
            _receive(response, part, have, progress)
            return validator is not None
        if response.status_code == 416 and response.headers.get("Content-Range", "").strip() == f"bytes */{have}":
            return False  # it is complete already; the checksum decides
        if response.status_code == 200:  # the server ignores Range, or the file has changed: it sends everything
            _begin(response, part)
            _receive(response, part, 0, progress)
            return True
    _discard(part)
    return _attempt(url, part, progress)  # without Range now, so this happens at most once


def _request(url: str, have: int, validator: str | None) -> requests.Response:
    """Request `url` from byte `have` on; return an open response of status 200, or if have > 0 also 206 or 416."""
    headers = {"Accept-Encoding": "identity"}  # so sizes and ranges refer to the file itself
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator is not None:
            headers["If-Range"] = validator
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except (requests.ConnectionError, requests.Timeout) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise FetchError(f"{url}: the server's certificate is not trusted; check the address and clock") from None
        raise _BrokenError(reason(error)) from None
    except (requests.RequestException, ValueError) as error:
        raise FetchError(f"cannot download {url}: {reason(error)}; check the address") from None
    status = response.status_code
    if status == 200 or (have and status in (206, 416)):
        return response
    response.close()
    answer = f"{status} {response.reason or ''}".strip()
    if status in (408, 429) or status >= 500:
        wish = response.headers.get("Retry-After", "").strip()
        raise _BrokenError(f"the server answered {answer}", float(wish) if wish.isdecimal() else 0.0)
    raise FetchError(f"{url}: the server answered {answer}; check the address and whether it asks for a login")


def _continues(response: requests.Response, have: int, validator: str | None) -> bool:
    """Return True if a 206 response continues the file of `validator` at byte `have`; some servers ignore If-Range."""
    same = validator is None or _strong_validator(response) in (None, validator)
    return same and response.headers.get("Content-Range", "").strip().startswith(f"bytes {have}-")


def _receive(response: requests.Response, part: Path, have: int, progress: Progress | None) -> None:
    """Append the body of `response` to `part`, which has `have` bytes."""
    length = response.headers.get("Content-Length", "")
    done, total = have, have + int(length) if length.isdecimal() else None
    if progress is not None:
        progress(done, total)
    with part.open("ab") as file:
        try:
            # Raw bytes, because some servers label a .tar.gz as `Content-Encoding: gzip`.
            while chunk := response.raw.read(CHUNK, decode_content=False):
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
        except urllib3.exceptions.HTTPError as error:
            raise _BrokenError(reason(error)) from None
    if total is not None and done != total:
        raise _BrokenError(f"the connection ended after {done:,} of {total:,} bytes")


def _begin(response: requests.Response, part: Path) -> None:
    """Discard `part` and note the validator of the file that `response` brings."""
    _discard(part)
    if (validator := _strong_validator(response)) is not None:
        _validator_file(part).write_text(validator, encoding="latin-1")


def _strong_validator(response: requests.Response) -> str | None:
    """Return the name of this version of the file for If-Range: the ETag unless it is weak, else Last-Modified."""
    etag = response.headers.get("ETag", "").strip()
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified", "").strip() or None


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _validator_of(part: Path) -> str | None:
    file = _validator_file(part)
    text = file.read_text(encoding="latin-1").strip() if file.is_file() else ""
    return text if text.isprintable() and text else None


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_file(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _copy(url: str, part: Path, progress: Progress | None) -> None:
    """Copy the file of a file:// address to `part`."""
    address = urlsplit(url)
    source = Path(url2pathname(address.path))
    if address.netloc not in ("", "localhost") or not source.is_file():
        raise FetchError(f"{url}: no such file; write file:// and the absolute path of a file on this computer")
    _discard(part)
    shutil.copyfile(source, part)
    if progress is not None:
        progress(_size(part), _size(part))


def reason(error: BaseException) -> str:
    """Return the innermost reason of a network error on one line."""
    cause = error.args[0] if error.args else error
    text = str(getattr(cause, "reason", None) or (cause if isinstance(cause, str) else error))
    return " ".join(text.split()) or type(error).__name__


@contextmanager
def disk_errors(what: str, then: str) -> Iterator[None]:
    """Turn an OSError of the file system into a FetchError: `what` failed; `then` is the advice once there is room."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = f"free some space and {then}" if full else "check that the path exists and its permissions"
        raise FetchError(f"{what}: {error.strerror or reason(error)}; {remedy}") from error
