"""Checksums by content, which identify the inputs of a result; `sweep` finds earlier results by them.

Attributes of a store do not suffice: stores that were imported or cut down may have the same attributes and other
vectors.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.embedding_store import EmbeddingStore


def hash_store(store: EmbeddingStore) -> str:
    """Return the SHA-256 of a store's attributes, ids, status and vectors; raise StoreError if a shard is damaged."""
    digest = hashlib.sha256(json.dumps(dict(store.attributes), sort_keys=True).encode())
    digest.update(hash_texts(store.utterances).encode())
    digest.update(_to_bytes(store.status))
    for rows in store.shards():
        digest.update(_to_bytes(store.read_rows(rows)))
    return digest.hexdigest()


def hash_arrays(arrays: Iterable[NDArray[Any]]) -> str:
    """Return the SHA-256 of the types, shapes and values of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(_to_bytes(array))
    return digest.hexdigest()


def hash_texts(texts: Iterable[str]) -> str:
    """Return the SHA-256 of texts and their lengths."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogateescape")  # a path need not be UTF-8
        digest.update(b"%d:%b" % (len(content), content))
    return digest.hexdigest()


def _to_bytes(array: NDArray[Any]) -> bytes:
    """Return an array's type, shape and values as bytes."""
    return f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()
