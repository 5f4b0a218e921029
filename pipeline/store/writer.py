"""Embedding stores in the making: written shard by shard into a journal, and moved into place when whole."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OutputError, PlaceError, StoreError
from pipeline.store.embedding_store import RowContents, array_of
from pipeline.store.layout import lay_out, put_numbers, put_text
from pipeline.store.schema import FINGERPRINT, FINGERPRINTS, MISSING, OK, TRACES
from pipeline.store.zarr_access import discard, open_group, publish
from pipeline.utils.atomic import link_folder, locked, move_folder, new_folder
from pipeline.utils.paths import ENTRY, Place, children, exists, read_bytes, remove_folder

STORE = "store.zarr"
"""Name of the store in its folder of the journal."""

PUBLISHING = "publishing"
"""An object beside the journals of a remote store, there while the store itself is replaced, object by object."""


class ShardWriter:
    """The arrays of a store in the making; several processes may write, each its own whole shards."""

    def __init__(self, store: Place) -> None:
        """Open the store in a journal, see `StoreWriter.store`."""
        self.store = store
        self._group = group = open_group(store, "r+")
        self.attributes: Mapping[str, Any] = dict(group.attrs)
        self._embeddings, self._status = array_of(group, "embeddings"), array_of(group, "status")
        self._of_audio = [array_of(group, name) for name in (TRACES, FINGERPRINTS) if name in group]

    def status(self) -> NDArray[np.uint8]:
        """Return the status [utterance] so far."""
        return np.asarray(self._status[:], dtype=np.uint8)

    def read(self, rows: range) -> tuple[RowContents, NDArray[np.uint8]]:
        """Return what was written of one whole shard of a store of audio, and the status [rows]; it may be nothing."""
        status = np.asarray(self._status[rows.start : rows.stop], dtype=np.uint8)
        try:
            if (status == OK).any():
                values = np.asarray(self._embeddings[rows.start : rows.stop], dtype=np.float32)
                traces, prints = (np.asarray(array[rows.start : rows.stop]) for array in self._of_audio)
                return RowContents(values, traces.astype(object), prints), status
        except PlaceError:
            raise
        except Exception:  # Zarr raises whatever its codecs raise; a damaged shard is encoded anew
            status = np.full_like(status, MISSING)
        shape = (len(rows), *self._embeddings.shape[1:])
        nothing = RowContents(
            np.full(shape, np.nan, np.float32),
            np.full(shape[:3], "", dtype=object),
            np.zeros((len(rows), FINGERPRINT), np.uint8),
        )
        return nothing, status

    def write(
        self, rows: range, values: NDArray[np.float32], status: NDArray[np.uint8], *of_audio: NDArray[Any]
    ) -> None:
        """Write one whole shard: embeddings [rows, draw, view, dim], and only then their status [rows].

        A store of audio takes its traces [rows, draw, view] and fingerprints [rows, 16] as well.
        """
        for array, content in zip(self._of_audio, of_audio, strict=True):
            array[rows.start : rows.stop] = content
        self._embeddings[rows.start : rows.stop] = values
        self._status[rows.start : rows.stop] = status


class StoreWriter(ShardWriter):
    """A store in the making, in a journal folder beside its final place.

    The journal is keyed by what the store is made of, so that work of another recipe or encoder is never mixed in, and
    whoever runs again after a kill finds the finished shards. A remote place has no lock: two runs of one recipe do
    each other's work again, and write the same bytes; of two that write in one go, the second disturbs the first.
    """

    def __init__(
        self,
        target: Place,
        utterances: Sequence[str],
        shape: tuple[int, int, int],
        attributes: Mapping[str, Any],
        shard: int,
        of_audio: bool = False,
        whole: bool = False,
    ) -> None:
        """Open or create the journal.

        Args:
            target: the store's final place, a folder named `….zarr`.
            utterances: ids in row order.
            shape: draws, views and dim of a row.
            attributes: what the store is made of; JSON values.
            shard: rows in a shard; one writer owns one whole shard.
            of_audio: whether the store is to hold traces and fingerprints.
            whole: whether it is written in one go: nothing of an earlier run is taken up, and shards, which are chunks
                then, are only read whole. It takes a fraction of the time, and no audio.

        Raises:
            OutputError: something else than a store is at `target`, or another process is making the store.
            PlaceError: a remote place does not answer, or refuses; now, or whenever something is written.
        """
        journal = journal_of(target)
        if not target.name or not _replaceable(target, journal / PUBLISHING):
            raise OutputError(f"{target}: is there already, and is no embedding store. Give another place by --out.")
        self.target, self.shard, self.rows, self._utterances = target, shard, len(utterances), utterances
        made_of = {"attributes": attributes, "shape": shape, "shard": shard, "of_audio": of_audio}
        key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
        keyed = () if whole else utterances  # what nobody takes up again needs no key of its own
        for start in range(0, len(keyed), 65536):  # the text of each, one after another
            key.update(json.dumps(keyed[start : start + 65536], separators=("", "")).encode()[1:-1])
        self._lock = locked(journal) if isinstance(journal, Path) else None
        self.folder = journal / key.hexdigest()[:16]
        store = self.folder / STORE
        if whole:
            remove_folder(self.folder)
        if not exists(store / ENTRY):
            # Of a journal taken away by halves, the other arrays are of no use without this one.
            remove_folder(store / "status")
            with new_folder(store) as new:  # it appears under its name only when it is whole
                lay_out(new, utterances, shape, shard, attributes, of_audio, whole)
        super().__init__(store)
        self._names = array_of(self._group, "utterances") if whole else None

    def shards(self) -> list[range]:
        """Return the rows of every shard."""
        return [range(start, min(start + self.shard, self.rows)) for start in range(0, self.rows, self.shard)]

    def write(
        self, rows: range, values: NDArray[np.float32], status: NDArray[np.uint8], *of_audio: NDArray[Any]
    ) -> None:
        """Write one whole shard, see `ShardWriter.write`; of a store in one go, its ids as well."""
        if self._names is None:
            super().write(rows, values, status, *of_audio)
            return
        put_text(self._names, rows.start, self._utterances[rows.start : rows.stop])
        put_numbers(self._embeddings, rows.start, values)
        put_numbers(self._status, rows.start, status)

    def finish(self, keep: bool = False) -> None:
        """Move the finished store into its place, and take the journal away.

        If `keep`, the journal keeps the store under a second name, without its taking more of the disk, for whoever
        may lose the first one: see `stale.saved`. Without hard links there is no second name.
        """
        if (self.status() == MISSING).any():
            raise StoreError(f"{self.folder}: cannot finish, rows are missing. Run the extraction again.")
        journal = self.folder.parent
        if isinstance(self.store, Path) and isinstance(self.target, Path) and isinstance(self.folder, Path):
            for torn in self.store.rglob("*.partial"):  # what Zarr was writing when a process was killed
                torn.unlink()
            if keep:
                with suppress(OSError):
                    link_folder(self.store, self.folder / "moving.zarr")
                    move_folder(self.folder / "moving.zarr", self.target, aside=self.folder)
                    self.close()
                    return
            move_folder(self.store, self.target, aside=self.folder)
            remove_folder(self.folder)
            if not self.stale():
                remove_folder(journal)
        else:
            publish(self.store, self.target, journal / PUBLISHING)
            discard(self.store, self.folder if self.stale() else journal)
        self.close()

    def stale(self) -> list[Place]:
        """Return the unfinished stores that other manifests, recipes or encoders have left in the journal."""
        journal = self.folder.parent
        others = [journal / name / STORE for name in sorted(children(journal) - {self.folder.name})]
        return [store for store in others if exists(store / ENTRY)]

    def close(self) -> None:
        """Let others write; unfinished work stays in the journal."""
        if self._lock:
            self._lock.close()


def journal_of(target: Place) -> Place:
    """Return where work waits that will be the store `target`: a hidden folder beside it."""
    return target.parent / f".{target.name}.journal"


def write_store(
    path: Place,
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


def _replaceable(target: Place, publishing: Place) -> bool:
    """Whether nothing is lost when a store takes the place of `target`: nothing is there, or a store of ours.

    What is there without a zarr.json is ours too, if `publishing` says that a run was about to replace it.
    """
    names, known = children(target), {ENTRY, "embeddings", "status", "utterances", TRACES, FINGERPRINTS}
    if not names <= known:
        return False
    if ENTRY not in names:
        return not names or exists(publishing)
    try:
        content = json.loads(read_bytes(target / ENTRY))
        return "schema" in content["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
