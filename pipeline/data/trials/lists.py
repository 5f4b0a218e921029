"""Trial lists in files: any of the field's forms, gzip or not, read block by block into row numbers."""

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import BinaryIO

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
from pipeline.data.trials.missing_ids import MissingIds
from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError

_BLOCK = 1 << 22  # bytes read at a time: memory goes by this, and by 17 bytes a trial
_TABLE = "modelid,segmentid,targettype"
_FORMS = "; ".join(f"`{form.shape}`" for form in HEADERLESS) + f"; or a table with a header such as `{_TABLE}`"


@dataclass(frozen=True)
class TrialList:
    """A list as read: its trials, the form it is written in, and how many trials repeat an earlier one."""

    trials: Trials
    format: str
    duplicates: int
    contradictions: int
    """Pairs that are listed as target and as non-target."""

    @property
    def counts(self) -> "TrialCounts":
        """How many trials there are."""
        target = self.trials.target
        return TrialCounts(len(self.trials), None if target is None else int(target.sum()))


@dataclass(frozen=True)
class TrialCounts:
    """How many trials a list holds; of an unlabeled one no `targets` are known."""

    trials: int
    targets: int | None


def read_list(path: Path, enrol: Sequence[str], test: Sequence[str], where: str = "in the store") -> TrialList:
    """Read a trial list against the ids of both sides, every line of it before anything is scored.

    Args:
        path: lines `1|0 enrolment test` (VoxCeleb) or `enrolment test target|nontarget` (Kaldi), a table with a header
            of `modelid,segmentid,targettype` or the like (NIST; comma, semicolon or tab), or `enrolment test` without
            labels.
        enrol: ids of the enrolment side in row order: utterances, or models.
        test: utterance ids of the test side in row order.
        where: these ids are from, for messages.

    Raises:
        TrialError: a malformed line, a label of another form, or one class only.
        UnknownUtteranceError: ids that are not among those of its side.
    """
    rows: tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]] = ([], [])
    labels: list[NDArray[np.bool_]] = []
    form = ""
    for name, found, label in read_rows(path, enrol, test, where):
        form = name
        for parts, part in zip(rows, found, strict=True):
            parts.append(part)
        if label is not None:
            labels.append(label)
    left, right = (np.concatenate(parts, dtype=np.int64) for parts in rows)
    target = np.concatenate(labels) if labels else None
    if target is not None and (target.all() or not target.any()):
        raise TrialError(f"{path}: {len(target)} trials of one class only; error rates need targets and non-targets.")
    return TrialList(Trials(left, right, target), form, *count_repeats(encode_trials(left, right, target, len(test))))


def read_rows(
    path: Path, enrol: Sequence[str], test: Sequence[str], where: str
) -> Iterator[tuple[str, tuple[NDArray[np.int32], NDArray[np.int32]], NDArray[np.bool_] | None]]:
    """Yield the form of a list, and by block of lines the rows of both sides and the labels, see `read_list`.

    After an unknown id nothing more is yielded, but the whole list is read: the error counts them.

    Raises:
        TrialError: a malformed line, a label of another form, or no trials.
        UnknownUtteranceError: ids that are not among those of its side.
    """
    sides = tuple({name.encode(): row for row, name in enumerate(names)} for names in (enrol, test))
    unknown = MissingIds(path, "trials", where)
    empty, known_all = True, True
    for form, lines, columns, label in parse_trials(path):
        empty = False
        left, right = (
            np.fromiter(map(known.get, column, repeat(-1)), np.int32, len(column))
            for known, column in zip(sides, columns, strict=True)
        )
        unknown.note(lines, list(zip(columns, (left, right), strict=True)))
        known_all = known_all and min(left.min(), right.min()) >= 0
        if known_all:
            yield form.name, (left, right), label
    unknown.check(enrol, test)
    if empty:
        raise TrialError(f"{path}: lists no trials. Lines are {_FORMS}.")


def count_trials(path: Path) -> TrialCounts:
    """Count the trials of a list without looking up its ids.

    Raises:
        TrialError: a malformed line.
    """
    trials, targets, labeled = 0, 0, True
    for _, lines, _, label in parse_trials(path):
        trials += len(lines)
        targets += 0 if label is None else int(label.sum())
        labeled = label is not None
    return TrialCounts(trials, targets if labeled else None)


def read_pairs(path: Path) -> Iterator[tuple[list[bytes], list[bytes], NDArray[np.bool_] | None]]:
    """Yield the enrolment ids, test ids and labels of a list, a block of lines at a time.

    Raises:
        TrialError: a malformed line.
    """
    for _, _, (enrol, test), label in parse_trials(path):
        yield enrol, test, label


