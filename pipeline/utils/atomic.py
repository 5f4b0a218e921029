"""Atomic writes: files and folders are written beside the target and then renamed."""

import csv
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.errors import OutputError
from pipeline.utils.paths import Place, remote_kind, upload_folder, uploading


@contextmanager
def replacing(path: Place, by: Place | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; rename it into place on success, remove it on failure.

    A remote file is written to a local temporary folder first and uploaded as one object. `by` is another temporary
    path, on the same file system, where a file left by a kill does no harm.

    Raises:
        OutputError: `path` is a folder, device or pipe.
        PlaceError: a remote place does not answer or refuses.
    """
    check_output(path)
    if not isinstance(path, Path):
        with uploading(path) as temporary:
            yield temporary
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(by, Path):
        temporary = by
    else:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files private, but others may read results
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_output(path: Place) -> None:
    """Raise OutputError if writing a file to `path` would destroy something other than a file."""
    if isinstance(path, Path):
        folder, other = path.is_dir(), path.exists() and not path.is_file()
    else:
        folder = other = remote_kind(path) == "directory"
    if other:
        what = "a folder" if folder else "no regular file"
        raise OutputError(f"{path}: is {what} and will not be replaced. Give another path for the output.")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` to fill; swap it in for `path` on success, remove it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    os.chmod(temporary, 0o777 & ~_umask())
    try:
        yield temporary
        move_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_folder(path: Place) -> Iterator[Path]:
    """Yield an empty local folder to fill; it appears at `path`, which must not exist, on success."""
    if isinstance(path, Path):
        with replacing_folder(path) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
        upload_folder(Path(name), path)


def move_folder(source: Path, target: Path, aside: Path | None = None) -> None:
    """Rename folder `source` to `target` (same file system), and remove an older `target`.

    Until it is removed, the older target lies in the folder `aside`, where leftovers of a kill do no harm, or else
    beside `target`.
    """
    if target.is_symlink() or target.is_file():
        target.unlink()
    if target.exists():
        old = Path(tempfile.mkdtemp(dir=aside or target.parent, prefix=f".{target.name}.old."))
        os.replace(target, old / "old")
        os.replace(source, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)


def link_folder(source: Path, target: Path) -> None:
    """Replace folder `target` by hard links to all files of `source` (same file system), completely or not at all.

    Raises:
        OSError: the file system has no hard links.
    """
    unfinished = target.with_name(f"{target.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished, copy_function=os.link)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(unfinished, target)


def lock_folder(folder: Path) -> IO[str]:
    """Create and lock a folder; return its open lock file, which is locked until it is closed or the process ends.

    Raises:
        OutputError: another process holds the lock.
    """
    path = folder / "lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a")
        except FileNotFoundError:  # another process has just removed the folder
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            message = f"{folder}: another process is writing there. Wait for it, or give another --out."
            raise OutputError(message) from error
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Place, content: Any) -> None:
    """Write a JSON file atomically; negative zeros are written as zeros."""
    write_text(path, json.dumps(_drop_zero_signs(content), indent=2, allow_nan=False) + "\n")


def _drop_zero_signs(content: Any) -> Any:
    """Return JSON content with 0 in place of each negative zero."""
    if isinstance(content, Mapping):
        return {key: _drop_zero_signs(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_drop_zero_signs(value) for value in content]
    return content + 0.0 if isinstance(content, float) else content


def write_text(path: Place, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_table(path: Place, columns: Sequence[str], rows: Iterable[Sequence[object]], by: Place | None = None) -> None:
    """Write a header and rows as a CSV file atomically, see `replacing`."""
    with replacing(path, by) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
