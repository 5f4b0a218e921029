"""Local paths and URLs such as s3://bucket/folder/test.zarr (docs/remote.md).

A remote place is a `UPath` of the extra `remote`, which local use never imports. Object stores have no rename and no
lock: whatever must appear complete is one object, or a folder whose `zarr.json`, which readers look for, comes last.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Union
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigError, PlaceError, one_line
from pipeline.utils.shortage import SCARCE, raise_shortage

if TYPE_CHECKING:
    from upath import UPath

Place = Union[Path, "UPath"]
"""A local path or a remote place."""

ENTRY = "zarr.json"
"""The file that makes a folder a store."""

_REFUSED = ("*", "?", "[", "::")
_CREDENTIALS = ("Credential", "Token", "Profile", "Unauthorized")


def is_url(text: str) -> bool:
    """Return True if a command-line argument is a URL rather than a local path."""
    return "://" in text


def to_place(text: str) -> Place:
    """Return the place that a command-line argument names, without contacting a server.

    Raises:
        ConfigError: the package that reads such URLs is not installed, or does not exist.
    """
    if not is_url(text):
        return Path(text)
    url = urlsplit(text)
    if url.scheme == "file":
        return Path(unquote(url.path))
    if any(letters in text for letters in _REFUSED):  # fsspec would take them for patterns, even when it deletes
        raise ConfigError(f"{text}: a URL must be without {' '.join(_REFUSED)}. Use another name.")
    try:
        from fsspec import get_filesystem_class
        from upath import UPath

        get_filesystem_class(url.scheme)
        return UPath(text, protocol=url.scheme, use_listings_cache=False)  # other programs may write there
    except ImportError as error:
        extra = "" if url.scheme == "s3" else f" ({one_line(error)})"
        raise ConfigError(f"{text}: remote places need pip install '.[remote]' (docs/install.md){extra}.") from None
    except ValueError as error:
        raise ConfigError(f"{text}: is not a URL that can be read or written ({one_line(error)}).") from None


def place_error(where: object, error: Exception) -> PlaceError:
    """Return the error for a failed request: where it failed, why, and what to do about it."""
    if isinstance(error, PermissionError) or any(word in type(error).__name__ for word in _CREDENTIALS):
        remedy = "Check the credentials in the environment (for S3: AWS_ACCESS_KEY_ID and the like), and their rights."
    elif isinstance(error, FileNotFoundError):
        remedy = "Check the name of the bucket, and create it if it does not exist."
    else:
        remedy = "Check the network and the endpoint (for S3: AWS_ENDPOINT_URL)."
    return PlaceError(
        f"{where}: a request failed ({one_line(error)}). {remedy} Then run the command again; finished work is kept."
    )


@contextmanager
def remote_errors(where: object) -> Iterator[None]:
    """Turn all errors of a remote file system into PlaceError."""
    try:
        yield
    except PlaceError:
        raise
    except Exception as error:  # every file system has its own errors
        raise_shortage(error, where, SCARCE)
        raise place_error(where, error) from error


def exists(file: Place) -> bool:
    """Return True if a file exists."""
    return file.is_file() if isinstance(file, Path) else remote_kind(file) == "file"


def remote_kind(remote: "UPath") -> str | None:
    """Return "file" or "directory", or None if nothing is there."""
    with remote_errors(remote), suppress(FileNotFoundError):
        return str(remote.fs.info(remote.path)["type"])  # isfile() would return False for any error
    return None


def list_names(folder: Place) -> set[str]:
    """Return the names in a folder; a file's own name; or nothing if nothing is there."""
    if isinstance(folder, Path):
        return {path.name for path in (folder.iterdir() if folder.is_dir() else [folder] * folder.exists())}
    with remote_errors(folder), suppress(FileNotFoundError):
        return {name.rstrip("/").rpartition("/")[2] for name in folder.fs.ls(folder.path, detail=False)}
    return set()


def write_bytes(file: Place, content: bytes) -> None:
    """Write a small file."""
    if isinstance(file, Path):
        file.write_bytes(content)
        return
    with remote_errors(file):
        file.fs.pipe_file(file.path, content)


def read_bytes(file: Place) -> bytes:
    """Return the content of a file; raise as `local_copy` does."""
    with local_copy(file) as local:
        return local.read_bytes()


@contextmanager
def local_copy(file: Place) -> Iterator[Path]:
    """Yield a local path of a file: its own, or that of a temporary copy.

    Raises:
        FileNotFoundError: the file does not exist.
        PlaceError: a remote place does not answer or refuses.
    """
    if isinstance(file, Path):
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / file.name
        try:
            file.fs.get_file(file.path, str(local))
        except FileNotFoundError:
            raise
        except Exception as error:
            raise_shortage(error, file, SCARCE)
            raise place_error(file, error) from error
        yield local


@contextmanager
def uploading(file: "UPath") -> Iterator[Path]:
    """Yield a local path to write to; upload it as one object on success."""
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / file.name
        yield local
        with remote_errors(file):
            file.fs.put_file(str(local), file.path)


def upload_folder(source: Path, target: "UPath") -> None:
    """Upload a local folder, its ENTRY last."""
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    with remote_errors(target):
        for part in _entry_last(names):
            target.fs.put([str(source / name) for name in part], [f"{target.path}/{name}" for name in part])


def replace_folder(source: "UPath", target: "UPath") -> None:
    """Copy a folder within a remote place, its ENTRY last, after removing an older `target`, ENTRY first."""
    remove_folder(target)
    with remote_errors(target):
        names = sorted(path.removeprefix(f"{source.path}/") for path in source.fs.find(source.path))
        for part in _entry_last(names):
            source.fs.copy([f"{source.path}/{name}" for name in part], [f"{target.path}/{name}" for name in part])


def remove_file(file: Place) -> None:
    """Remove an existing file."""
    if isinstance(file, Path):
        file.unlink()
        return
    with remote_errors(file):
        file.fs.rm_file(file.path)


def remove_folder(folder: Place) -> None:
    """Remove everything below a folder, which need not exist, its ENTRY first."""
    if isinstance(folder, Path):
        if not folder.is_symlink():  # of which nothing is removed
            with suppress(OSError):
                (folder / ENTRY).unlink()
        shutil.rmtree(folder, ignore_errors=True)
        return
    with remote_errors(folder):
        with suppress(FileNotFoundError):
            folder.fs.rm_file(f"{folder.path}/{ENTRY}")
        with suppress(FileNotFoundError):
            folder.fs.rm(folder.path, recursive=True)


def remove_path(path: Place) -> None:
    """Remove a file or a folder, which need not exist."""
    if isinstance(path, Path) and not path.is_dir():
        path.unlink(missing_ok=True)
    elif isinstance(path, Path):
        shutil.rmtree(path)
    else:
        with remote_errors(path), suppress(FileNotFoundError):
            path.fs.rm(path.path, recursive=True)


def _entry_last(names: list[str]) -> Iterator[list[str]]:
    yield [name for name in names if name != ENTRY]
    yield [name for name in names if name == ENTRY]