def parse_trials(
    path: Path,
) -> Iterator[tuple[TrialFormat, NDArray[np.int64], tuple[list[bytes], list[bytes]], NDArray[np.bool_] | None]]:
    """Yield the form, and by block the line numbers, both columns of ids and the labels."""
    form, first = None, 1
    for block in read_line_blocks(path):
        if form is None:
            skipped = len(block) - len(block.lstrip())
            first += block.count(b"\n", 0, skipped)
            block = block[skipped:]
            if not block:
                continue
            opening, _, rest = block.partition(b"\n")
            form = detect_format(opening)
            if form is None:
                raise TrialError(f"{path}:{first}: expected {_FORMS}, found {_shown(opening)}.")
            if form.header:
                block, first = rest, first + 1
                if not block:
                    continue
        counts, fields = split_block(block, form)
        filled = np.flatnonzero(counts)
        wrong = filled[counts[filled] != form.width]
        if len(wrong):
            raise _malformed(path, form, block, int(wrong[0]), first)
        lines, first = filled + first, first + len(counts)
        if not len(lines):
            continue
        enrol, test = fields[form.enrol :: form.width], fields[form.test :: form.width]
        label = None
        if form.label is not None:
            label = _labels(path, form, fields[form.label :: form.width], block, filled, first - len(counts))
        yield form, lines, (enrol, test), label


def _labels(
    path: Path, form: TrialFormat, column: list[bytes], block: bytes, filled: NDArray[np.int64], first: int
) -> NDArray[np.bool_]:
    meaning: Mapping[bytes, int] = {
        name: int(name.lower() in TARGET) if name.lower() in form.labels else -1 for name in set(column)
    }
    label = np.fromiter(map(meaning.__getitem__, column), np.int8, len(column))
    if (label < 0).any():
        raise _malformed(path, form, block, int(filled[np.argmax(label < 0)]), first)
    return np.asarray(label == 1)


def _malformed(path: Path, form: TrialFormat, block: bytes, place: int, first: int) -> TrialError:
    """Return the error of a line that is not of the form that the first one has."""
    line = block.split(b"\n", place + 1)[place]
    other = detect_format(line)
    mixed = ""
    if other and other.name != form.name:
        mixed = f" The first line is of the {form.name} form, this one of the {other.name} form; a list has one."
    elif form.label is not None and len(split_line(line, form.delimiter)) == form.width:
        words = sorted((form.labels & (TARGET | NONTARGET)), key=lambda word: (word in NONTARGET, word))
        mixed = f" A label is one of {', '.join(word.decode() for word in words)}."
    return TrialError(f"{path}:{first + place}: expected `{form.shape}`, found {_shown(line)}.{mixed}")


def _shown(line: bytes) -> str:
    return repr(line.rstrip(b"\r")[:80].decode("utf-8", "backslashreplace"))


def read_line_blocks(path: Path) -> Iterator[bytes]:
    """Yield the whole lines of a text file, gzip or not, some megabytes at a time; a byte order mark is left out.

    Raises:
        TrialError: it is missing, a folder, or a damaged gzip file.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            yield from _lines(gzip.GzipFile(fileobj=file) if packed else file)
    except FileNotFoundError:
        raise TrialError(f"{path}: no such trial list.") from None
    except IsADirectoryError:
        raise TrialError(f"{path}: is a folder, not a trial list.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TrialError(f"{path}: a damaged gzip file ({error}). Get it again.") from error


def _lines(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    left = file.read(3).removeprefix(b"\xef\xbb\xbf")
    while part := file.read(_BLOCK):
        whole, end, rest = (left + part).rpartition(b"\n")
        if end:
            yield whole + end
        left = rest
    if left:
        yield left


def encode_trials(
    enrol: NDArray[np.integer], test: NDArray[np.integer], target: NDArray[np.bool_] | None, tests: int
) -> NDArray[np.int64]:
    """Return a number [M] for each trial's pair and label; `tests` is the size of the test side."""
    codes = enrol.astype(np.int64)
    codes *= tests
    codes += test
    codes *= 2
    if target is not None:
        codes += target
    return codes


def count_repeats(codes: NDArray[np.int64]) -> tuple[int, int]:
    """Count trials that repeat an earlier one, and pairs with both labels; `codes` [M] are lost."""
    codes.sort()  # many times faster than np.unique
    labeled = codes[1:] != codes[:-1]
    codes >>= 1
    pairs = codes[1:] != codes[:-1]
    return int((~pairs).sum()), int((labeled & ~pairs).sum())


def find_lists(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by name, without their endings."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return {path.name.split(".")[0]: path for path in paths}


def read_lists(paths: Mapping[str, Path], ids: Sequence[str]) -> dict[str, TrialList]:
    """Read lists by name against the utterances of stores.

    Raises:
        TrialError: a list is malformed, has no labels, or names unknown utterances.
    """
    lists = {name: read_list(path, ids, ids) for name, path in paths.items()}
    for name, found in lists.items():
        if found.trials.target is None:
            raise TrialError(f"{paths[name]}: the list has no labels, and error rates need them. Take it out there.")
    return lists


def keep_usable(name: str, trials: Trials, usable: NDArray[np.bool_]) -> Trials:
    """Return the trials of a list of which neither utterance failed, given which did not [N].

    Raises:
        TrialError: no targets or no non-targets are left.
    """
    kept = trials.keep(usable[trials.enrol] & usable[trials.test])
    if kept.target is None or kept.target.all() or not kept.target.any():
        raise TrialError(
            f"trial list {name}: no targets or no non-targets are left, for their utterances failed. The lists of"
            " failures beside the stores say why."
        )
    return kept
