"""Writing of embedding stores: shard by shard in a journal, which becomes the store when it is complete."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OutputError, PlaceError, StoreError
from pipeline.store.embedding_store import RowContents, open_array
from pipeline.store.layout import create_store
from pipeline.store.schema import FINGERPRINT, FINGERPRINTS, MISSING, OK, TRACES
from pipeline.store.zarr_access import discard, open_group, publish
from pipeline.utils.atomic import link_folder, lock_folder, move_folder, new_folder
from pipeline.utils.paths import ENTRY, Place, exists, list_names, read_bytes, remove_folder

STORE = "store.zarr"
"""The name of the store in its folder of the journal."""

PUBLISHING = "publishing"
"""The name of an object in the journal that exists while a remote store is replaced, object by object."""


class ShardWriter:
    """The arrays of an unfinished store; several processes may write, each to whole shards of its own."""

    def __init__(self, store: Place) -> None:
        """Open the store in a journal, see `StoreWriter.store`."""
        self.store = store
        self._group = group = open_group(store, "r+")
        self.attributes: Mapping[str, Any] = dict(group.attrs)
        self._embeddings, self._status = open_array(group, "embeddings"), open_array(group, "status")
        self._audio_arrays = [open_array(group, name) for name in (TRACES, FINGERPRINTS) if name in group]

    def status(self) -> NDArray[np.uint8]:
        """Return the current status [utterance]."""
        return np.asarray(self._status[:], dtype=np.uint8)

    def read(self, rows: range) -> tuple[RowContents, NDArray[np.uint8]]:
        """Return the content of a whole shard of a store of audio and its status [rows]; rows may be missing."""
        status = np.asarray(self._status[rows.start : rows.stop], dtype=np.uint8)
        try:
            if (status == OK).any():
                values = np.asarray(self._embeddings[rows.start : rows.stop], dtype=np.float32)
                traces, fingerprints = (np.asarray(array[rows.start : rows.stop]) for array in self._audio_arrays)
                return RowContents(values, traces.astype(object), fingerprints), status
        except PlaceError:
            raise
        except Exception:  # Zarr's codecs may raise any error; a damaged shard is encoded again
            status = np.full_like(status, MISSING)
        shape = (len(rows), *self._embeddings.shape[1:])
        values, traces = np.full(shape, np.nan, np.float32), np.full(shape[:3], "", dtype=object)
        return RowContents(values, traces, np.zeros((len(rows), FINGERPRINT), np.uint8)), status

    def write(
        self, rows: range, values: NDArray[np.float32], status: NDArray[np.uint8], *of_audio: NDArray[Any]
    ) -> None:
        """Write one whole shard: embeddings [rows, draw, view, dim], and then their status [rows].

        A store of audio also takes the traces [rows, draw, view] and fingerprints [rows, 16].
        """
        for array, content in zip(self._audio_arrays, of_audio, strict=True):
            array[rows.start : rows.stop] = content
        self._embeddings[rows.start : rows.stop] = values
        self._status[rows.start : rows.stop] = status


class StoreWriter(ShardWriter):
    """An unfinished store, in a journal folder beside its final place.

    The journal is keyed by everything the store is made of: a run never mixes in work of another recipe or encoder,
    and a run after a kill finds the finished shards. A remote place has no lock: two runs of one recipe repeat each
    other's work and write the same bytes; of two runs with `whole`, the second disturbs the first.
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
            attributes: description of the store's origin, as JSON values.
            shard: number of rows in a shard; each shard has one writer.
            of_audio: True if the store holds traces and fingerprints.
            whole: True if the store is written in one go. An earlier run is not resumed, and each shard is a single
                chunk. This is much faster, but not possible for stores of audio.

        Raises:
            OutputError: something other than a store is at `target`, or another process is writing the store.
            PlaceError: a remote place does not answer or refuses, now or whenever something is written.
        """
        journal = journal_of(target)
        if not target.name or not _replaceable(target, journal / PUBLISHING):
            raise OutputError(f"{target}: exists and is no embedding store. Give another path with --out.")
        if whole:  # its chunks are files of equal size, so a larger one would take space and time for nothing
            shard = min(shard, max(1, len(utterances)))
        self.target, self.shard, self.rows, self._utterances = target, shard, len(utterances), utterances
        made_of = {"attributes": attributes, "shape": shape, "shard": shard, "of_audio": of_audio}
        key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
        keyed = () if whole else utterances  # a store that is never resumed needs no key of its own
        for start in range(0, len(keyed), 65536):  # the text of each, one after another
            key.update(json.dumps(keyed[start : start + 65536], separators=("", "")).encode()[1:-1])
        self._lock = lock_folder(journal) if isinstance(journal, Path) else None
        self.folder = journal / key.hexdigest()[:16]
        store = self.folder / STORE
        if whole:
            remove_folder(self.folder)
        if not exists(store / ENTRY):
            # Without its status, the rest of a journal that was only partly removed is not used.
            remove_folder(store / "status")
            with new_folder(store) as new:  # it gets its name only when it is complete
                create_store(new, utterances, shape, shard, attributes, of_audio, whole)
        super().__init__(store)
        self._names = open_array(self._group, "utterances") if whole else None
        if whole:  # chunks are files of equal size, also where all vectors are NaN
            self._embeddings = self._embeddings.with_config({"write_empty_chunks": True})

    def shards(self) -> list[range]:
        """Return the rows of every shard."""
        return [range(start, min(start + self.shard, self.rows)) for start in range(0, self.rows, self.shard)]

    def write(
        self, rows: range, values: NDArray[np.float32], status: NDArray[np.uint8], *of_audio: NDArray[Any]
    ) -> None:
        """Write one whole shard, see `ShardWriter.write`, and its ids if the store is written `whole`."""
        if self._names is not None:
            self._names[rows.start : rows.stop] = np.array(self._utterances[rows.start : rows.stop], dtype=object)
        super().write(rows, values, status, *of_audio)

    def finish(self, keep: bool = False) -> None:
        """Move the finished store into its place and remove the journal.

        If `keep`, the journal keeps hard links to the store's files until `leftovers.discard_copy`, in case the store
        itself is deleted. Without hard links, no copy is kept.
        """
        if (self.status() == MISSING).any():
            raise StoreError(f"{self.folder}: cannot finish, rows are missing. Run the extraction again.")
        journal = self.folder.parent
        if isinstance(self.store, Path) and isinstance(self.target, Path) and isinstance(self.folder, Path):
            for partial in self.store.rglob("*.partial"):  # files that Zarr was writing when a process was killed
                partial.unlink()
            if keep:
                with suppress(OSError):
                    link_folder(self.store, self.folder / "moving.zarr")
                    move_folder(self.folder / "moving.zarr", self.target, aside=self.folder)
                    self.close()
                    return
            move_folder(self.store, self.target, aside=self.folder)
            remove_folder(self.folder)
            if not self.unfinished_stores():
                remove_folder(journal)
        else:
            publish(self.store, self.target, journal / PUBLISHING)
            discard(self.store, self.folder if self.unfinished_stores() else journal)
        self.close()

    def unfinished_stores(self) -> list[Place]:
        """Return the unfinished stores in the journal from other manifests, recipes or encoders."""
        journal = self.folder.parent
        others = [journal / name / STORE for name in sorted(list_names(journal) - {self.folder.name})]
        return [store for store in others if exists(store / ENTRY)]

    def close(self) -> None:
        """Release the lock; unfinished work stays in the journal."""
        if self._lock:
            self._lock.close()


def journal_of(target: Place) -> Place:
    """Return the journal of a store: a hidden folder beside it for unfinished work."""
    return target.parent / f".{target.name}.journal"


def write_store(
    path: Place,
    utterances: Sequence[str],
    values: NDArray[np.float32],
    status: NDArray[np.uint8],
    attributes: Mapping[str, Any],
) -> None:
    """Write a whole store from memory: embeddings [utterance, draw, view, dim] and status [utterance]."""
    with closing(StoreWriter(path, utterances, values.shape[1:], attributes, shard=1024)) as writer:
        for rows in writer.shards():
            writer.write(rows, values[rows.start : rows.stop], status[rows.start : rows.stop])
        writer.finish()


def _replaceable(target: Place, publishing: Place) -> bool:
    """Return True if nothing is there, one of our stores, or the rest of one that was `publishing`."""
    names, known = list_names(target), {ENTRY, "embeddings", "status", "utterances", TRACES, FINGERPRINTS}
    if not names <= known:
        return False
    if ENTRY not in names:
        return not names or exists(publishing)  # a run was about to replace its objects
    try:
        return "schema" in json.loads(read_bytes(target / ENTRY))["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
