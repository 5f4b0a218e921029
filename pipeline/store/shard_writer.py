"""Writing of single shards of an unfinished store."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PlaceError
from pipeline.store.embedding_store import open_array
from pipeline.store.integrity import hash_rows
from pipeline.store.row_contents import RowContents
from pipeline.store.schema import FINGERPRINT, FINGERPRINTS, MISSING, OK, TRACES
from pipeline.store.zarr_access import open_group
from pipeline.utils.paths import Place, remove_path
from pipeline.utils.shortage import raise_shortage


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
        status = np.full(len(rows), MISSING, dtype=np.uint8)
        try:
            status = np.asarray(self._status[rows.start : rows.stop], dtype=np.uint8)
            if (status == OK).any():
                values = np.asarray(self._embeddings[rows.start : rows.stop], dtype=np.float32)
                traces, fingerprints = (np.asarray(array[rows.start : rows.stop]) for array in self._audio_arrays)
                content = RowContents(values, traces.astype(object), fingerprints)
                encoded = status == OK
                whole = np.isfinite(values[encoded]).all() and content.traces[encoded].all()
                if whole and fingerprints[encoded].any(axis=1).all():  # lost chunks read as NaN, "" and 0
                    return content, status
                status = np.full_like(status, MISSING)
        except PlaceError:
            raise
        except Exception as error:  # Zarr's codecs may raise any error; a damaged shard is encoded again
            raise_shortage(error, self.store)
            status = np.full_like(status, MISSING)
        shape = (len(rows), *self._embeddings.shape[1:])
        values, traces = np.full(shape, np.nan, np.float32), np.full(shape[:3], "", dtype=object)
        return RowContents(values, traces, np.zeros((len(rows), FINGERPRINT), np.uint8)), status

    def read_traces(self, rows: range) -> NDArray[np.object_]:
        """Return the traces [rows, draw, view] of a shard of a store of audio as JSON."""
        return np.asarray(self._audio_arrays[0][rows.start : rows.stop]).astype(object)

    def _is_marked_missing(self, rows: range) -> bool:
        """Return True if a shard has the status of one that was never written, False if that is damaged."""
        try:
            return bool(np.all(np.asarray(self._status[rows.start : rows.stop]) == MISSING))
        except PlaceError:
            raise
        except Exception as error:  # Zarr's codecs may raise any error
            raise_shortage(error, self.store)
            return False

    def _remove(self, rows: range) -> None:
        """Remove the files of a shard; Zarr would read a damaged one before it writes to it."""
        number = str(rows.start // self._status.chunks[0])
        for array in (self._status, self._embeddings, *self._audio_arrays):
            remove_path(self.store / array.basename / "c" / number)

    def write(
        self, rows: range, values: NDArray[np.float32], status: NDArray[np.uint8], *of_audio: NDArray[Any]
    ) -> bytes:
        """Write one whole shard: embeddings [rows, draw, view, dim], and then their status [rows].

        A store of audio also takes the traces [rows, draw, view] and fingerprints [rows, 16]. Return the checksum of
        the shard, see `integrity.hash_rows`.
        """
        for array, content in zip(self._audio_arrays, of_audio, strict=True):
            array[rows.start : rows.stop] = content
        self._embeddings[rows.start : rows.stop] = values
        self._status[rows.start : rows.stop] = status
        return hash_rows(status, values, *of_audio)
