"""Rows of earlier stores that need not be encoded again, found by their fingerprint."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.manifest import Utterance
from pipeline.errors import StoreError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.row_contents import RowContents
from pipeline.store.schema import FINGERPRINT, OK
from pipeline.utils.atomic import sha256_of
from pipeline.utils.paths import Place


def row_fingerprint(utterance: Utterance, root: Path) -> bytes | None:
    """Return a hash of what a row depends on beside the store's attributes; None if its file cannot be read.

    These are the bytes of the recording, the id that seeds its draws, and the voice that is kept out of its babble: the
    speaker, or the file if the speaker is unknown.
    """
    content, path = utterance.sha256, root / utterance.path
    if content is None:
        try:
            if not path.is_file():  # reading a pipe would never end
                return None
            content = sha256_of(path)
        except OSError:
            return None
    own = [utterance.speaker] if utterance.speaker is not None else [None, utterance.path]
    text = json.dumps([utterance.utterance, content, *own])
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=FINGERPRINT).digest()


class EarlierStores:
    """Earlier stores, finished or not, of the same recipe and encoder as a new one."""

    def __init__(self, stores: Sequence[Place], attributes: Mapping[str, Any]) -> None:
        """Index the rows of the `stores` that have these attributes, apart from those of the manifest.

        Stores with other attributes, damaged ones, and ones without fingerprints are ignored.
        """
        self._stores: list[EmbeddingStore] = []
        prints, places = [np.empty((0, FINGERPRINT), np.uint8)], [np.empty((0, 2), np.int64)]
        for path in stores:
            try:
                store = EmbeddingStore.open(path, unfinished=True)
                known = store.fingerprints() if _comparable(store.attributes) == _comparable(attributes) else None
            except StoreError:
                continue
            if known is not None:
                rows = np.flatnonzero(store.status == OK)
                prints.append(known[rows])
                places.append(np.stack([np.full(len(rows), len(self._stores)), rows], axis=1))
                self._stores.append(store)
        keys = np.ascontiguousarray(np.concatenate(prints)).view(f"V{FINGERPRINT}")[:, 0]
        order = np.argsort(keys, kind="stable")
        self._keys, self._places = keys[order], np.concatenate(places)[order]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._keys)

    def take(self, wanted: Mapping[int, bytes]) -> tuple[NDArray[np.int64], RowContents] | None:
        """Return the numbers and contents of the wanted rows (fingerprints by row number) that are found, or None.

        Rows in damaged shards are not found.
        """
        numbers = np.array(sorted(wanted), np.int64)
        if not len(self._keys) or not len(numbers):
            return None
        keys = np.frombuffer(b"".join(wanted[number] for number in numbers), f"V{FINGERPRINT}")
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        here = self._keys[at] == keys
        numbers, places = numbers[here], self._places[at[here]]
        found, contents = [], []
        for index, store in enumerate(self._stores):
            mine = places[:, 0] == index
            if mine.any():
                try:
                    contents.append(store.gather(places[mine, 1]))
                except StoreError:
                    continue
                found.append(numbers[mine])
        return (np.concatenate(found), RowContents.join(contents)) if found else None


def _comparable(attributes: Mapping[str, Any]) -> str:
    """Return a store's attributes without those of the manifest, for comparison."""
    kept = {key: value for key, value in attributes.items() if key not in ("schema", "manifest_sha256")}
    return json.dumps(kept, sort_keys=True)
