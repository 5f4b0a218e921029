"""Parser of trial lists in any of the field's formats, gzip or not, block by block."""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.trials.formats import (
    HEADERLESS,
    NONTARGET,
    TARGET,
    TrialFormat,
    detect_format,
    split_block,
    split_line,
)
from pipeline.errors import TrialError

EXPECTED = (
    "; ".join(f"`{format.shape}`" for format in HEADERLESS)
    + "; or a table with a header such as `modelid,segmentid,targettype`"
)
"""Layouts of lines, for messages."""

_BLOCK = 1 << 22  # bytes read at a time: memory goes by this, and by 17 bytes a trial

_LINE = 1 << 24  # a model may have thousands of utterances
_EXPANDED, _RATIO = 1 << 28, 200
"""Number of bytes above which a gzip file must not expand to more than a number of times its size."""


class TrialBlock(NamedTuple):
    """Some lines of a list: their numbers [M], the ids of both sides, and the labels [M]; None: unlabeled."""

    format: TrialFormat
    lines: NDArray[np.int64]
    enrol: list[bytes]
    test: list[bytes]
    target: NDArray[np.bool_] | None


def parse_trials(path: Path) -> Iterator[TrialBlock]:
    """Yield the trials of a list, one block of lines at a time.

    Raises:
        TrialError: a malformed line, or an unreadable file.
    """
    format, first = None, 1
    for block in read_line_blocks(path):
        if format is None:
            skipped = len(block) - len(block.lstrip())
            first += block.count(b"\n", 0, skipped)
            block = block[skipped:]
            if not block:
                continue
            opening, _, rest = block.partition(b"\n")
            format = detect_format(opening)
            if format is None:
                raise TrialError(f"{path}:{first}: expected {EXPECTED}, found {_quote(opening)}.")
            if format.header:
                block, first = rest, first + 1
                if not block:
                    continue
        counts, fields = split_block(block, format)
        filled = np.flatnonzero(counts)
        wrong = filled[counts[filled] != format.width]
        if len(wrong):
            raise _malformed(path, format, block, int(wrong[0]), first)
        lines, first = filled + first, first + len(counts)
        if not len(lines):
            continue
        enrol, test = fields[format.enrol :: format.width], fields[format.test :: format.width]
        label = None
        if format.label is not None:
            label = _parse_labels(
                path, format, fields[format.label :: format.width], block, filled, first - len(counts)
            )
        yield TrialBlock(format, lines, enrol, test, label)


def _parse_labels(
    path: Path, format: TrialFormat, column: list[bytes], block: bytes, filled: NDArray[np.int64], first: int
) -> NDArray[np.bool_]:
    meaning: Mapping[bytes, int] = {
        name: int(name.lower() in TARGET) if name.lower() in format.labels else -1 for name in set(column)
    }
    label = np.fromiter(map(meaning.__getitem__, column), np.int8, len(column))
    if (label < 0).any():
        raise _malformed(path, format, block, int(filled[np.argmax(label < 0)]), first)
    return np.asarray(label == 1)


def _malformed(path: Path, format: TrialFormat, block: bytes, place: int, first: int) -> TrialError:
    """Return the error for a line that does not fit the format of the list."""
    line = block.split(b"\n", place + 1)[place]
    other = detect_format(line)
    advice = ""
    if other and other.name != format.name:
        advice = f" The first line has the {format.name} format, this one the {other.name} format; use one in a list."
    elif format.label is not None and len(split_line(line, format.delimiter)) == format.width:
        words = sorted((format.labels & (TARGET | NONTARGET)), key=lambda word: (word in NONTARGET, word))
        advice = f" A label is one of {', '.join(word.decode() for word in words)}."
    return TrialError(f"{path}:{first + place}: expected `{format.shape}`, found {_quote(line)}.{advice}")


def _quote(line: bytes) -> str:
    return repr(line.rstrip(b"\r")[:80].decode("utf-8", "backslashreplace"))


def read_line_blocks(path: Path) -> Iterator[bytes]:
    """Yield whole lines of a text file or pipe, gzip or not, some megabytes at a time, without a byte order mark.

    Raises:
        TrialError: the file is missing, a folder, or a damaged gzip file; a line is too long, or a gzip file expands
            beyond all measure.
    """
    try:
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            yield from _read_lines(path, gzip.GzipFile(fileobj=file) if packed else file, file if packed else None)
    except FileNotFoundError:
        raise TrialError(f"{path}: no such trial list. Check the path.") from None
    except IsADirectoryError:
        raise TrialError(f"{path}: is a folder, not a trial list. Give a file.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TrialError(f"{path}: a damaged gzip file ({error}). Download it again.") from error


def _read_lines(path: Path, file: BinaryIO | gzip.GzipFile, source: BinaryIO | None) -> Iterator[bytes]:
    """Yield whole lines of an open file; `source` is the packed file beneath it, if any."""
    rest, done = file.read(3).removeprefix(b"\xef\xbb\xbf"), 0
    while chunk := file.read(_BLOCK):
        done += len(chunk)
        if source and done > _EXPANDED and done > _RATIO * source.tell():
            raise TrialError(f"{path}: expands to more than {_RATIO} times its size, which no list does. Unpack it.")
        whole, end, rest = (rest + chunk).rpartition(b"\n")
        if len(rest) > _LINE:
            raise TrialError(f"{path}: has a line of more than {_LINE:,} bytes, so it is not a list. Check the path.")
        if end:
            yield whole + end
    if rest:
        yield rest
