"""Chunks of an array that are put into place as a whole, without Zarr's passes over their content.

Zarr compares what it is given with the fill value, and copies it to add the checksum; of a large store these take
longer than the disk does. Here a chunk is in memory once, as the bytes that the disk will have.
"""

from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.vlen import VLenUTF8
from numpy.typing import NDArray
from zarr import Array
from zarr.abc.store import SupportsSetSync
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

_CHECKSUM = 4
"""Bytes of a CRC32C, which stand behind those of a chunk."""
_TEXT = VLenUTF8()


def put_numbers(array: "Array[Any]", start: int, values: NDArray[Any]) -> None:
    """Write the chunk of rows from `start` on; the codecs of the array are `bytes` (little endian) and `crc32c`.

    Args:
        array: whose chunks are of whole rows, and no parts of shards.
        start: the first row of a chunk.
        values: all of its rows, or those that there are in the last chunk.
    """
    kind, count = array.dtype.newbyteorder("<"), int(np.prod(array.chunks))
    content = np.empty(count * kind.itemsize + _CHECKSUM, np.uint8)
    numbers = content[:-_CHECKSUM].view(kind)
    numbers[: values.size] = values.reshape(-1)
    numbers[values.size :] = array.fill_value
    _put(array, start, content)


def put_text(array: "Array[Any]", start: int, texts: Sequence[str]) -> None:
    """Write the chunk of texts from `start` on, as `put_numbers`; the codecs are `vlen-utf8` and `crc32c`."""
    rows = [*texts, *[""] * (array.chunks[0] - len(texts))]
    encoded = np.frombuffer(_TEXT.encode(np.array(rows, dtype=object)), np.uint8)
    _put(array, start, np.concatenate([encoded, np.empty(_CHECKSUM, np.uint8)]))


def _put(array: "Array[Any]", start: int, content: NDArray[np.uint8]) -> None:
    """Write the bytes of a chunk; their last four become the checksum of the others."""
    checksum = google_crc32c.value(content[:-_CHECKSUM])
    content[-_CHECKSUM:] = np.frombuffer(checksum.to_bytes(_CHECKSUM, "little"), np.uint8)
    key = array.metadata.encode_chunk_key((start // array.chunks[0], *[0] * (array.ndim - 1)))
    place, buffer = array.store_path / key, default_buffer_prototype().buffer.from_array_like(content)
    if isinstance(place.store, SupportsSetSync):  # a local folder, without waiting for Zarr's own threads
        place.store.set_sync(place.path, buffer)
    else:
        sync(place.set(buffer))
