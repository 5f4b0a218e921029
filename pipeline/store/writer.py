"""Writing of embedding stores: shard by shard in a journal, which becomes the store when it is complete."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OutputError, StoreError
from pipeline.store.embedding_store import open_array
from pipeline.store.integrity import hash_content, hash_description, hash_rows
from pipeline.store.journal import PUBLISHING, STORE, is_replaceable, is_undamaged, journal_of
from pipeline.store.layout import create_store
from pipeline.store.read_errors import store_errors
from pipeline.store.schema import CONTENT_SHA256, MISSING, STORE_SHA256
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.zarr_access import discard, publish
from pipeline.utils.atomic import link_folder, lock_folder, move_folder, new_folder
from pipeline.utils.paths import ENTRY, Place, exists, list_names, read_bytes, remove_folder


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
        if not target.name or not is_replaceable(target, journal / PUBLISHING):
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
        self._hashes: dict[int, bytes] = {}
        self.restarted = False
        """True if the journal of an earlier run was damaged, or of another version, and has been removed."""
        if whole:
            remove_folder(self.folder)
        elif exists(store / ENTRY) and not is_undamaged(store, utterances, shape, shard, attributes, of_audio):
            remove_folder(store)
            self.restarted = True
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
    ) -> bytes:
        """Write one whole shard, see `ShardWriter.write`, and its ids if the store is written `whole`."""
        if self._names is not None:
            self._names[rows.start : rows.stop] = np.array(self._utterances[rows.start : rows.stop], dtype=object)
        self._hashes[rows.start] = super().write(rows, values, status, *of_audio)
        return self._hashes[rows.start]

    def add_checksum(self, rows: range, checksum: bytes) -> None:
        """Take the checksum of a shard that another process has written."""
        self._hashes[rows.start] = checksum

    def verify(self) -> int:
        """Verify the shards that an earlier run has written to a store of audio.

        Damaged ones are removed. Return their number.
        """
        damaged = 0
        for rows in self.shards():
            content, status = self.read(rows)
            if (status != MISSING).any():
                self._hashes[rows.start] = hash_rows(status, content.values, content.traces, content.fingerprints)
            elif not self._is_marked_missing(rows):
                self._remove(rows)
                damaged += 1
        return damaged

    def finish(self, keep: bool = False) -> None:
        """Move the finished store into its place and remove the journal.

        If `keep`, the journal keeps hard links to the store's files until `leftovers.discard_copy`, in case the store
        itself is deleted. Without hard links, no copy is kept.

        Raise StoreError if rows are missing, or a shard of an earlier run is damaged.
        """
        if (self.status() == MISSING).any():
            raise StoreError(f"{self.folder}: cannot finish, rows are missing. Run the extraction again.")
        self._write_checksums()
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

    def _write_checksums(self) -> None:
        """Write the checksums of the store into its attributes; read shards whose checksums are not known."""
        for rows in self.shards():
            if rows.start not in self._hashes:
                with store_errors(self.store, rows):
                    arrays = [self._status, self._embeddings, *self._audio_arrays]
                    self._hashes[rows.start] = hash_rows(*(np.asarray(each[rows.start : rows.stop]) for each in arrays))
        content = hash_content(self._utterances, [self._hashes[rows.start] for rows in self.shards()])
        attributes = json.loads(read_bytes(self.store / ENTRY))["attributes"] | {CONTENT_SHA256: content}
        checksums = {CONTENT_SHA256: content, STORE_SHA256: hash_description(self.store, attributes)}
        self._group.attrs.update(checksums)

    def unfinished_stores(self) -> list[Place]:
        """Return the unfinished stores in the journal from other manifests, recipes or encoders."""
        journal = self.folder.parent
        others = [journal / name / STORE for name in sorted(list_names(journal) - {self.folder.name})]
        return [store for store in others if exists(store / ENTRY)]

    def close(self) -> None:
        """Release the lock; unfinished work stays in the journal."""
        if self._lock:
            self._lock.close()


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
