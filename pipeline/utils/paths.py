"""Where inputs and outputs lie: a local path, or a URL such as s3://bucket/folder/test.zarr (docs/remote.md).

A remote place is a `UPath` of the extra `remote`, which local use never imports. Object stores know no rename and no
lock: what is to appear whole is one object, or a folder whose `zarr.json`, which readers ask for, comes last.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Union
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigError, PlaceError, one_line

if TYPE_CHECKING:
    from upath import UPath

Place = Union[Path, "UPath"]

ENTRY = "zarr.json"
"""Without it, a folder is no store."""

_REFUSED = ("*", "?", "[", "::")
_CREDENTIALS = ("Credential", "Token", "Profile", "Unauthorized")


def is_url(text: str) -> bool:
    """Whether a command-line argument names a remote place rather than a local path."""
    return "://" in text


def to_place(text: str) -> Place:
    """Return the place that a command-line argument names; nothing is asked of a server yet.

    Raises:
        ConfigError: the package that reads such URLs is not installed, or there is none.
    """
    if not is_url(text):
        return Path(text)
    url = urlsplit(text)
    if url.scheme == "file":
        return Path(unquote(url.path))
    if any(letters in text for letters in _REFUSED):  # would be taken for patterns, also where things are deleted
        raise ConfigError(f"{text}: a URL must be without {' '.join(_REFUSED)}. Take another name.")
    try:
        from fsspec import get_filesystem_class
        from upath import UPath

        get_filesystem_class(url.scheme)
        return UPath(text, protocol=url.scheme, use_listings_cache=False)  # others write there as well
    except ImportError as error:
        extra = "" if url.scheme == "s3" else f" ({one_line(error)})"
        raise ConfigError(f"{text}: remote places need pip install 'speaker-seed[remote]'{extra}.") from None
    except ValueError as error:
        raise ConfigError(f"{text}: is no URL that can be read or written ({one_line(error)}).") from None


def place_error(where: object, error: Exception) -> PlaceError:
    """Return what to tell of a failed request: where, why, and what to do about it."""
    if isinstance(error, PermissionError) or any(word in type(error).__name__ for word in _CREDENTIALS):
        remedy = "Check the credentials in the environment (for S3: AWS_ACCESS_KEY_ID and the like), and their rights."
    elif isinstance(error, FileNotFoundError):
        remedy = "Check the name of the bucket, and make the bucket if there is none."
    else:
        remedy = "Check the network and the endpoint (for S3: AWS_ENDPOINT_URL)."
    return PlaceError(
        f"{where}: a request failed ({one_line(error)}). {remedy} Then run the command again; finished work is kept."
    )


@contextmanager
def reached(where: object) -> Iterator[None]:
    """Turn whatever a remote file system raises into PlaceError."""
    try:
        yield
    except PlaceError:
        raise
    except Exception as error:  # every file system has errors of its own
        raise place_error(where, error) from error


def exists(file: Place) -> bool:
    """Whether a file is there."""
    return file.is_file() if isinstance(file, Path) else kind(file) == "file"


def kind(remote: "UPath") -> str | None:
    """Return "file" or "directory", or None where nothing is."""
    with reached(remote), suppress(FileNotFoundError):
        return str(remote.fs.info(remote.path)["type"])  # its isfile() would take any error for a no
    return None


def children(folder: Place) -> set[str]:
    """Return the names in a folder; its own name if it is a file, and nothing if nothing is there."""
    if isinstance(folder, Path):
        found = folder.iterdir() if folder.is_dir() else [folder] * folder.exists()
        return {path.name for path in found}
    with reached(folder), suppress(FileNotFoundError):
        return {name.rstrip("/").rpartition("/")[2] for name in folder.fs.ls(folder.path, detail=False)}
    return set()


def write_bytes(file: Place, content: bytes) -> None:
    """Write a small file."""
    if isinstance(file, Path):
        file.write_bytes(content)
        return
    with reached(file):
        file.fs.pipe_file(file.path, content)


def read_bytes(file: Place) -> bytes:
    """Return the content of a file.

    Raises:
        FileNotFoundError: there is none.
        PlaceError: a remote place does not answer, or refuses.
    """
    with fetched(file) as local:
        return local.read_bytes()


@contextmanager
def fetched(file: Place) -> Iterator[Path]:
    """Yield a local path of a file: its own, or that of a copy which is then removed.

    Raises:
        FileNotFoundError: there is no such file.
        PlaceError: a remote place does not answer, or refuses.
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
            raise place_error(file, error) from error
        yield local


@contextmanager
def uploading(file: "UPath") -> Iterator[Path]:
    """Yield a local path to write to; upload it as one object on success."""
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / file.name
        yield local
        with reached(file):
            file.fs.put_file(str(local), file.path)


def upload_folder(source: Path, target: "UPath") -> None:
    """Upload a local folder, its ENTRY last."""
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    with reached(target):
        for some in _entry_last(names):
            target.fs.put([str(source / name) for name in some], [f"{target.path}/{name}" for name in some])


def replace_folder(source: "UPath", target: "UPath") -> None:
    """Copy a folder within a remote place, its ENTRY last, after taking away what stood at `target`, ENTRY first."""
    remove_folder(target)
    with reached(target):
        names = sorted(path.removeprefix(f"{source.path}/") for path in source.fs.find(source.path))
        for some in _entry_last(names):
            source.fs.copy([f"{source.path}/{name}" for name in some], [f"{target.path}/{name}" for name in some])


def remove_file(file: Place) -> None:
    """Remove a file that is there."""
    if isinstance(file, Path):
        file.unlink()
        return
    with reached(file):
        file.fs.rm_file(file.path)


def remove_folder(folder: Place) -> None:
    """Remove everything below a folder, its ENTRY first; nothing need be there."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with reached(folder):
        with suppress(FileNotFoundError):
            folder.fs.rm_file(f"{folder.path}/{ENTRY}")
        with suppress(FileNotFoundError):
            folder.fs.rm(folder.path, recursive=True)


def _entry_last(names: list[str]) -> Iterator[list[str]]:
    yield [name for name in names if name != ENTRY]
    yield [name for name in names if name == ENTRY]
