"""Protection of stores against damage, and against being replaced while they are read.

Every chunk has a checksum of its own, which Zarr verifies when it reads the chunk. Two attributes cover the rest:
`content_sha256` identifies ids, status and rows, and `store_sha256` protects the attributes and the arrays' metadata.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.read_errors import store_errors
from pipeline.store.schema import ARRAYS, CONTENT_SHA256, STORE_SHA256
from pipeline.utils.paths import ENTRY, Place, read_bytes
from pipeline.utils.shortage import raise_shortage

_IDS = 2**16
"""Number of ids hashed at once."""


def hash_rows(status: NDArray[np.uint8], values: NDArray[np.float32], *of_audio: NDArray[Any]) -> bytes:
    """Return the SHA-256 of a shard: its status [rows], embeddings, and, for audio, its traces and fingerprints."""
    digest = hashlib.sha256(str(values.shape).encode())
    arrays: tuple[NDArray[Any], ...] = (status, values, *of_audio)
    for array in arrays:
        if array.dtype.kind in "OUT":
            digest.update("\0".join(map(str, array.ravel())).encode())
        else:
            digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def hash_content(utterances: Sequence[str], shards: Iterable[bytes]) -> str:
    """Return the SHA-256 of a store's ids and of the hashes of its shards in row order, see `hash_rows`."""
    digest = hashlib.sha256()
    for start in range(0, len(utterances), _IDS):
        digest.update("\0".join(utterances[start : start + _IDS]).encode("utf-8", "surrogatepass") + b"\0")
    for shard in shards:
        digest.update(shard)
    return digest.hexdigest()


def hash_description(store: Place, attributes: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a store's attributes, but for `store_sha256`, and of the metadata of its arrays.

    Raises:
        OSError, ValueError: the metadata cannot be read or is not JSON.
        PlaceError: a remote place does not answer or refuses.
    """
    arrays = {}
    for name in ARRAYS:
        with suppress(FileNotFoundError):
            arrays[name] = json.loads(read_bytes(store / name / ENTRY))
    content = {"attributes": {key: value for key, value in attributes.items() if key != STORE_SHA256}, "arrays": arrays}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def split_checksums(attributes: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return a store's attributes without checksums, and its `content_sha256`, which older stores do not have."""
    kept = {key: value for key, value in attributes.items() if key not in (CONTENT_SHA256, STORE_SHA256)}
    return kept, attributes.get(CONTENT_SHA256)


@contextmanager
def unchanged(path: Place, entry: bytes, rows: range | None = None) -> Iterator[None]:
    """Raise StoreError if what is read within is damaged, or if another store has come to `path` meanwhile.

    Zarr opens every chunk by its path, so the `zarr.json` is compared after reading; it comes last in a new store.
    """
    try:
        with store_errors(path, rows):
            yield
    except StoreError:
        _check_entry(path, entry)  # the true reason, if a chunk was missing because the store was being replaced
        raise
    _check_entry(path, entry)


def _check_entry(path: Place, entry: bytes) -> None:
    try:
        same = read_bytes(path / ENTRY) == entry
    except OSError as error:
        raise_shortage(error, path)
        same = False
    if not same:
        raise StoreError(f"{path}: was replaced or removed while it was read. Run the command again.")
