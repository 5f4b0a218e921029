"""Matching of files by id: the rows of each file that hold an utterance's vectors. Only ids are kept in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ExchangeError
from pipeline.store.formats.problems import DUPLICATES, EXAMPLES, UNMATCHED, ProblemLog
from pipeline.store.formats.reader import VectorReader, encoding_error
from pipeline.utils.similar_ids import suggest_fix

RowNumbers = NDArray[np.int64]


@dataclass(frozen=True)
class MatchedRows:
    """Utterances and the rows of their vectors."""

    utterances: Sequence[str]
    where: list[RowNumbers]
    """Rows [utterance, draw] of each file."""


def match_ids(sources: Sequence[VectorReader], draws: int, problems: ProblemLog) -> MatchedRows:
    """Find each utterance of the first file in all others, where each id has `draws` vectors in order.

    Skipped problems leave incomplete utterances out, and use the first vectors of an id that has too many. Raise
    ExchangeError if rows are unmatched or ids repeated, and that problem is not skipped.
    """
    clean = sources[0]
    names, numbers = _number_ids(clean)
    if "" in names:
        first = int(np.argmax(numbers == names.index("")))
        raise ExchangeError(f"{clean.path}: the id of vector {first + 1:,} is empty. Give every vector one.")
    where = [_rows_by_draw(numbers, clean, names, draws, problems)]
    index: dict[str, int] = {}
    for source in sources[1:]:
        unknown: list[str] = []
        found = _look_up_ids(source, names, index, unknown)
        outside = int((found < 0).sum())
        hint = suggest_fix(unknown, names, source.path, clean.path) if outside else None
        what = f"vectors of {source.path} have ids that are not in {clean.path}"
        problems.add(UNMATCHED, outside, what, unknown, hint)
        where.append(_rows_by_draw(found, source, names, draws, problems))
    complete = np.ones(len(names), dtype=bool)
    for source, rows in zip(sources, where, strict=True):
        here = (rows >= 0).all(axis=1)
        what = "have no vector in" if draws == 1 else f"have fewer than {draws} vectors in"
        missing = np.flatnonzero(~here)
        problems.add(UNMATCHED, len(missing), f"ids {what} {source.path}", (names[row] for row in missing))
        complete &= here
    problems.check()
    index.clear()
    if not complete.any():
        raise ExchangeError(f"{clean.path}: no id has a vector in every file. Check that ids are spelt alike.")
    if complete.all():
        return MatchedRows(names, where)
    return MatchedRows([names[row] for row in np.flatnonzero(complete)], [rows[complete] for rows in where])


def _ids(source: VectorReader) -> Iterator[list[str]]:
    """Yield the ids of a file, checked to be text that a store can hold."""
    for names in source.ids():
        try:
            "".join(names).encode()
        except UnicodeEncodeError as error:  # lone surrogates, as Python decodes bytes that are not UTF-8
            raise encoding_error(source.path, error) from error
        yield names


def _number_ids(source: VectorReader) -> tuple[list[str], RowNumbers]:
    """Return the distinct ids of a file, and the number of each row's id."""
    names, hashes = list[str](), [np.empty(0, dtype=np.int64)]
    for some in _ids(source):
        names += some
        hashes.append(np.fromiter(map(hash, some), dtype=np.int64, count=len(some)))
    values = np.concatenate(hashes)
    values.sort()
    if (values[1:] != values[:-1]).all():  # ids are usually distinct, and this check is three times as fast
        return names, np.arange(len(names))
    index: dict[str, int] = {}
    numbers = np.fromiter((index.setdefault(name, len(index)) for name in names), dtype=np.int64, count=len(names))
    return list(index), numbers


def _look_up_ids(source: VectorReader, names: Sequence[str], index: dict[str, int], unknown: list[str]) -> RowNumbers:
    """Return the number of each id, or -1; add the first unknown ids to `unknown`; fill `index` only if needed."""
    parts, start = [np.empty(0, dtype=np.int64)], 0
    for some in _ids(source):
        stop = start + len(some)
        if names[start:stop] == some:
            rows = np.arange(start, stop)
        else:
            if not index:
                index.update(zip(names, range(len(names)), strict=True))
            rows = np.fromiter(map(index.get, some, repeat(-1)), dtype=np.int64, count=len(some))
        unknown += [some[row] for row in np.flatnonzero(rows < 0)[: EXAMPLES - len(unknown)]]
        parts.append(rows)
        start = stop
    return np.concatenate(parts)


def _rows_by_draw(
    utterance: RowNumbers, source: VectorReader, names: Sequence[str], draws: int, problems: ProblemLog
) -> RowNumbers:
    """Return the rows [utterance, draw] of a file, or -1, given each row's utterance (-1 for none)."""
    where = np.full((len(names), draws), -1, dtype=np.int64)
    if draws == 1 and (utterance[1:] > utterance[:-1]).all():  # the same order, which needs no sorting
        where[utterance[utterance >= 0], 0] = np.flatnonzero(utterance >= 0)
        return where
    order = np.argsort(utterance, kind="stable")
    ordered = utterance[order]
    known = int(np.searchsorted(ordered, 0))
    order, ordered = order[known:], ordered[known:]
    draw = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)  # earlier rows with the same id
    kept = draw < draws
    where[ordered[kept], draw[kept]] = order[kept]
    repeated = np.sort(order[~kept])
    what = f"vectors of {source.path} repeat an id" + (f" more than {draws} times" if draws > 1 else "")
    problems.add(DUPLICATES, len(repeated), what, dict.fromkeys(names[utterance[row]] for row in repeated[:1000]))
    return where
