"""Import: make a store from files of embeddings, shard by shard."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ExchangeError, PlaceError
from pipeline.store.formats.matching import MatchedRows, RowNumbers, match_ids
from pipeline.store.formats.problems import DIMENSIONS, EXAMPLES, NAN, ZEROS, ProblemLog
from pipeline.store.formats.reader import RowFile, VectorReader, rows_per_block
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import StoreWriter
from pipeline.utils.paths import Place, remove_folder
from pipeline.utils.prefetch import prefetch

CLEAN = "clean"
"""The name of the first view."""

WRITERS = 2
"""Number of shards written at once: half the time goes to the disk, half to checksums and copies in memory."""

ShardContents = tuple[range, NDArray[np.float32], NDArray[np.uint8]]
"""Rows of the store, their embeddings [rows, draw, view, dim], and status [rows]."""


@dataclass(frozen=True)
class ImportSummary:
    """The result of an import."""

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
) -> ImportSummary:
    """Write a store [utterance, draw, view, dim] from files matched by id, in the order of the clean file.

    Args:
        clean: view 0; the only view of evaluation data.
        noisy: the other views by name.
        out: path or URL of the store.
        encoder: name of the encoder; stores are comparable if they have the same encoder name and weights.
        draws: number of vectors per id, such as crops of one utterance.
        skip: kinds of problems (`problems.KINDS`) that do not stop the import. Utterances that are not in every file
            and repeated ids are left out; utterances with NaN, infinite numbers, a vector of zeros or another dimension
            become failed.
        weights_sha256: SHA-256 of the encoder's weights, if known.
        progress: called with the number of utterances written.

    Raises:
        ExchangeError: files are malformed, rows have problems that are not skipped, or no utterance is left.
        OutputError: something other than a store is at `out`.
    """
    views = {CLEAN: clean, **noisy}
    for name, source in noisy.items():
        if name == CLEAN or name.isdecimal():
            raise ExchangeError(
                f"{source.path}: a noisy view cannot be called {name!r}: the first view is {CLEAN!r}, and numbers also"
                " select views. Give another name."
            )
        if source.dim != clean.dim:
            raise ExchangeError(
                f"{source.path}: {name} has vectors of {source.dim} numbers, but {clean.path} of {clean.dim}. Give"
                " files from one encoder."
            )
    problems = ProblemLog(skip)
    matched = match_ids(list(views.values()), draws, problems)
    shape, shard = (draws, len(views), clean.dim), rows_per_block(clean.dim * draws * len(views))
    attributes = {
        "encoder": encoder,
        "family": f"imported:{encoder}",  # one of the attributes that make stores comparable
        "weights_sha256": weights_sha256,
        "front_end": None,
        "dim": clean.dim,
        "recipe": {"draws": draws, "views": [{"name": name} for name in views]},
    }
    failed = 0
    with closing(StoreWriter(out, matched.utterances, shape, attributes, shard, whole=True)) as writer:
        try:
            reader = _ViewReader(list(views.values()), matched, out.parent if isinstance(out, Path) else None)
            # Shards of an earlier run are written again because the files may have changed.
            with (
                closing(prefetch(reader.read, writer.shards(), 1)) as shards,
                closing(prefetch(partial(_write, writer), shards, WRITERS, WRITERS)) as written,
            ):
                for rows, bad in written:
                    failed += bad
                    if progress:
                        progress(rows)
            reader.report(problems)
            problems.check()
            if failed == len(matched.utterances):
                raise ExchangeError(
                    f"{clean.path}: no utterance is left, all have failed. Check how vectors were made."
                )
        except BaseException:  # an import is never resumed
            with suppress(PlaceError):
                remove_folder(writer.folder if writer.unfinished_stores() else writer.folder.parent)
            raise
        writer.finish()
    return ImportSummary(len(matched.utterances), failed, reader.rounded(), problems)


def _write(writer: StoreWriter, shard: ShardContents) -> tuple[int, int]:
    """Write a shard; return its number of rows and of failed rows."""
    rows, values, status = shard
    writer.write(rows, values, status)
    return len(rows), int((status == FAILED).sum())


@dataclass
class _FileNotes:
    """Observations made while a file is read."""

    misshapen: dict[int, str] = field(default_factory=dict)
    """Rows that are not vectors of the right length, with a description."""
    rounded: bool = False
    counts: dict[str, int] = field(default_factory=lambda: {NAN: 0, ZEROS: 0})
    """Number of vectors that are not finite, and of zeros."""
    examples: dict[str, list[str]] = field(default_factory=lambda: {NAN: [], ZEROS: []})
    """The first utterances of these."""

    def add(self, kind: str, utterance: str) -> None:
        """Note a vector of a kind."""
        self.counts[kind] += 1
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(utterance)


class _ViewReader:
    """Reads the views of utterances shard by shard, and notes their problems."""

    def __init__(self, sources: Sequence[VectorReader], matched: MatchedRows, folder: Path | None) -> None:
        self._matched, self._sources, self._dim = matched, sources, sources[0].dim
        self._notes = [_FileNotes(rounded=source.dtype.itemsize > 4) for source in sources]
        self._views = [_open_view(*each, folder) for each in zip(sources, matched.where, self._notes, strict=True)]

    def read(self, rows: range) -> ShardContents:
        """Return consecutive utterances; those with NaN, infinite numbers or only zeros are marked as failed."""
        draws = self._matched.where[0].shape[1]
        status, views = np.full(len(rows), OK, np.uint8), []
        for view, places, notes in zip(self._views, self._matched.where, self._notes, strict=True):
            wanted = places[rows.start : rows.stop].reshape(-1)
            with np.errstate(over="ignore"):  # an overflow becomes infinite, which fails the row
                vectors = view(wanted).astype(np.float32, copy=False)
            for kind, bad in ((NAN, _find_infinite(vectors)), (ZEROS, _find_zeros(vectors))):
                status[bad // draws] = FAILED
                for row in bad:
                    if int(wanted[row]) not in notes.misshapen:
                        notes.add(kind, self._matched.utterances[rows.start + row // draws])
            views.append(vectors.reshape(len(rows), draws, self._dim))
        if len(views) == 1 and (status == OK).all():
            return rows, views[0][:, :, None], status  # not copied: that takes as long as reading
        values = np.stack(views, axis=2)
        values[status == FAILED] = np.nan
        return rows, values, status

    def report(self, problems: ProblemLog) -> None:
        """Add the problems to a log."""
        for source, notes in zip(self._sources, self._notes, strict=True):
            for kind, what in ((NAN, "hold NaN or infinite numbers"), (ZEROS, "are zeros")):
                problems.add(kind, notes.counts[kind], f"vectors of {source.path} {what}", notes.examples[kind])
            what = f"vectors of {source.path} are not of {source.dim} numbers"
            problems.add(DIMENSIONS, len(notes.misshapen), what, notes.misshapen.values())

    def rounded(self) -> list[str]:
        """Return the files whose float64 was rounded."""
        return [source.path for source, notes in zip(self._sources, self._notes, strict=True) if notes.rounded]


def _find_infinite(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the rows of vectors [N, dim] that are not finite."""
    if np.isfinite(vectors).all():
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(~np.isfinite(vectors).all(axis=1))


