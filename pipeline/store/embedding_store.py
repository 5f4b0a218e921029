"""Reading of embedding stores. Only this module and `writer` access their arrays.

A store is a Zarr v3 group: `embeddings [utterance, draw, view, dim]` float32 in shards of whole rows, `status
[utterance]` written after its rows, `utterances` the ids in row order, and attributes that describe its origin.
Stores of audio also hold `traces [utterance, draw, view]`, the corruptions of each view as JSON (docs/data.md), and
`fingerprints [utterance, 16]`, a hash of everything each row was made from (`extraction.reuse`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.declared_size import check_declared_size
from pipeline.store.read_errors import corrupt_error, store_errors
from pipeline.store.schema import CHUNK_ROWS, DENOISE, FINGERPRINTS, MISSING, OK, SCHEMA, SPACE, TRACES
from pipeline.utils.paths import ENTRY, Place, exists, to_place

if TYPE_CHECKING:
    import zarr  # imported only when a store is opened, because arrays in memory do not need it


@dataclass(frozen=True)
class RowContents:
    """The content of some rows of a store of audio."""

    values: NDArray[np.float32]
    """Embeddings [rows, draw, view, dim]."""
    traces: NDArray[np.object_]
    """Traces [rows, draw, view] as JSON."""
    fingerprints: NDArray[np.uint8]
    """Fingerprints [rows, 16]."""

    @classmethod
    def join(cls, parts: "Sequence[RowContents]") -> "RowContents":
        """Return the rows of several parts, one after another."""
        columns = zip(*((part.values, part.traces, part.fingerprints) for part in parts), strict=True)
        return cls(*map(np.concatenate, columns))


@dataclass(frozen=True)
class EmbeddingStore:
    """A finished store, read only."""

    path: Place
    attributes: Mapping[str, Any]
    utterances: tuple[str, ...]
    status: NDArray[np.uint8]
    """Status [utterance], OK or FAILED."""

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
            group = _group(path)
            attributes = dict(group.attrs)
            if attributes.get("schema") != SCHEMA:
                raise StoreError(f"{path}: store schema {attributes.get('schema')}, this version reads {SCHEMA}.")
            shape, *others = (open_array(group, name).shape for name in ("embeddings", "utterances", "status"))
            if len(shape) != 4 or any(other != shape[:1] for other in others):
                raise corrupt_error(path, "its arrays have different lengths")
            check_declared_size(path, shape, unfinished)
            ids = tuple(map(str, np.asarray(open_array(group, "utterances")[:])))
            status = np.asarray(open_array(group, "status")[:], dtype=np.uint8)
        if not all(ids) or len(set(ids)) != len(ids):
            raise corrupt_error(path, "its utterance ids are damaged")
        if (status == MISSING).any() and not unfinished:
            left = int((status == MISSING).sum())
            raise StoreError(f"{path}: unfinished, {left} of {len(ids)} rows are missing. Run `seed extract` again.")
        return cls(path, attributes, ids, status)

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
            with store_errors(self.path, range(count)[rows]):
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
        with store_errors(self.path, rows):
            values = np.asarray(self._embeddings[rows.start : rows.stop], dtype=np.float32)
        finite = np.isfinite(values).all(axis=(1, 2, 3))
        if (~finite & (self.status[rows.start : rows.stop] == OK)).any():
            raise corrupt_error(self.path, "marked as encoded, but they hold NaN", rows)
        return values

    def read(self) -> NDArray[np.float32]:
        """Return all embeddings [utterance, draw, view, dim] in memory, see `read_rows`."""
        values = np.empty(self.shape, dtype=np.float32)
        for rows in self.shards():
            values[rows.start : rows.stop] = self.read_rows(rows)
        return values

    @cached_property
    def _embeddings(self) -> Any:  # a Zarr array, or an array in memory
        with store_errors(self.path):
            return open_array(_group(self.path), "embeddings")

    def fingerprints(self) -> NDArray[np.uint8] | None:
        """Return the hashes [utterance, 16] of what each row was made from, if any; raise StoreError if damaged."""
        with store_errors(self.path):
            group = _group(self.path)
            return np.asarray(open_array(group, FINGERPRINTS)[:]) if FINGERPRINTS in group else None

    def gather(self, rows: NDArray[np.int64]) -> RowContents:
        """Return the content of any rows of a store of audio; raise StoreError if one of their shards is damaged."""
        with store_errors(self.path):
            group = _group(self.path)
            arrays = [np.asarray(open_array(group, name).oindex[rows]) for name in ("embeddings", TRACES, FINGERPRINTS)]
        content = RowContents(arrays[0], arrays[1].astype(object), arrays[2])
        if not (np.isfinite(content.values).all() and content.traces.all()):
            raise corrupt_error(self.path, "encoded rows are empty")
        return content

    def trace(self, row: int) -> list[list[dict[str, Any]]]:
        """Return a row's traces, see `read_trace`: the `start` of the crop and the `steps` of the corruption."""
        from pipeline.store.traces import read_trace

        return read_trace(self.path, self.utterances[row], row)


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
