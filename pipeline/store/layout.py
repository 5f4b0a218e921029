"""Layout of a new store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from pipeline.store.schema import CHUNK_ROWS, FINGERPRINT, FINGERPRINTS, MISSING, SCHEMA, TRACES

_IDS = 2**18
"""Number of ids written at once: millions would take several times their memory."""

_CHECKSUM = Crc32cCodec()  # damage of a chunk is an error instead of other vectors

_TEXT = (ZstdCodec(level=9), _CHECKSUM)  # traces repeat paths; compressed, they are small beside the embeddings


def create_store(
    path: Path,
    ids: Sequence[str],
    shape: tuple[int, int, int],
    shard: int,
    attributes: Mapping[str, Any],
    of_audio: bool,
    whole: bool,
) -> None:
    """Create the group of a store in an empty folder, see `StoreWriter`; if `whole`, ids follow with their shards."""
    group, count = zarr.create_group(path, zarr_format=3, attributes={"schema": SCHEMA, **attributes}), len(ids)
    inner = CHUNK_ROWS if shard % CHUNK_ROWS == 0 and not whole else shard
    group.create_array(
        "embeddings",
        shape=(count, *shape),
        chunks=(inner, *shape),
        shards=None if whole else (shard, *shape),
        dtype="float32",
        fill_value=float("nan"),
        compressors=_CHECKSUM,  # no compression: it would save only about 10 %
        dimension_names=("utterance", "draw", "view", "dim"),
    )
    group.create_array(
        "status", shape=(count,), chunks=(shard,), dtype="uint8", fill_value=MISSING, compressors=_CHECKSUM
    )
    step = shard if whole else min(max(count, 1), _IDS)
    names = group.create_array("utterances", shape=(count,), chunks=(step,), dtype=str, compressors=_CHECKSUM)
    if not whole:
        for start in range(0, count, step):
            names[start : start + step] = np.array(ids[start : start + step], dtype=object)
    if of_audio:
        group.create_array(
            TRACES,
            shape=(count, *shape[:2]),
            chunks=(shard, *shape[:2]),
            dtype=str,
            fill_value="",
            compressors=_TEXT,
            dimension_names=("utterance", "draw", "view"),
        )
        group.create_array(
            FINGERPRINTS,
            shape=(count, FINGERPRINT),
            chunks=(shard, FINGERPRINT),
            dtype="uint8",
            fill_value=0,
            compressors=_CHECKSUM,
            dimension_names=("utterance", "byte"),
        )
