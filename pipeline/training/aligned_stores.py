"""Read several training stores as one. Each is a domain, shifted so that all have the same mean clean vector.

A model trained on them learns what noise does, not what distinguishes the domains. Adapting the model then shifts
speech of any domain, known or new, to the same mean (`pipeline.model.adaptation`).
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


@dataclass(frozen=True)
class AlignedStores(EmbeddingStore):
    """The rows of several stores, one store after another, with a vector added to those of each."""

    parts: tuple[EmbeddingStore, ...] = field(repr=False)
    shifts: NDArray[np.float32] = field(repr=False)
    """The vectors added [parts, D]."""

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
        for part, shift, first, end in zip(self.parts, self.shifts, starts, starts[1:], strict=False):
            inside = range(max(rows.start, first) - first, min(rows.stop, end) - first)
            if len(inside):
                values.append(part.read_rows(inside) + shift)
        return np.concatenate(values) if len(values) > 1 else values[0]

    def _starts(self) -> list[int]:
        """Return the number of the first row of each store, and that of all rows."""
        return [0, *accumulate(len(part.utterances) for part in self.parts)]


def align_stores(stores: Sequence[EmbeddingStore]) -> EmbeddingStore:
    """Return several training stores as one, see the module; a single store is returned as it is.

    Utterances are named `<number of the store, from 0>/<utterance>`.

    Raises:
        StoreError: the stores differ in encoder, draws or views, a store holds enhanced embeddings or has no encoded
            utterance, or is damaged.
    """
    first = stores[0]
    if len(stores) == 1:
        return first
    for store in stores:
        store.check_raw()
        _check_alike(first, store)
    means, counts = zip(*map(_measure_clean_mean, stores), strict=True)
    reference = np.average(means, axis=0, weights=counts)
    shifts = np.stack([reference - mean for mean in means]).astype(np.float32)
    digest = hashlib.sha256(shifts.astype("<f4").tobytes()).hexdigest()[:16]
    ids = tuple(f"{number}/{name}" for number, store in enumerate(stores) for name in store.utterances)
    domains = [
        {"utterances": len(store.ok), "manifest_sha256": store.attributes.get("manifest_sha256")} for store in stores
    ]
    attributes = {**first.attributes, "domains": domains, "shifts": digest}
    status = np.concatenate([store.status for store in stores])
    return AlignedStores(first.path, attributes, ids, status, tuple(stores), shifts)


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


def _measure_clean_mean(store: EmbeddingStore) -> tuple[NDArray[np.float64], int]:
    """Return the mean [D] of a store's clean vectors, and their number."""
    total, count, encoded = np.zeros(store.dim), 0, set(store.ok.tolist())
    for rows in store.shards():
        chosen = [row - rows.start for row in rows if row in encoded]
        if chosen:
            clean = store.read_rows(rows)[chosen][:, :, 0].reshape(-1, store.dim)
            total, count = total + clean.sum(axis=0, dtype=np.float64), count + len(clean)
    if not count:
        raise StoreError(f"{store.path}: has no encoded utterance. Leave it out.")
    return total / count, count
