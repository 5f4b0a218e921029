"""Read training stores of several domains as one: all domains are shifted to the mean clean vector of the first one.

A model trained on them learns what noise does, not what distinguishes the domains. It is for the first domain as it is.
Adapting the model shifts speech of any other domain, known or new, to the same mean (`pipeline.model.adaptation`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import DENOISE, SPACE
from pipeline.store.zeros import require_directions
from pipeline.utils.array_types import IntArray


@dataclass(frozen=True)
class AlignedStores(EmbeddingStore):
    """The rows of one or several stores, one store after another, with the vector of its domain added to each."""

    parts: tuple[EmbeddingStore, ...] = field(repr=False)
    domains: IntArray = field(repr=False)
    """The number of the domain of each row."""
    shifts: NDArray[np.float32] = field(repr=False)
    """The vectors added [domains, D]."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Numbers of utterances, draws and views, and dim."""
        return len(self.utterances), *self.parts[0].shape[1:]

    def shards(self) -> list[range]:
        """Return the rows of every shard of every store."""
        return [
            range(first + rows.start, first + rows.stop)
            for first, part in zip(self._starts(), self.parts, strict=False)
            for rows in part.shards()
        ]

    def read_rows(self, rows: range) -> NDArray[np.float32]:
        """Return the moved embeddings [rows, draw, view, dim] of consecutive utterances, see `EmbeddingStore`."""
        starts, values = self._starts(), []
        for part, first, end in zip(self.parts, starts, starts[1:], strict=False):
            inside = range(max(rows.start, first), min(rows.stop, end))
            if len(inside):
                own = range(inside.start - first, inside.stop - first)
                raw = part.read_rows(own)
                require_directions(part, own, raw)  # before they are moved
                values.append(raw + self.shifts[self.domains[inside.start : inside.stop], None, None])
        return np.concatenate(values) if len(values) > 1 else values[0]

    def _starts(self) -> list[int]:
        """Return the number of the first row of each store, and that of all rows."""
        return [0, *accumulate(len(part.utterances) for part in self.parts)]


def align_stores(stores: Sequence[EmbeddingStore], corpora: Sequence[Mapping[str, str | None]] = ()) -> EmbeddingStore:
    """Return training stores as one, see the module; a single store of a single domain is returned as it is.

    The utterances of several stores are named `<number of the store, from 0>/<utterance>`.

    Args:
        stores: the stores. Each is a domain.
        corpora: for each store, the corpus of each utterance; if there are several, each is a domain.

    Raises:
        StoreError: the stores differ in encoder, draws or views, a store holds enhanced embeddings or has no encoded
            utterance, or is damaged.
    """
    first = stores[0]
    known: dict[tuple[int, str | None], int] = {}
    labels = [
        known.setdefault((number, corpora[number].get(name) if corpora else None), len(known))
        for number, store in enumerate(stores)
        for name in store.utterances
    ]
    if len(known) == 1:
        return first
    for store in stores:
        store.check_raw()
        _check_alike(first, store)
    domains, start, sums = np.array(labels), 0, np.zeros((len(known), first.dim))
    counts, numbers = np.zeros(len(known), np.int64), np.zeros(len(known), np.int64)
    for store in stores:
        own = domains[start : start + len(store.utterances)]
        start += len(own)
        _add_clean(store, own, sums, counts)
        numbers += np.bincount(own[store.ok], minlength=len(known))
    for (number, corpus), count in zip(known, counts, strict=True):
        if not count:
            of = f" of corpus {corpus}" if corpus else ""
            raise StoreError(f"{stores[number].path}: has no encoded utterance{of}. Leave it out.")
    means = sums / counts[:, None]
    shifts = (means[0] - means).astype(np.float32)
    several = len(stores) > 1
    ids = tuple(f"{n}/{name}" if several else name for n, store in enumerate(stores) for name in store.utterances)
    described = [
        {"corpus": corpus, "utterances": int(count), "manifest_sha256": stores[n].attributes.get("manifest_sha256")}
        for (n, corpus), count in zip(known, numbers, strict=True)
    ]
    digest = hashlib.sha256(shifts.astype("<f4").tobytes()).hexdigest()[:16]
    attributes = {**first.attributes, "domains": described, "shifts": digest}
    status = np.concatenate([store.status for store in stores])
    return AlignedStores(first.path, attributes, ids, status, tuple(stores), domains, shifts)


def read_domains(store: EmbeddingStore) -> IntArray:
    """Return the number of the domain of each row [N]; 0 for a store of a single domain."""
    return store.domains if isinstance(store, AlignedStores) else np.zeros(store.shape[0], np.int64)


def join_speakers(speakers: Sequence[Mapping[str, str | None]]) -> dict[str, str | None]:
    """Return the speaker of each utterance of several stores, both named as in `align_stores`."""
    if len(speakers) == 1:
        return dict(speakers[0])
    return {
        f"{number}/{utterance}": speaker and f"{number}/{speaker}"
        for number, each in enumerate(speakers)
        for utterance, speaker in each.items()
    }


def _check_alike(one: EmbeddingStore, other: EmbeddingStore) -> None:
    for key in ("dim", *SPACE, DENOISE):
        if one.attributes.get(key) != other.attributes.get(key):
            values = f"{one.attributes.get(key)!r} and {other.attributes.get(key)!r}"
            raise StoreError(f"{one.path} and {other.path}: encoder {key} is {values}. Train on stores of one encoder.")
    views = [
        [view["name"] for view in (store.attributes.get("recipe") or {}).get("views", [])] for store in (one, other)
    ]
    if one.shape[1:] != other.shape[1:] or views[0] != views[1]:
        raise StoreError(
            f"{one.path} and {other.path}: have {one.shape[1]} and {other.shape[1]} draws, and views"
            f" {', '.join(views[0]) or one.shape[2]} and {', '.join(views[1]) or other.shape[2]}. Extract both with the"
            " same draws and views."
        )


def _add_clean(store: EmbeddingStore, domains: IntArray, sums: NDArray[np.float64], counts: IntArray) -> None:
    """Add a store's clean vectors to the sums [domains, D] of their domains, and count them."""
    encoded = np.zeros(len(domains), dtype=bool)
    encoded[store.ok] = True
    for rows in store.shards():
        used, own = encoded[rows.start : rows.stop], domains[rows.start : rows.stop]
        if used.any():
            clean = store.read_rows(rows)[used][:, :, 0]
            np.add.at(sums, own[used], clean.sum(axis=1, dtype=np.float64))
            np.add.at(counts, own[used], clean.shape[1])
