"""Embedding stores, to read; `journal` writes them, and the two are the only code that touches their arrays.

A store is a Zarr v3 group: `embeddings [utterance, draw, view, dim]` float32 in shards of whole rows, `status
[utterance]` written after its rows, `utterances` the ids in row order, and attributes that say what it was made of.
Stores of audio also hold `traces [utterance, draw, view]`, what happened to each view as JSON (docs/data.md), and
`fingerprints [utterance, 16]`, what each row was made of, hashed (`reuse`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PlaceError, StoreError, one_line
from pipeline.store.schema import CHUNK_ROWS, DENOISE, FINGERPRINTS, MISSING, OK, SCHEMA, SPACE, TRACES
from pipeline.utils.paths import ENTRY, Place, exists, to_place

if TYPE_CHECKING:
    import zarr  # imported where a store is opened: whoever has vectors of their own does without it


@dataclass(frozen=True)
class RowContents:
    """What a store of audio holds of some rows."""

    values: NDArray[np.float32]
    """Embeddings [rows, draw, view, dim]."""
    traces: NDArray[np.object_]
    """[rows, draw, view], JSON."""
    fingerprints: NDArray[np.uint8]
    """[rows, 16]."""

    @classmethod
    def join(cls, parts: "Sequence[RowContents]") -> "RowContents":
        """Return the rows of several, one after another."""
        return cls(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.traces for part in parts]),
            np.concatenate([part.fingerprints for part in parts]),
        )


@dataclass(frozen=True)
class EmbeddingStore:
    """A finished store, read only."""

    path: Place
    attributes: Mapping[str, Any]
    utterances: tuple[str, ...]
    status: NDArray[np.uint8]
    """[utterance], OK or FAILED."""

    @classmethod
    def open(cls, path: Place | str, unfinished: bool = False) -> "EmbeddingStore":
        """Open a store; if `unfinished`, rows may be missing.

        Raises:
            ConfigError: the path is a URL that cannot be read.
            StoreError: there is none, it is corrupt, unfinished, or of another schema.
            PlaceError: it is in a remote place that does not answer, or refuses; now, or whenever it is read.
        """
        path = to_place(path) if isinstance(path, str) else path
        if not exists(path / ENTRY):
            raise StoreError(f"{path}: no embedding store there. Make it with `seed extract`.")
        try:
            group = _group(path)
            attributes = dict(group.attrs)
            if attributes.get("schema") != SCHEMA:
                raise StoreError(f"{path}: store schema {attributes.get('schema')}, this version reads {SCHEMA}.")
            ids = tuple(map(str, np.asarray(array_of(group, "utterances")[:])))
            status = np.asarray(array_of(group, "status")[:], dtype=np.uint8)
            shape = array_of(group, "embeddings").shape
        except (PlaceError, StoreError):
            raise
        except Exception as error:  # Zarr raises whatever its codecs and parsers raise
            raise StoreError(f"{path}: corrupt embedding store ({one_line(error)}). Extract it again.") from error
        if shape[0] != len(ids) or len(status) != len(ids) or len(shape) != 4:
            raise StoreError(f"{path}: corrupt embedding store, its arrays disagree in length. Extract it again.")
        if not all(ids) or len(set(ids)) != len(ids):
            raise StoreError(f"{path}: corrupt embedding store, its utterance ids are damaged. Extract it again.")
        if (status == MISSING).any() and not unfinished:
            left = int((status == MISSING).sum())
            raise StoreError(f"{path}: unfinished, {left} of {len(ids)} rows are missing. Run `seed extract` again.")
        return cls(path, attributes, ids, status)

    @cached_property
    def ok(self) -> NDArray[np.int64]:
        """Row numbers of the utterances that were encoded."""
        return np.flatnonzero(self.status == OK)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.attributes["dim"])

    def encoder(self) -> dict[str, Any]:
        """Return what the store says of its encoder: its name, and what tells its vectors from another's."""
        denoised = {DENOISE: self.attributes[DENOISE]} if DENOISE in self.attributes else {}
        return {key: self.attributes.get(key) for key in ("encoder", *SPACE)} | denoised

    def check_raw(self) -> None:
        """Raise StoreError if it holds enhanced embeddings, where an encoder's own are needed."""
        if self.attributes.get("enhanced_by_sha256"):
            raise StoreError(
                f"{self.path}: holds enhanced embeddings already. Give the store that they were made from."
            )

    def blocks(self, values: int | None = None) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield rows and their embeddings [row, draw, view, dim] as they are, about `values` numbers at a time, or all.

        Raises:
            StoreError: a shard is damaged.
        """
        count, *shape = self.shape
        step = max(values // int(np.prod(shape)), CHUNK_ROWS) if values else count
        for start in range(0, count, step):
            rows = slice(start, start + step)
            try:
                yield rows, np.asarray(self._embeddings[rows], dtype=np.float32)
            except PlaceError:
                raise
            except Exception as error:
                raise self._damaged(range(count)[rows], one_line(error)) from error

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """Utterances, draws, views and dim."""
        utterances, draws, views, dim = self._embeddings.shape
        return utterances, draws, views, dim

    def shards(self) -> list[range]:
        """Return the rows of every shard, which are read fastest one whole shard at a time."""
        step = (self._embeddings.shards or self._embeddings.chunks)[0]
        return [range(start, min(start + step, self.shape[0])) for start in range(0, self.shape[0], step)]

    def read_rows(self, rows: range) -> NDArray[np.float32]:
        """Return the embeddings [rows, draw, view, dim] of neighbouring utterances; failed rows are NaN.

        Raises:
            StoreError: a shard that they lie in is damaged.
        """
        try:
            values = np.asarray(self._embeddings[rows.start : rows.stop], dtype=np.float32)
        except (PlaceError, StoreError):
            raise
        except Exception as error:
            raise self._damaged(rows, one_line(error)) from error
        whole = np.isfinite(values).all(axis=(1, 2, 3))
        if (~whole & (self.status[rows.start : rows.stop] == OK)).any():
            raise self._damaged(rows, "marked as encoded, but they hold NaN")
        return values

    def read(self) -> NDArray[np.float32]:
        """Return all embeddings [utterance, draw, view, dim] in memory; failed rows are NaN.

        Raises:
            StoreError: a shard is damaged.
        """
        values = np.empty(self.shape, dtype=np.float32)
        for rows in self.shards():
            values[rows.start : rows.stop] = self.read_rows(rows)
        return values

    @cached_property
    def _embeddings(self) -> Any:  # a Zarr array, or what can be read like one
        try:
            return array_of(_group(self.path), "embeddings")
        except (PlaceError, StoreError):
            raise
        except Exception as error:
            raise StoreError(f"{self.path}: corrupt embedding store ({one_line(error)}). Extract it again.") from error

    def fingerprints(self) -> NDArray[np.uint8] | None:
        """Return what each row was made of, hashed [utterance, 16]; None if the store does not say.

        Raises:
            StoreError: they are damaged.
        """
        try:
            group = _group(self.path)
            return np.asarray(array_of(group, FINGERPRINTS)[:]) if FINGERPRINTS in group else None
        except PlaceError:
            raise
        except Exception as error:
            raise StoreError(f"{self.path}: corrupt embedding store ({one_line(error)}). Extract it again.") from error

    def gather(self, rows: NDArray[np.int64]) -> RowContents:
        """Return what is held of any rows of a store of audio.

        Raises:
            StoreError: a shard that they lie in is damaged.
        """
        try:
            group = _group(self.path)
            parts = [np.asarray(array_of(group, name).oindex[rows]) for name in ("embeddings", TRACES, FINGERPRINTS)]
        except PlaceError:
            raise
        except Exception as error:
            raise StoreError(f"{self.path}: corrupt embedding store ({one_line(error)}). Extract it again.") from error
        content = RowContents(parts[0], parts[1].astype(object), parts[2])
        if not (np.isfinite(content.values).all() and content.traces.all()):
            raise StoreError(f"{self.path}: corrupt embedding store, encoded rows are empty. Extract it again.")
        return content

    def trace(self, row: int) -> list[list[dict[str, Any]]]:
        """Return what happened to the views `[draw][view]` of a row: the `start` of the crop, and the `steps` in turn.

        Raises:
            StoreError: the row failed, the store is one of enhanced vectors, or it is damaged.
        """
        from pipeline.store.traces import read_trace

        return read_trace(self.path, self.utterances[row], row)

    def _damaged(self, rows: range, why: str) -> StoreError:
        where = f"the shard of rows {rows.start} to {rows.stop - 1}"
        return StoreError(f"{self.path}: corrupt embedding store, in {where} ({why}). Extract it again.")


def array_of(group: "zarr.Group", name: str) -> "zarr.Array[Any]":
    """Return an array of a store; StoreError if it is something else."""
    import zarr

    array = group[name]
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{group.store_path}: {name} is not an array.")
    return array


def _group(path: Place) -> "zarr.Group":
    from pipeline.store.zarr_access import open_group

    return open_group(path, "r")
