"""Checksums of what a result was made of, by content: what was measured once is found again by them, see `sweep`.

Attributes of a store alone will not do: they say how it was made, and stores that were imported or cut down may say the
same of other vectors.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.embedding_store import EmbeddingStore


def hash_store(store: EmbeddingStore) -> str:
    """Return the SHA-256 of a store's attributes, utterances, status and vectors, read once, shard by shard.

    Raises:
        StoreError: a shard is damaged.
    """
    found = hashlib.sha256(json.dumps(dict(store.attributes), sort_keys=True).encode())
    found.update(hash_texts(store.utterances).encode())
    found.update(_described(store.status))
    for rows in store.shards():
        found.update(_described(store.read_rows(rows)))
    return found.hexdigest()


def hash_arrays(arrays: Iterable[NDArray[Any]]) -> str:
    """Return the SHA-256 of the types, shapes and values of arrays."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(_described(array))
    return found.hexdigest()


def hash_texts(texts: Iterable[str]) -> str:
    """Return the SHA-256 of texts, and of where one ends and the next begins."""
    found = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogateescape")  # a path need not be UTF-8
        found.update(b"%d:%b" % (len(content), content))
    return found.hexdigest()


def _described(array: NDArray[Any]) -> bytes:
    """Return an array's type, shape and values as bytes."""
    return f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()
