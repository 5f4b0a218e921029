"""Files from the network: resumed when broken, verified before they are named, unpacked without trusting them."""

import errno
import lzma
import os
import re
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
import urllib3

from pipeline.errors import FetchError
from pipeline.files import replacing_folder, sha256_of

Progress = Callable[[int, int | None], None]

CHUNK = 1 << 18  # bytes; at most this much is lost when a connection is reset
TIMEOUT = (15.0, 60.0)  # seconds to connect, seconds of silence
FIRST_WAIT = 0.5  # seconds before the first retry; doubles with each further one
LONGEST_WAIT = 30.0  # seconds; also bounds what a server's Retry-After may ask for
LONGEST_LINK = 4096  # bytes of a symlink's target


class _BrokenError(Exception):
    """The transfer failed in a way that may pass; `wait` is the server's wish in seconds, if it had one."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def download(
    url: str,
    target: Path,
    sha256: str,
    progress: Progress | None = None,
    retries: int = 5,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Fetch `url` to `target`, which appears only when its SHA-256 is right; an interrupted download is resumed.

    Bytes gather in `<target>.part`, with the server's ETag or Last-Modified in `<target>.part.etag`. One process at a
    time may download to one target.

    Args:
        url: http://, https:// or file:// address.
        target: the file to make; kept as it is if it already has this SHA-256, else replaced.
        sha256: 64 hexadecimal digits.
        progress: called with the bytes there are and the bytes there will be (None where the server does not say).
        retries: how often to try again in a row without a single new byte.
        sleep: waits for a number of seconds between attempts.

    Raises:
        FetchError: the file cannot be had, or is not the one promised, or there is no room for it.
    """
    expected = sha256.lower()
    if target.is_dir():
        raise FetchError(f"{target} is a folder, so {url} cannot be saved there; remove it or choose another target")
    if target.is_file() and sha256_of(target) == expected:
        return target
    part = target.with_name(f"{target.name}.part")
    with _disk_errors(f"cannot save {url} to {part}", "run again to resume"):
        target.parent.mkdir(parents=True, exist_ok=True)
        certain = _transfer(url, part, progress, retries, sleep)
        found = sha256_of(part)
        if found != expected and not certain:
            # Nothing proved that the resumed half belonged to the same file: one clean start tells.
            _discard(part)
            _transfer(url, part, progress, retries, sleep)
            found = sha256_of(part)
        if found != expected:
            _discard(part)
            raise FetchError(
                f"{url} has sha256 {found}, expected {expected}: it changed at its source or on the way; "
                "try again, or correct the checksum where it is defined"
            )
        os.replace(part, target)
        _discard(part)
    return target


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar (plain, gz, bz2, xz) as `folder`, whole or not at all; what stood there is replaced.

    Members keep their paths, a single top-level folder too. Symbolic links are made last and must lead to something
    inside, so nothing is ever written through one.

    Raises:
        FetchError: the archive is damaged or no archive, has a member that would leave `folder` or is a device, or
            there is no room for it.
    """
    with _disk_errors(f"cannot unpack {archive} to {folder}", "run again"):
        with archive.open("rb") as file:
            zipped = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
        with replacing_folder(folder) as root, _archive_errors(archive):
            links = _unpack_zip(archive, root) if zipped else _unpack_tar(archive, root)
            _make_links(archive, root, links)


# --- transfer -------------------------------------------------------------------------------------------------------


def _transfer(url: str, part: Path, progress: Progress | None, retries: int, sleep: Callable[[float], None]) -> bool:
    """Complete `part` from `url`; return whether all of it certainly is one and the same file."""
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
            # An attempt that got further than any before was worth it: only fruitless ones are counted.
            failures = 1 if size > reached else failures + 1
            reached = max(reached, size)
            if failures > retries:
                raise FetchError(
                    f"{url} failed {failures} times, at last: {error}; {size:,} bytes are kept in {part}, "
                    "try again later to resume"
                ) from None
            sleep(min(LONGEST_WAIT, max(error.wait, FIRST_WAIT * 2 ** (failures - 1))))


def _attempt(url: str, part: Path, progress: Progress | None) -> bool:
    """Append what is missing of `url` to `part`; return whether all of it certainly is one and the same file."""
    have = _size(part)
    validator = _validator_of(part) if have else None
    with _request(url, have, validator) as response:
        if response.status_code == 206 and _continues(response, have, validator):
            _receive(response, part, have, progress)
            return validator is not None
        if response.status_code == 416 and response.headers.get("Content-Range", "").strip() == f"bytes */{have}":
            return False  # all of it is there already; the checksum tells whether it is the right one
        if response.status_code == 200:  # the server ignores Range, or the file has changed: this is all of it
            _begin(response, part)
            _receive(response, part, 0, progress)
            return True
    _discard(part)
    return _attempt(url, part, progress)  # without Range now, so this is the last time


def _request(url: str, have: int, validator: str | None) -> requests.Response:
    """Ask for `url` from byte `have` on; return an open response of status 200, or if have > 0 also 206 or 416."""
    headers = {"Accept-Encoding": "identity"}  # sizes and ranges are those of the file itself
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator is not None:
            headers["If-Range"] = validator
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except (requests.ConnectionError, requests.Timeout) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise FetchError(f"{url}: the server's certificate is not trusted; check the address and clock") from None
        raise _BrokenError(_reason(error)) from None
    except (requests.RequestException, ValueError) as error:
        raise FetchError(f"cannot download {url}: {_reason(error)}; check the address") from None
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
    """Whether a 206 response starts at byte `have` of the file named by `validator`; some servers ignore If-Range."""
    same = validator is None or _strong_validator(response) in (None, validator)
    return same and response.headers.get("Content-Range", "").strip().startswith(f"bytes {have}-")


def _receive(response: requests.Response, part: Path, have: int, progress: Progress | None) -> None:
    """Append the body of `response` to `part`, which has `have` bytes."""
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdecimal() else None
    done = have
    if progress is not None:
        progress(done, total)
    with part.open("ab") as file:
        try:
            # Raw bytes: servers that label a .tar.gz as `Content-Encoding: gzip` would see it unzipped otherwise.
            while chunk := response.raw.read(CHUNK, decode_content=False):
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
        except urllib3.exceptions.HTTPError as error:
            raise _BrokenError(_reason(error)) from None
    if total is not None and done != total:
        raise _BrokenError(f"the connection ended after {done:,} of {total:,} bytes")


def _begin(response: requests.Response, part: Path) -> None:
    """Start `part` anew for the file that `response` brings."""
    _discard(part)
    validator = _strong_validator(response)
    if validator is not None:
        _validator_file(part).write_text(validator, encoding="latin-1")


def _strong_validator(response: requests.Response) -> str | None:
    """Return what names this version of the file in If-Range: the ETag unless it is weak, else Last-Modified."""
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


def _reason(error: BaseException) -> str:
    """Return the innermost reason of a network error on one line."""
    cause = error.args[0] if error.args else error
    text = str(getattr(cause, "reason", None) or (cause if isinstance(cause, str) else error))
    return " ".join(text.split()) or type(error).__name__


@contextmanager
def _disk_errors(what: str, then: str) -> Iterator[None]:
    """Turn an OSError of the file system into a FetchError: `what` failed; once there is room again, do `then`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = f"free some space and {then}" if full else "check that the path exists and its permissions"
        raise FetchError(f"{what}: {error.strerror or _reason(error)}; {remedy}") from error


