"""Embedding stores in the making: written shard by shard into a journal, and moved into place when whole."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from pipeline.errors import OutputError, StoreError
from pipeline.files import locked, move_folder
from pipeline.store import CHUNK_ROWS, MISSING, SCHEMA, array_of
from pipeline.traces import NAME, create_traces

_CHECKED = Crc32cCodec()  # a damaged chunk is an error rather than another vector


class ShardWriter:
    """The arrays of a store in the making; several processes may write, each its own whole shards."""

    def __init__(self, store: Path) -> None:
        """Open the store in a journal, see `StoreWriter.store`."""
        group = zarr.open_group(store, mode="r+")
        self._embeddings, self._status = array_of(group, "embeddings"), array_of(group, "status")
        self._traces = array_of(group, NAME) if NAME in group else None

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
        move_folder(self.store, self.target, aside=self.folder)
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
        inner = CHUNK_ROWS if shard % CHUNK_ROWS == 0 else shard
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
