"""Files of embeddings made into a store, shard by shard."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ExchangeError, PlaceError
from pipeline.store.formats.matching import Matched, Rows, match
from pipeline.store.formats.problems import DIMENSIONS, EXAMPLES, NAN, ProblemLog
from pipeline.store.formats.reader import Flat, VectorReader, rows_of
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import StoreWriter
from pipeline.utils.paths import Place, remove_folder
from pipeline.utils.prefetch import prefetch

CLEAN = "clean"
"""Name of the first view."""

WRITERS = 2
"""Shards that are written at once: half of that is the disk's time, half checksums and copies in memory."""

Part = tuple[range, NDArray[np.float32], NDArray[np.uint8]]
"""Rows of the store, their embeddings [rows, draw, view, dim], and status [rows]."""


@dataclass(frozen=True)
class Summary:
    """What an import came to."""

    utterances: int
    failed: int
    rounded: Sequence[str]
    """Files whose float64 was rounded to float32."""
    problems: ProblemLog


def import_store(
    clean: VectorReader,
    noisy: Mapping[str, VectorReader],
    out: Place,
    encoder: str,
    draws: int = 1,
    skip: frozenset[str] = frozenset(),
    weights_sha256: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Write a store [utterance, draw, view, dim] of files that are matched by id, in the order of the clean one.

    Args:
        clean: view 0; of evaluation data, all there is.
        noisy: the other views by name.
        out: the store's place.
        encoder: what made the vectors: stores are comparable if they are of one encoder of that name (and weights).
        draws: vectors of an id, such as crops of one utterance.
        skip: of `problems.KINDS`, what is put up with: utterances that are not in every file, and repeated ids, are
            left out; utterances with NaN, infinite numbers or another dimension are marked as failed.
        weights_sha256: of the encoder's weights, where known.
        progress: told of utterances written.

    Raises:
        ExchangeError: files are malformed, rows are not as they should be, or none is left.
        OutputError: something else than a store is at `out`.
    """
    views = {CLEAN: clean, **noisy}
    for name, source in noisy.items():
        if name == CLEAN or name.isdecimal():
            raise ExchangeError(
                f"{source.path}: a noisy view cannot be called {name!r}, for views go by their numbers as well, and the"
                f" first is {CLEAN!r}. Give another name."
            )
        if source.dim != clean.dim:
            raise ExchangeError(
                f"{source.path}: {name} has vectors of {source.dim} numbers, but {clean.path} of {clean.dim}. Give"
                " files of one encoder."
            )
    problems = ProblemLog(skip)
    matched = match(list(views.values()), draws, problems)
    shape, shard = (draws, len(views), clean.dim), rows_of(clean.dim * draws * len(views))
    attributes = {
        "encoder": encoder,
        "family": f"imported:{encoder}",  # a part of what makes vectors comparable
        "weights_sha256": weights_sha256,
        "front_end": None,
        "dim": clean.dim,
        "recipe": {"draws": draws, "views": [{"name": name} for name in views]},
    }
    failed = 0
    with closing(StoreWriter(out, matched.utterances, shape, attributes, shard, whole=True)) as writer:
        try:
            intake = _Intake(list(views.values()), matched, out.parent if isinstance(out, Path) else None)
            # What an earlier run has written is written again: the files may be others by now.
            with (
                closing(prefetch(intake.read, writer.shards(), 1)) as parts,
                closing(prefetch(partial(_written, writer), parts, WRITERS, WRITERS)) as written,
            ):
                for rows, bad in written:
                    failed += bad
                    if progress:
                        progress(rows)
            intake.report(problems)
            problems.check()
            if failed == len(matched.utterances):
                raise ExchangeError(
                    f"{clean.path}: no utterance is left, all have failed. Check what made the vectors."
                )
        except BaseException:  # whatever it is: nothing of an import is taken up again
            with suppress(PlaceError):
                remove_folder(writer.folder if writer.stale() else writer.folder.parent)
            raise
        writer.finish()
    return Summary(len(matched.utterances), failed, intake.rounded(), problems)


def _written(writer: StoreWriter, part: Part) -> tuple[int, int]:
    """Write some rows; return how many they are, and how many of them failed."""
    rows, values, status = part
    writer.write(rows, values, status)
    return len(rows), int((status == FAILED).sum())


@dataclass
class _Notes:
    """What was noticed while a file was read."""

    odd: dict[int, str] = field(default_factory=dict)
    """Rows without vectors, and what is there."""
    rounded: bool = False


class _Intake:
    """Reads the views of utterances, shard after shard, and notes what is wrong with them."""

    def __init__(self, sources: Sequence[VectorReader], matched: Matched, folder: Path | None) -> None:
        self._matched, self._sources, self._dim = matched, sources, sources[0].dim
        self._notes = [_Notes(rounded=source.dtype.itemsize > 4) for source in sources]
        self._views = [_view(*each, folder) for each in zip(sources, matched.where, self._notes, strict=True)]
        self._nan, self._examples = [0] * len(sources), [list[str]() for _ in sources]

    def read(self, rows: range) -> Part:
        """Return neighbouring utterances; those with NaN or infinite numbers are failed."""
        draws = self._matched.where[0].shape[1]
        status, views = np.full(len(rows), OK, np.uint8), []
        for number, (view, places) in enumerate(zip(self._views, self._matched.where, strict=True)):
            wanted = places[rows.start : rows.stop].reshape(-1)
            with np.errstate(over="ignore"):  # becomes infinite, which fails the row
                part = view(wanted).astype(np.float32, copy=False)
            if not np.isfinite(part).all():
                bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
                status[bad // draws] = FAILED
                for row in bad:
                    if int(wanted[row]) not in self._notes[number].odd:
                        self._nan[number] += 1
                        if len(self._examples[number]) < EXAMPLES:
                            self._examples[number].append(self._matched.utterances[rows.start + row // draws])
            views.append(part.reshape(len(rows), draws, self._dim))
        if len(views) == 1 and (status == OK).all():
            return rows, views[0][:, :, None], status  # as it was read: a copy takes as long as reading does
        values = np.stack(views, axis=2)
        values[status == FAILED] = np.nan
        return rows, values, status

    def report(self, problems: ProblemLog) -> None:
        """Add what was found."""
        for source, notes, nan, examples in zip(self._sources, self._notes, self._nan, self._examples, strict=True):
            problems.add(NAN, nan, f"vectors of {source.path} hold NaN or infinite numbers", examples)
            what = f"vectors of {source.path} are not of {source.dim} numbers"
            problems.add(DIMENSIONS, len(notes.odd), what, notes.odd.values())

    def rounded(self) -> list[str]:
        """Return the files of float64."""
        return [source.path for source, notes in zip(self._sources, self._notes, strict=True) if notes.rounded]


def _view(source: VectorReader, where: Rows, notes: _Notes, folder: Path | None) -> Callable[[Rows], NDArray[Any]]:
    """Return what gives rows of a file, asked for in the order of `where`.

    A file in that order is read once from its start. Another is read at random, if its form allows that, or else copied
    to a temporary file of float32 first.
    """
    places = where.reshape(-1)
    if (places[1:] > places[:-1]).all():
        return _InOrder(source, notes)
    if source.flat is not None:
        return source.flat.gather
    return Flat.of(_blocks(source, notes), source.dim, folder).gather


def _blocks(source: VectorReader, notes: _Notes) -> Iterator[NDArray[np.float32]]:
    start = 0
    for block in source.blocks():
        notes.odd |= {start + row: what for row, what in block.odd.items()}
        notes.rounded |= block.rounded or block.values.dtype.itemsize > 4
        start += len(block.values)
        with np.errstate(over="ignore"):
            values = block.values.astype(np.float32, copy=False)
        yield values


class _InOrder:
    """Rows of a file that are asked for in ascending order."""

    def __init__(self, source: VectorReader, notes: _Notes) -> None:
        self._source, self._blocks = source, _blocks(source, notes)
        self._block, self._start = np.empty((0, source.dim), np.float32), 0

    def __call__(self, wanted: Rows) -> NDArray[np.float32]:
        parts, done = [], 0
        while done < len(wanted):
            stop = self._start + len(self._block)
            if wanted[done] >= stop:
                block = next(self._blocks, None)
                if block is None:
                    raise ExchangeError(
                        f"{self._source.path}: ends after {stop:,} vectors, before its ids. Copy it again."
                    )
                self._block, self._start = block, stop
                continue
            end = int(np.searchsorted(wanted, stop))
            rows = wanted[done:end] - self._start
            neighbours = rows[-1] - rows[0] == len(rows) - 1
            parts.append(self._block[rows[0] : rows[-1] + 1] if neighbours else self._block[rows])
            done = end
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