# --- archives -------------------------------------------------------------------------------------------------------


@contextmanager
def _archive_errors(archive: Path) -> Iterator[None]:
    """Turn the many errors of damaged archives into a FetchError of one line."""
    try:
        yield
    except FetchError:
        raise
    except tarfile.FilterError as error:
        raise _hostile(archive, error.tarinfo.name, "leads outside or is a device") from error
    except (
        OSError,
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        RuntimeError,
        ValueError,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = _reason(error).split(": - method")[0]  # tarfile lists every compression that it has tried
        raise FetchError(
            f"{archive} is truncated, damaged or no zip or tar archive ({why}); delete it and fetch it again"
        ) from error


def _unpack_zip(archive: Path, root: Path) -> list[tuple[str, str]]:
    """Unpack files and folders to `root`; return (path, target) of the symbolic links, not yet made."""
    links = []
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            _check_name(archive, member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind == stat.S_IFLNK:
                with packed.open(member) as file:
                    links.append((member.filename, os.fsdecode(file.read(LONGEST_LINK))))
            elif kind in (0, stat.S_IFREG, stat.S_IFDIR):
                packed.extract(member, root)
            else:
                raise _hostile(archive, member.filename, "is a device")
    return links


def _unpack_tar(archive: Path, root: Path) -> list[tuple[str, str]]:
    """Unpack files, folders and hard links to `root`; return (path, target) of the symbolic links, not yet made."""
    symbolic, hard = [], []
    with tarfile.open(archive) as packed:
        for member in packed:  # in one pass: going back in a compressed archive means to unpack it twice
            _check_name(archive, member.name)
            if member.issym():
                symbolic.append((member.name, member.linkname))
            elif member.islnk():
                _check_name(archive, member.linkname)
                hard.append(member)
            else:
                packed.extract(member, root, filter="data")
        _check_tar_end(packed)
        for member in hard:
            if not (root / member.linkname).is_file():
                raise _hostile(archive, member.name, f"is a link to {member.linkname!r}, which is no file inside")
            packed.extract(member, root, filter="data")
    return symbolic


def _check_tar_end(packed: tarfile.TarFile) -> None:
    """Raise ReadError unless zeros end the archive: tarfile takes a cut or damage between two members for the end."""
    file = packed.fileobj
    assert file is not None
    # Forward only: tarfile stopped after a block, which was the first of two blocks of zeros unless it is damaged.
    if file.tell() != packed.offset + tarfile.BLOCKSIZE or any(file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError("the end of the archive is missing")
    while file.read(CHUNK):  # the decompressor compares its checksum at the very end
        pass


def _check_name(archive: Path, name: str) -> None:
    """Raise FetchError for a path that is absolute, here or elsewhere, or climbs."""
    if re.match(r"[/\\]|[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        raise _hostile(archive, name, "leads outside")


def _make_links(archive: Path, root: Path, links: list[tuple[str, str]]) -> None:
    """Make symbolic links (path, target) below `root`; each must end at something inside."""
    for name, target in links:
        path = root / name
        lexical = os.path.normpath(PurePosixPath(name).parent / target)
        if os.path.isabs(target) or lexical.split("/")[0] == "..":
            raise _hostile(archive, name, f"is a link to {target!r}, outside")
        if any(folder.is_symlink() for folder in path.parents if folder.is_relative_to(root)):
            raise _hostile(archive, name, "is reached through a link")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    inside = root.resolve()
    for name, target in links:
        # Only once all are there is it known where a chain of links ends.
        try:
            end = (root / name).resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: links in a circle
            end = None
        if end is None or not end.is_relative_to(inside):
            raise _hostile(archive, name, f"is a link to {target!r}, which is nothing inside")


def _hostile(archive: Path, name: str, what: str) -> FetchError:
    return FetchError(f"{archive}: member {name!r} {what}; nothing was unpacked, get the archive from a trusted source")
