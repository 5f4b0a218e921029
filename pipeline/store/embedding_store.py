"""Reading of embedding stores. Only this module and `writer` access their arrays.

A store is a Zarr v3 group: `embeddings [utterance, draw, view, dim]` float32 in shards of whole rows, `status
[utterance]` written after its rows, `utterances` the ids in row order, and attributes that describe its origin.
Stores of audio also hold `traces [utterance, draw, view]`, the corruptions of each view as JSON (docs/data.md), and
`fingerprints [utterance, 16]`, a hash of everything each row was made from (`extraction.reuse`).
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.declared_size import check_declared_size
from pipeline.store.integrity import hash_content, hash_description, hash_rows, split_checksums, unchanged
from pipeline.store.read_errors import corrupt_error, store_errors
from pipeline.store.row_contents import RowContents
from pipeline.store.schema import (
    CHUNK_ROWS,
    CONTENT_SHA256,
    DENOISE,
    FINGERPRINTS,
    MISSING,
    OK,
    SCHEMA,
    SPACE,
    STORE_SHA256,
    TRACES,
)
from pipeline.utils.paths import ENTRY, Place, exists, read_bytes, to_place

if TYPE_CHECKING:
    import zarr  # imported only when a store is opened, because arrays in memory do not need it


@dataclass(frozen=True)
class EmbeddingStore:
    """A finished store, read only.

    Every read raises StoreError if the store has been replaced since it was opened.
    """

    path: Place
    attributes: Mapping[str, Any]
    """Attributes that describe the store's origin, without its checksums."""
    utterances: tuple[str, ...]
    status: NDArray[np.uint8]
    """Status [utterance], OK or FAILED."""
    content_sha256: str | None = field(default=None, kw_only=True)
    """The SHA-256 of ids, status and rows, see `integrity`; None for stores of older versions."""
    entry: bytes | None = field(default=None, kw_only=True, repr=False)
    """The content of the store's `zarr.json`, which identifies it among stores at one path; None in memory."""

    @classmethod
    def open(cls, path: Place | str, unfinished: bool = False) -> "EmbeddingStore":
        """Open a store; if `unfinished`, rows may be missing.

        Raises:
            ConfigError: the path is a URL that cannot be read.
            StoreError: the store is missing, corrupt, unfinished, or has another schema.
            PlaceError: its remote place does not answer or refuses, now or whenever it is read.
        """
        path = to_place(path) if isinstance(path, str) else path
        if not exists(path / ENTRY):
            raise StoreError(f"{path}: no embedding store there. Make it with `seed extract`.")
        with store_errors(path):
            entry = read_bytes(path / ENTRY)
        with unchanged(path, entry):
            stored = json.loads(entry).get("attributes", {})
            if (schema := stored.get("schema")) not in (1, SCHEMA):
                raise StoreError(f"{path}: store schema {schema}, this version reads 1 and {SCHEMA}.")
            group = _group(path)
            shape, *others = (open_array(group, name).shape for name in ("embeddings", "utterances", "status"))
            if len(shape) != 4 or any(other != shape[:1] for other in others):
                raise corrupt_error(path, "its arrays have different lengths")
            check_declared_size(path, shape, unfinished)
            ids = tuple(map(str, np.asarray(open_array(group, "utterances")[:])))
            status = np.asarray(open_array(group, "status")[:], dtype=np.uint8)
            attributes, content_sha256 = split_checksums(stored)
            if not all(ids) or len(set(ids)) != len(ids):
                raise corrupt_error(path, "its utterance ids are damaged")
            if (status == MISSING).any() and not unfinished:
                left = f"{int((status == MISSING).sum())} of {len(ids)} rows are missing"
                raise StoreError(f"{path}: unfinished, {left}. Run `seed extract` again.")
            finished = schema != 1 and not unfinished
            if (finished or STORE_SHA256 in stored) and stored.get(STORE_SHA256) != hash_description(path, stored):
                raise corrupt_error(path, f"its attributes do not match their {STORE_SHA256}")
        return cls(path, attributes, ids, status, content_sha256=content_sha256, entry=entry)

    @contextmanager
    def _reading(self, rows: range | None = None) -> Iterator[None]:
        """Raise StoreError if what is read within is damaged, or not from the store that was opened."""
        if self.entry is None:
            yield
            return
        with unchanged(self.path, self.entry, rows):
            yield

    @cached_property
    def ok(self) -> NDArray[np.int64]:
        """Row numbers of the encoded utterances."""
        return np.flatnonzero(self.status == OK)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.attributes["dim"])

    def encoder(self) -> dict[str, Any]:
        """Return the attributes that identify the encoder and the space of its vectors."""
        denoised = {DENOISE: self.attributes[DENOISE]} if DENOISE in self.attributes else {}
        return {key: self.attributes.get(key) for key in ("encoder", *SPACE)} | denoised

    @property
    def is_enhanced(self) -> bool:
        """True if the store holds enhanced embeddings instead of an encoder's own."""
        return bool(self.attributes.get("enhanced_by_sha256"))

    def check_raw(self) -> None:
        """Raise StoreError if the store holds enhanced embeddings instead of an encoder's own."""
        if self.is_enhanced:
            raise StoreError(f"{self.path}: holds enhanced embeddings already. Give the store they were made from.")

    def blocks(self, numbers: int | None = None) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield rows and their unchecked embeddings [row, draw, view, dim], `numbers` at a time, or all.

        Raise StoreError if a shard is damaged.
        """
        count, *shape = self.shape
        step = max(numbers // int(np.prod(shape)), CHUNK_ROWS) if numbers else count
        for start in range(0, count, step):
            rows = slice(start, start + step)
            with self._reading(range(count)[rows]):
                values = np.asarray(self._embeddings[rows], dtype=np.float32)
            yield rows, values

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """Numbers of utterances, draws and views, and dim."""
        utterances, draws, views, dim = self._embeddings.shape
        return utterances, draws, views, dim

    def shards(self) -> list[range]:
        """Return the rows of every shard; reading whole shards is fastest."""
        step = (self._embeddings.shards or self._embeddings.chunks)[0]
        return [range(start, min(start + step, self.shape[0])) for start in range(0, self.shape[0], step)]

    def read_rows(self, rows: range) -> NDArray[np.float32]:
        """Return the embeddings [rows, draw, view, dim] of consecutive utterances; failed rows are NaN.

        Raise StoreError if one of their shards is damaged.
        """
        with self._reading(rows):
            values = np.asarray(self._embeddings[rows.start : rows.stop], dtype=np.float32)
            finite = np.isfinite(values).all(axis=(1, 2, 3))
            bad = ~finite & (self.status[rows.start : rows.stop] == OK)
            if bad.any():
                first = self.utterances[rows.start + int(np.argmax(bad))]
                what = f"marked as encoded, but {int(bad.sum()):,} of them hold NaN, first: {first}"
                raise corrupt_error(self.path, what, rows)
        return values

    def read(self) -> NDArray[np.float32]:
        """Return all embeddings [utterance, draw, view, dim] in memory, see `read_rows`."""
        values = np.empty(self.shape, dtype=np.float32)
        for rows in self.shards():
            values[rows.start : rows.stop] = self.read_rows(rows)
        return values

    @cached_property
    def _embeddings(self) -> Any:  # a Zarr array, or an array in memory
        with self._reading():
            return open_array(_group(self.path), "embeddings")

    def fingerprints(self) -> NDArray[np.uint8] | None:
        """Return the hashes [utterance, 16] of what each row was made from, if any; raise StoreError if damaged."""
        with self._reading():
            group = _group(self.path)
            return np.asarray(open_array(group, FINGERPRINTS)[:]) if FINGERPRINTS in group else None

    def gather(self, rows: NDArray[np.int64]) -> RowContents:
        """Return the content of any rows of a store of audio; raise StoreError if one of their shards is damaged."""
        with self._reading():
            group = _group(self.path)
            arrays = [np.asarray(open_array(group, name).oindex[rows]) for name in ("embeddings", TRACES, FINGERPRINTS)]
            content = RowContents(arrays[0], arrays[1].astype(object), arrays[2])
            if not (np.isfinite(content.values).all() and content.traces.all()):
                raise corrupt_error(self.path, "encoded rows are empty")
        return content

    def traces(self, rows: NDArray[np.int64]) -> NDArray[np.object_] | None:
        """Return the traces [rows, draw, view] of some rows as JSON, empty for failed ones; None if there are none.

        Raise StoreError if they are damaged.
        """
        with self._reading():
            group = _group(self.path)
            if TRACES not in group:
                return None
            texts = np.asarray(open_array(group, TRACES).oindex[rows]).astype(object)
            if not texts[self.status[rows] == OK].all():
                raise corrupt_error(self.path, "traces of encoded rows are missing")
        return texts

    def trace(self, row: int) -> list[list[dict[str, Any]]]:
        """Return a row's traces by draw and view: the `start` of the crop and the `steps` of the corruption.

        Raise StoreError if it has none, or they are damaged.
        """
        texts = self.traces(np.array([row]))
        with self._reading():
            if texts is not None and texts.all():
                return [[json.loads(text) for text in draw] for draw in texts[0]]
        raise StoreError(
            f"{self.path}: holds no trace of {self.utterances[row]}: it failed, or the store's vectors are enhanced."
        )

    def verify(self) -> bool:
        """Read the whole store, and raise StoreError if it is damaged.

        Return False if it is of an older version, which has no `content_sha256`; then only its chunks are verified.
        """
        hashes = []
        for rows in self.shards():
            part = slice(rows.start, rows.stop)
            with self._reading(rows):
                group = _group(self.path)
                names = ["embeddings", *(name for name in (TRACES, FINGERPRINTS) if name in group)]
                values, *of_audio = (np.asarray(open_array(group, name)[part]) for name in names)
            hashes.append(hash_rows(self.status[part], values, *of_audio))
        if self.content_sha256 not in (None, hash_content(self.utterances, hashes)):
            raise corrupt_error(self.path, f"its content does not match its {CONTENT_SHA256}")
        return self.content_sha256 is not None


def open_array(group: "zarr.Group", name: str) -> "zarr.Array[Any]":
    """Return an array of a store; raise StoreError if it is something else."""
    import zarr

    array = group[name]
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{group.store_path}: corrupt embedding store ({name} is not an array). Extract it again.")
    return array


def _group(path: Place) -> "zarr.Group":
    from pipeline.store.zarr_access import open_group

    return open_group(path, "r")
