"""Export: write the vectors of a store to a file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ExchangeError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.formats.reader import VectorTable
from pipeline.store.formats.registry import find_format, write_file
from pipeline.store.schema import OK


@dataclass(frozen=True)
class ExportSummary:
    """The result of an export."""

    vectors: int
    failed: int
    """Number of failed utterances, which are left out."""


def export_store(
    store: EmbeddingStore,
    out: Path,
    form: str | None = None,
    view: str = "0",
    draw: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> ExportSummary:
    """Write a view of a store's utterances, in row order, to a file.

    Args:
        store: any store, raw or enhanced.
        out: path of the file.
        form: name of the format; that of the suffix if not given.
        view: name or number of the view.
        draw: number of the draw (crop); if not given, all draws, one after another, each with the utterance's id.
        progress: called with the number of utterances read.

    Raises:
        ExchangeError: there is no such view or draw, no utterance has vectors, or the format cannot hold the ids.
        StoreError: the store is damaged.
        OutputError: `out` is something other than a file.
    """
    _, draws, _, dim = store.shape
    number = _view_number(store, view)
    if draw is not None and draw >= draws:
        raise ExchangeError(f"{store.path}: has {draws} draws, numbered from 0; there is no draw {draw}.")
    taken, times = (slice(None), draws) if draw is None else (slice(draw, draw + 1), 1)
    written = find_format(out, form)
    if times > 1 and written.unique_ids:
        several = f"{store.path} has {draws} draws"
        raise ExchangeError(f"{out}: {written.name} holds one vector per id, but {several}. Choose one with --draw.")
    if not len(store.ok):
        raise ExchangeError(f"{store.path}: all utterances have failed, there is nothing to export.")

    def names(rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
        return [store.utterances[row] for row in rows for _ in range(times)]

    def blocks() -> Iterator[tuple[Sequence[str], NDArray[np.float32]]]:
        for rows in store.shards():
            kept = np.flatnonzero(store.status[rows.start : rows.stop] == OK)
            values = store.read_rows(rows)[kept, taken, number].reshape(-1, dim)
            yield names(kept + rows.start), values
            if progress:
                progress(len(rows))

    ids = names(store.ok)
    write_file(out, written, VectorTable(ids, dim, blocks))
    return ExportSummary(len(ids), len(store.utterances) - len(store.ok))


def _view_number(store: EmbeddingStore, view: str) -> int:
    """Return the number of a view given by name or number."""
    count = store.shape[2]
    named = [str(each["name"]) for each in (store.attributes.get("recipe") or {}).get("views", [])]
    named = named if len(named) == count else ["clean", *map(str, range(1, count))]
    if view.isdecimal() and int(view) < count:  # before names, so that 0 is always the clean view
        return int(view)
    if view in named:
        return named.index(view)
    raise ExchangeError(f"{store.path}: no view {view!r}; there are {', '.join(named)}, or numbers from 0.")