def _find_zeros(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the rows of vectors [N, dim] that are zeros, and thus have no direction."""
    rows = np.flatnonzero(vectors[:, 0] == 0)  # few, so that most vectors are not read
    return rows[~vectors[rows].any(axis=1)]


def _open_view(
    source: VectorReader, where: RowNumbers, notes: _FileNotes, folder: Path | None
) -> Callable[[RowNumbers], NDArray[Any]]:
    """Return a function that reads rows of a file, which are requested in the order of `where`.

    A file in that order is read once from its start. A file in another order is read at random if its format allows
    it, else copied to a temporary file of float32 first.
    """
    places = where.reshape(-1)
    if (places[1:] > places[:-1]).all():
        return _SequentialRows(source, notes)
    if source.row_file is not None:
        return source.row_file.gather
    return RowFile.spool(_blocks(source, notes), source.dim, folder).gather


def _blocks(source: VectorReader, notes: _FileNotes) -> Iterator[NDArray[np.float32]]:
    start = 0
    for block in source.blocks():
        notes.misshapen |= {start + row: what for row, what in block.misshapen.items()}
        notes.rounded |= block.rounded or block.values.dtype.itemsize > 4
        start += len(block.values)
        with np.errstate(over="ignore"):
            values = block.values.astype(np.float32, copy=False)
        yield values


class _SequentialRows:
    """Rows of a file, which are requested in ascending order."""

    def __init__(self, source: VectorReader, notes: _FileNotes) -> None:
        self._source, self._blocks = source, _blocks(source, notes)
        self._block, self._start = np.empty((0, source.dim), np.float32), 0

    def __call__(self, wanted: RowNumbers) -> NDArray[np.float32]:
        parts, done = [], 0
        while done < len(wanted):
            stop = self._start + len(self._block)
            if wanted[done] >= stop:
                block = next(self._blocks, None)
                if block is None:
                    path = self._source.path
                    raise ExchangeError(f"{path}: ends after {stop:,} vectors, but has more ids. Copy it again.")
                self._block, self._start = block, stop
                continue
            end = int(np.searchsorted(wanted, stop))
            rows = wanted[done:end] - self._start
            neighbours = rows[-1] - rows[0] == len(rows) - 1
            parts.append(self._block[rows[0] : rows[-1] + 1] if neighbours else self._block[rows])
            done = end
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
