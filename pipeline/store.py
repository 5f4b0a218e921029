"""Embedding stores: the only code that touches Zarr.

A store is a Zarr v3 group: `embeddings [utterance, draw, view, dim]` float32 in shards of whole rows, `status
[utterance]` written after its rows, `utterances` the ids in row order, and attributes that say what it was made of.
Stores of audio also hold `traces [utterance, draw, view]`, what happened to each view as JSON (docs/data.md).
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from pipeline.errors import OutputError, StoreError, one_line
from pipeline.files import locked, move_folder
from pipeline.traces import NAME, create_traces, read_trace

SCHEMA = 1
MISSING, OK, FAILED = 0, 1, 2

SPACE = ("family", "weights_sha256", "front_end", "dim")
"""Attributes that tell one encoder's vectors from another's."""

_CHECKED = Crc32cCodec()  # a damaged chunk is an error rather than another vector
_CHUNK_ROWS = 16  # rows that can be read without decoding a whole shard


@dataclass(frozen=True)
class EmbeddingStore:
    """A finished store, read only."""

    path: Path
    attributes: Mapping[str, Any]
    utterances: tuple[str, ...]
    status: NDArray[np.uint8]
    """[utterance], OK or FAILED."""

    @classmethod
    def open(cls, path: Path, unfinished: bool = False) -> "EmbeddingStore":
        """Open a store; if `unfinished`, rows may be missing.

        Raises:
            StoreError: there is none, it is corrupt, unfinished, or of another schema.
        """
        if not (path / "zarr.json").is_file():
            raise StoreError(f"{path}: no embedding store there. Make it with `seed extract`.")
        try:
            group = zarr.open_group(path, mode="r")
            attributes = dict(group.attrs)
            if attributes.get("schema") != SCHEMA:
                raise StoreError(f"{path}: store schema {attributes.get('schema')}, this version reads {SCHEMA}.")
            ids = tuple(map(str, np.asarray(_array(group, "utterances")[:])))
            status = np.asarray(_array(group, "status")[:], dtype=np.uint8)
            shape = _array(group, "embeddings").shape
        except StoreError:
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
        return {key: self.attributes.get(key) for key in ("encoder", *SPACE)}

    def blocks(self, values: int | None = None) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield rows and their embeddings [row, draw, view, dim] as they are, about `values` numbers at a time, or all.

        Raises:
            StoreError: a shard is damaged.
        """
        count, *shape = self.shape
        step = max(values // int(np.prod(shape)), _CHUNK_ROWS) if values else count
        for start in range(0, count, step):
            rows = slice(start, start + step)
            try:
                yield rows, np.asarray(self._embeddings[rows], dtype=np.float32)
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
        except StoreError:
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
    def _embeddings(self) -> "zarr.Array[Any]":
        try:
            return _array(zarr.open_group(self.path, mode="r"), "embeddings")
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(f"{self.path}: corrupt embedding store ({one_line(error)}). Extract it again.") from error

    def trace(self, row: int) -> list[list[dict[str, Any]]]:
        """Return what happened to the views [draw][view] of a row: the `start` of the crop, and the `steps` in turn.

        Raises:
            StoreError: the row failed, the store is one of enhanced vectors, or it is damaged.
        """
        return read_trace(self.path, self.utterances[row], row)

    def _damaged(self, rows: range, why: str) -> StoreError:
        where = f"the shard of rows {rows.start} to {rows.stop - 1}"
        return StoreError(f"{self.path}: corrupt embedding store, in {where} ({why}). Extract it again.")


class ShardWriter:
    """The arrays of a store in the making; several processes may write, each its own whole shards."""

    def __init__(self, store: Path) -> None:
        """Open the store in a journal, see `StoreWriter.store`."""
        group = zarr.open_group(store, mode="r+")
        self._embeddings, self._status = _array(group, "embeddings"), _array(group, "status")
        self._traces = _array(group, NAME) if NAME in group else None

    def status(self) -> NDArray[np.uint8]:
        """Return the status [utterance] so far."""
        return np.asarray(self._status[:], dtype=np.uint8)

    def write(self, rows: range, values: NDArray[np.float32], status: NDArray[np.uint8], traces: Any = None) -> None:
        """Write one whole shard: traces and embeddings [rows, draw, view(, dim)], and only then its status [rows]."""
        if self._traces is not None:
            self._traces[rows.start : rows.stop] = traces
        self._embeddings[rows.start : rows.stop] = values
        self._status[rows.start : rows.stop] = status


class StoreWriter(ShardWriter):
    """A store in the making, in a journal folder beside its final place.

    The journal is keyed by what the store is made of, so that work of another recipe or encoder is never mixed in, and
    whoever runs again after a kill finds the finished shards.
    """

    def __init__(
        self,
        target: Path,
        utterances: Sequence[str],
        shape: tuple[int, int, int],
        attributes: Mapping[str, Any],
        shard: int,
        traced: bool = False,
    ) -> None:
        """Open or create the journal.

        Args:
            target: the store's final place, a folder named `….zarr`.
            utterances: ids in row order.
            shape: draws, views and dim of a row.
            attributes: what the store is made of; JSON values.
            shard: rows in a shard; one writer owns one whole shard.
            traced: whether the store is to hold traces.

        Raises:
            OutputError: something else than a store is at `target`, or another process is making the store.
        """
        if not _replaceable(target):
            raise OutputError(f"{target}: is there already, and is no embedding store. Give another place by --out.")
        self.target, self.shard, self.rows = target, shard, len(utterances)
        content = {"attributes": attributes, "shard": shard, "ids": list(utterances), "traced": traced}
        made_of = json.dumps(content, sort_keys=True)
        journal = target.parent / f".{target.name}.journal"
        self._lock = locked(journal)
        self.folder = journal / hashlib.sha256(made_of.encode()).hexdigest()[:16]
        self.store = self.folder / "store.zarr"
        if not (self.store / "zarr.json").is_file():
            self._create(self.store, utterances, shape, attributes, traced)
        super().__init__(self.store)

    def shards(self) -> list[range]:
        """Return the rows of every shard."""
        return [range(start, min(start + self.shard, self.rows)) for start in range(0, self.rows, self.shard)]

    def finish(self) -> None:
        """Move the finished store into its place, and take the journal away."""
        if (self.status() == MISSING).any():
            raise StoreError(f"{self.folder}: cannot finish, rows are missing. Run the extraction again.")
        for torn in self.store.rglob("*.partial"):  # what Zarr was writing when a process was killed
            torn.unlink()
        move_folder(self.store, self.target)
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Let others write; unfinished work stays in the journal."""
        self._lock.close()

    def _create(
        self, path: Path, ids: Sequence[str], shape: tuple[int, int, int], attributes: Mapping[str, Any], traced: bool
    ) -> None:
        """Lay out an empty store; it appears under its name only when it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name("new.zarr")
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(path, ignore_errors=True)  # of no use without its zarr.json
        group = zarr.create_group(new, zarr_format=3, attributes={"schema": SCHEMA, **attributes})
        count, shard = self.rows, self.shard
        inner = _CHUNK_ROWS if shard % _CHUNK_ROWS == 0 else shard
        group.create_array(
            "embeddings",
            shape=(count, *shape),
            chunks=(inner, *shape),
            shards=(shard, *shape),
            dtype="float32",
            fill_value=float("nan"),
            compressors=_CHECKED,  # and no compression, from which embeddings gain about a tenth
            dimension_names=("utterance", "draw", "view", "dim"),
        )
        group.create_array(
            "status", shape=(count,), chunks=(shard,), dtype="uint8", fill_value=MISSING, compressors=_CHECKED
        )
        names = group.create_array("utterances", shape=(count,), chunks=(count,), dtype=str, compressors=_CHECKED)
        names[:] = np.array(ids, dtype=object)
        if traced:
            create_traces(group, (count, *shape[:2]), shard)
        new.replace(path)


def write_store(
    path: Path,
    utterances: Sequence[str],
    values: NDArray[np.float32],
    status: NDArray[np.uint8],
    attributes: Mapping[str, Any],
) -> None:
    """Write a whole store at once from memory: embeddings [utterance, draw, view, dim] and status [utterance]."""
    shard = 1024
    with closing(StoreWriter(path, utterances, values.shape[1:], attributes, shard)) as writer:
        for rows in writer.shards():
            part = slice(rows.start, rows.stop)
            writer.write(rows, values[part], status[part])
        writer.finish()


def _array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{group.store_path}: {name} is not an array.")
    return array


def _replaceable(target: Path) -> bool:
    """Whether nothing is lost when a store takes the place of `target`: nothing is there, or a store of ours."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return True
    try:
        content = json.loads((target / "zarr.json").read_text(encoding="utf-8"))
        ours = "schema" in content["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    known = {"zarr.json", "embeddings", "status", "utterances", NAME}
    return ours and {path.name for path in target.iterdir()} <= known
