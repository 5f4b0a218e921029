"""The empty arrays that a store begins as."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs.vlen import VLenUTF8
from numpy.typing import NDArray
from zarr import Array
from zarr.abc.store import SupportsSetSync
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from pipeline.store.schema import CHUNK_ROWS, FINGERPRINT, FINGERPRINTS, MISSING, SCHEMA
from pipeline.store.traces import create_traces

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


_IDS = 2**18
"""Ids that are written at once: millions would take several times their memory."""

_CHECKED = Crc32cCodec()  # a damaged chunk is an error rather than another vector


def lay_out(
    path: Path,
    ids: Sequence[str],
    shape: tuple[int, int, int],
    shard: int,
    attributes: Mapping[str, Any],
    of_audio: bool,
    whole: bool,
) -> None:
    """Make the group of a store in an empty folder; see `StoreWriter`.

    The ids are written, but for those of a store that is written in one go, which come with their shards.
    """
    group, count = zarr.create_group(path, zarr_format=3, attributes={"schema": SCHEMA, **attributes}), len(ids)
    inner = CHUNK_ROWS if shard % CHUNK_ROWS == 0 and not whole else shard
    group.create_array(
        "embeddings",
        shape=(count, *shape),
        chunks=(inner, *shape),
        shards=None if whole else (shard, *shape),
        dtype="float32",
        fill_value=float("nan"),
        compressors=_CHECKED,  # and no compression, from which embeddings gain about a tenth
        dimension_names=("utterance", "draw", "view", "dim"),
    )
    group.create_array(
        "status", shape=(count,), chunks=(shard,), dtype="uint8", fill_value=MISSING, compressors=_CHECKED
    )
    step = shard if whole else min(max(count, 1), _IDS)
    names = group.create_array("utterances", shape=(count,), chunks=(step,), dtype=str, compressors=_CHECKED)
    if not whole:
        for start in range(0, count, step):
            put_text(names, start, ids[start : start + step])
    if of_audio:
        create_traces(group, (count, *shape[:2]), shard)
        group.create_array(
            FINGERPRINTS,
            shape=(count, FINGERPRINT),
            chunks=(shard, FINGERPRINT),
            dtype="uint8",
            fill_value=0,
            compressors=_CHECKED,
            dimension_names=("utterance", "byte"),
        )
