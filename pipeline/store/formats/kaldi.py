"""Kaldi: archives of vectors (`.ark`), and lists of their positions in archives (`.scp`)."""

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any

import kaldiio.matio
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ExchangeError, one_line
from pipeline.store.formats.columns import check_first_id, sidecar_path
from pipeline.store.formats.decimals import parse_decimals
from pipeline.store.formats.reader import VectorReader, VectorTable, open_keyed
from pipeline.utils.atomic import replacing
from pipeline.utils.shortage import raise_shortage

_BINARY = {b"\0BFV ": 4, b"\0BDV ": 8}
"""Headers of binary vectors, with the bytes of a number."""
_MATRIX = {b"\0BFM ": 4, b"\0BDM ": 8}
"""Headers of binary matrices, with the bytes of a number."""
_OFFSET_DIGITS = 18
"""Maximum number of digits of a position in an archive."""
_READABLE = (*_BINARY, *_MATRIX)
"""Headers of values that are read; others may be audio or pickles, which run code."""


def open_reader(path: Path, form: str, ids: Path | None) -> VectorReader:
    """Open an `.ark` or `.scp` file; see `registry.Format`."""
    if form == "scp":
        return open_keyed(path, lambda: (name for name, *_ in _lines(path)), lambda: _read_list(path))
    return open_keyed(path, lambda: _read_names(path), lambda: _read_archive(path))


def write_table(path: Path, form: str, vectors: VectorTable) -> None:
    """Write an archive of float32 vectors and its `.scp` beside it; raise ExchangeError if an id has white space."""
    own = (".ark", ".scp")
    ark, scp = (path if path.suffix.lower() == suffix else sidecar_path(path, suffix, own) for suffix in own)
    with ExitStack() as stack:
        listed = stack.enter_context(replacing(scp))
        archive = stack.enter_context(replacing(ark))  # appears before the list
        with archive.open("wb") as file, listed.open("w", encoding="utf-8", newline="\n") as lines:
            check_first_id(path, vectors.ids)
            head = b"\0BFV \x04" + struct.pack("<i", vectors.dim)
            for names, block in vectors.blocks():
                for name, vector in zip(names, block.astype("<f4", copy=False), strict=True):
                    if name.split() != [name]:
                        raise ExchangeError(f"{path}: id {name!r} has white space, which ends an id in Kaldi's files.")
                    file.write(name.encode() + b" ")
                    lines.write(f"{name} {ark}:{file.tell()}\n")
                    file.write(head + vector.tobytes())


def _read_names(path: Path) -> Iterator[str]:
    """Yield the ids of an archive, skipping the vectors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while (name := _read_token(file, path)) is not None:
            head = _peek_header(file, path, name)
            if head in _BINARY:
                start = file.tell()
                stop = start + _size(file, head)
                if not start + 10 <= stop <= size:
                    raise _truncation_error(path, name)
                file.seek(stop)
            else:
                _read_value(file, path, name)
            yield name


def _read_archive(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    with path.open("rb") as file:
        while (name := _read_token(file, path)) is not None:
            yield name, _read_value(file, path, name)


def _lines(path: Path) -> Iterator[tuple[str, Path, int]]:
    """Yield the id, file and offset of each line of a list; without an offset, the vector is the whole file."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                name, _, where = line.strip().replace("\t", " ", 1).partition(" ")
                archive, _, offset = where.strip().rpartition(":")
                if not offset.isdecimal():
                    archive, offset = where.strip(), "0"
                if "|" in where:
                    raise ExchangeError(f"{path}:{number}: is a command, which is not run. Copy its output to a file.")
                if not archive or len(offset) > _OFFSET_DIGITS:
                    raise ExchangeError(f"{path}:{number}: not a line `id archive.ark:offset`. Make the list again.")
                yield name, Path(archive), int(offset)
    except UnicodeDecodeError as error:
        raise ExchangeError(f"{path}: not a text in UTF-8 ({error}). Copy or make it again.") from error


