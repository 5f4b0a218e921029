"""Input files of commands: pipes are read once, and a file that changes while it is read has no known checksum."""

import atexit
import os
import shutil
import stat
import tempfile
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.utils.atomic import sha256_of

Signature = tuple[int, int, int]
_signatures: dict[Path, Signature] = {}


def take_input(path: Path) -> Path:
    """Return a path of an input file that can be opened repeatedly, and remember its size and time of change.

    A pipe, such as `<(…)` of a shell or /dev/stdin, is read to its end into a temporary file of the same name, which is
    removed at exit.

    Raises:
        ConfigError: the path is a folder, a device or a socket.
        OSError: the path cannot be read, or the temporary file cannot be written.
    """
    mode = path.stat().st_mode
    if stat.S_ISFIFO(mode):
        folder = Path(tempfile.mkdtemp(prefix="seed-pipe-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        copy = folder / path.name
        with path.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        path = copy
    elif not stat.S_ISREG(mode):
        raise ConfigError(f"{path}: is a {'folder' if stat.S_ISDIR(mode) else 'device or a socket'}. Give a file.")
    _signatures[path] = _sign(path)
    return path


def hash_input(path: Path) -> str | None:
    """Return the SHA-256 of a file's bytes; None if it has changed since `take_input`, so what was read is unknown."""
    taken = _signatures.get(path)
    digest = sha256_of(path)
    return digest if taken is None or taken == _sign(path) else None


def _sign(path: Path) -> Signature:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns
