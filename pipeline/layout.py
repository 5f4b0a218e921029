"""The empty arrays that a store begins as."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import Crc32cCodec

from pipeline.chunks import put_text
from pipeline.store import CHUNK_ROWS, FINGERPRINT, FINGERPRINTS, MISSING, SCHEMA
from pipeline.traces import create_traces

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