def _read_list(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    current, file = None, None
    with ExitStack() as stack:
        for name, archive, offset in _lines(path):
            if archive != current or file is None:
                stack.close()
                moved = path.parent / archive  # Kaldi's paths are relative to the working folder
                found = archive if archive.is_file() else moved if moved.is_file() else path.parent / archive.name
                if not found.is_file():
                    raise ExchangeError(f"{path}: {name} is in {archive}, which is not there. Correct the list.")
                current, file = archive, stack.enter_context(closing(found.open("rb")))
            file.seek(offset)
            yield name, _read_value(file, archive, name)


def _read_token(file: IO[bytes], path: Path) -> str | None:
    try:
        token: str | None = kaldiio.matio.read_token(file)
    except UnicodeDecodeError as error:
        raise ExchangeError(f"{path}: not a Kaldi archive ({one_line(error)}). Copy or make it again.") from error
    return token.strip() if token else None


def _peek_header(file: IO[bytes], path: Path, name: str) -> bytes:
    """Return the first bytes of a value without consuming them; raise ExchangeError if it must not be read."""
    head = file.read(5)
    file.seek(-len(head), 1)
    if head not in _READABLE and not head.lstrip().startswith(b"["):
        raise ExchangeError(f"{path}: {name[:40]!r} is not a vector of floats (it begins with {head!r}).")
    return head


def _read_value(file: IO[bytes], path: Path, name: str) -> NDArray[Any]:
    head, start = _peek_header(file, path, name), file.tell()
    stop = start + _size(file, head) if head in _READABLE else None
    if stop is not None and not start < stop <= os.fstat(file.fileno()).st_size:  # before memory is taken for it
        raise _truncation_error(path, name)
    file.seek(start)
    try:
        # Kaldi writes whole numbers without a point; kaldiio takes a vector that begins with one for integers.
        vector = np.asarray(kaldiio.matio.read_kaldi(file)) if head in _READABLE else _read_text(file)
    except Exception as error:  # kaldiio's parsers raise almost anything
        raise_shortage(error, path)
        raise ExchangeError(f"{path}: {name} cannot be read ({one_line(error)}). Copy or make it again.") from error
    if stop not in (None, file.tell()):  # kaldiio returns the rest of a truncated vector
        raise _truncation_error(path, name)
    return vector


def _size(file: IO[bytes], head: bytes) -> int:
    """Return the size of a binary vector or matrix, whose header is read here; less than that if it is damaged."""
    _, _, length = struct.unpack("<5sci", file.read(10).ljust(10, b"\0"))
    if head in _BINARY:
        return 10 + int(length) * _BINARY[head]
    _, columns = struct.unpack("<ci", file.read(5).ljust(5, b"\0"))
    return 15 + int(length) * int(columns) * _MATRIX[head]


def _read_text(file: IO[bytes]) -> NDArray[Any]:
    """Read a vector `[ 1 0.5 ]`, or a matrix, whose rows are lines; raise ValueError for anything else."""
    lines = [b""]
    while b"]" not in lines[-1]:
        lines.append(file.readline())
        if not lines[-1]:
            raise ValueError("it has [ but no ]")
    content, _, rest = b"".join(lines).partition(b"]")
    if rest.strip():
        raise ValueError("something follows ] in its line")
    rows = [row.split() for row in content.decode("ascii").replace("[", " ", 1).splitlines()]
    rows = [row for row in rows if row] or [[]]
    if len({len(row) for row in rows}) > 1:
        raise ValueError("its rows have different lengths")
    numbers = parse_decimals([word for row in rows for word in row])
    return numbers if len(rows) == 1 else numbers.reshape(len(rows), -1)


def _truncation_error(path: Path, name: str) -> ExchangeError:
    return ExchangeError(f"{path}: truncated in {name}. Copy or make it again.")
