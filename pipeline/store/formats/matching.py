"""Which row of each file an utterance's vectors are, by id; ids are held in memory, vectors are not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ExchangeError
from pipeline.store.formats.problems import DUPLICATES, EXAMPLES, UNMATCHED, ProblemLog
from pipeline.store.formats.reader import VectorReader, not_text

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Matched:
    """Utterances and where their vectors are."""

    utterances: Sequence[str]
    where: list[Rows]
    """Of each file: rows [utterance, draw]."""


def match(sources: Sequence[VectorReader], draws: int, problems: ProblemLog) -> Matched:
    """Find each utterance of the first file in all others; its `draws` vectors have its id as often, in turn.

    Raises:
        ExchangeError: rows are unmatched or ids repeated, unless that is put up with: then utterances that are not
            complete are left out, and of an id's vectors the first are taken.
    """
    clean = sources[0]
    names, numbers = _numbered(clean)
    if "" in names:
        raise ExchangeError(f"{clean.path}: an id is empty. Give every vector one.")
    where = [_slotted(numbers, clean, names, draws, problems)]
    index: dict[str, int] = {}
    for source in sources[1:]:
        unknown: list[str] = []
        found = _found(source, names, index, unknown)
        outside = int((found < 0).sum())
        problems.add(UNMATCHED, outside, f"vectors of {source.path} have ids that {clean.path} has not", unknown)
        where.append(_slotted(found, source, names, draws, problems))
    whole = np.ones(len(names), dtype=bool)
    for source, places in zip(sources, where, strict=True):
        here = (places >= 0).all(axis=1)
        what = "have no vector in" if draws == 1 else f"have fewer than {draws} vectors in"
        missing = np.flatnonzero(~here)
        problems.add(UNMATCHED, len(missing), f"ids {what} {source.path}", (names[row] for row in missing))
        whole &= here
    problems.check()
    index.clear()
    if not whole.any():
        raise ExchangeError(f"{clean.path}: no id has a vector in every file. Check that ids are written alike.")
    if whole.all():
        return Matched(names, where)
    return Matched([names[row] for row in np.flatnonzero(whole)], [places[whole] for places in where])


def _ids(source: VectorReader) -> Iterator[list[str]]:
    """Yield the ids of a file, which are text that a store can hold."""
    for names in source.ids():
        try:
            "".join(names).encode()
        except UnicodeEncodeError as error:  # halves of characters, as Python has them of bytes that are no text
            raise not_text(source.path, error) from error
        yield names


def _numbered(source: VectorReader) -> tuple[list[str], Rows]:
    """Return the ids of a file, each once, and the number of each row's."""
    names, hashes = list[str](), [np.empty(0, dtype=np.int64)]
    for some in _ids(source):
        names += some
        hashes.append(np.fromiter(map(hash, some), dtype=np.int64, count=len(some)))
    found = np.concatenate(hashes)
    found.sort()
    if (found[1:] != found[:-1]).all():  # each id is there once, as ids should be: this is three times as fast
        return names, np.arange(len(names))
    index: dict[str, int] = {}
    numbers = np.fromiter((index.setdefault(name, len(index)) for name in names), dtype=np.int64, count=len(names))
    return list(index), numbers


def _found(source: VectorReader, names: Sequence[str], index: dict[str, int], unknown: list[str]) -> Rows:
    """Return the number of each id of a file, -1 where it is not among the names, and note the first such ids.

    The index of names is filled where it is needed: ids in the same order do without.
    """
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


def _slotted(found: Rows, source: VectorReader, names: Sequence[str], draws: int, problems: ProblemLog) -> Rows:
    """Return rows of a file [utterance, draw], -1 where there are none, of each row's utterance `found` (-1: none)."""
    where = np.full((len(names), draws), -1, dtype=np.int64)
    if draws == 1 and (found[1:] > found[:-1]).all():  # the same order, which needs no sorting
        where[found[found >= 0], 0] = np.flatnonzero(found >= 0)
        return where
    order = np.argsort(found, kind="stable")
    of = found[order]
    known = int(np.searchsorted(of, 0))
    order, of = order[known:], of[known:]
    turn = np.arange(len(of)) - np.searchsorted(of, of)  # how often the id was there before
    kept = turn < draws
    where[of[kept], turn[kept]] = order[kept]
    again = np.sort(order[~kept])
    what = f"vectors of {source.path} repeat an id" + (f" more than {draws} times" if draws > 1 else "")
    problems.add(DUPLICATES, len(again), what, dict.fromkeys(names[found[row]] for row in again[:1000]))
    return where
